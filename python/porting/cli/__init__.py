"""The command `porting`: what a user types, and the exit codes of diff (0 same, 1 differ, 2 trouble).

`main` finds the command, runs it, and turns every error into one sentence on stderr. The commands themselves are in
`commands` (looking at captures, judging them) and `porting.runner` (capturing a script). Nothing here imports torch.
"""
import os
import sys
import traceback

from .parser import build_parser

SAME, DIFFER, TROUBLE = 0, 1, 2


def main(argv=None):
    """Run one command.

    Parameters
    ----------
    argv : list of str, optional
        The words after `porting`; those of the process if None.

    Returns
    -------
    int
        0 same or done, 1 differ, 2 trouble; `porting capture` returns what the captured script would have.
    """
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")  # with the command's usage, not that of all commands
    try:
        return args.run(args)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SAME
    except KeyboardInterrupt:
        print("porting: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"porting: {_sentence(error)}", file=sys.stderr)
        return TROUBLE


def _sentence(error):
    """What a user is told about an exception: one line."""
    from .._core import PortingError

    if isinstance(error, PortingError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{os.fspath(error.filename)}: {error.strerror}"
    elif isinstance(error, (OSError, ValueError, ImportError, MemoryError)):
        text = str(error) or type(error).__name__
    else:
        text = f"internal error: {type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())
