"""`porting capture`: the script runs as ever, its models are captured, its exit code is kept."""
import os
import sys

from .._core import PortingError


def capture(args):
    """Runs the script; says on stderr what was captured. 2 if the script went well but nothing could be captured."""
    from ..runner import run_script

    path = args.output or os.path.splitext(os.path.basename(args.script))[0] + ".capture"
    options = {
        "max_layers": -1 if args.max_layers is None else args.max_layers,
        "stop_after_first_step": args.stop_after_first_step,
        "include": args.include,
        "exclude": args.exclude,
        "program": {"once": "once", "all": "all", "none": False}[args.program],
        "level": args.level,
        "sizes": args.sizes,
        "weights": {"auto": "auto", "all": True, "none": False}[args.weights],
    }
    if args.budget is not None:
        options["budget_bytes"] = args.budget << 20
    _check_patterns(args.include, args.exclude)
    code, watch = run_script(args.script, args.args, path, options)
    for root in watch.captures:
        print(f"porting: {root.class_name} -> {os.path.relpath(root.path)}", file=sys.stderr)
    for trouble in watch.troubles:
        print(f"porting: {trouble}", file=sys.stderr)
    if not watch.captures and not watch.troubles:
        print(f"porting: {args.script} called no torch.nn.Module: nothing was captured", file=sys.stderr)
    if args.noise and watch.captures and not code:
        from ..noise_script import measure_script

        for sentence in measure_script(args.script, args.args, [root.path for root in watch.captures]):
            print(f"porting: {sentence}", file=sys.stderr)
    failed = not watch.captures or any(trouble.startswith(root.path) for trouble in watch.troubles for root in watch.captures)
    return code if code or not failed else 2


def _check_patterns(*groups):
    """A wrong regular expression is a mistake to be told before the script has run for an hour."""
    import re

    for pattern in [p for group in groups for p in group or ()]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise PortingError(f"{pattern!r} is not a regular expression: {error}") from None
