"""The grammar of the command line. No command is imported before it is chosen."""
import argparse


def _late(module, function):
    """A command that is imported when it is run, so that `porting --help` costs nothing."""

    def run(args):
        import importlib

        return getattr(importlib.import_module(module, __package__), function)(args)

    return run


class _Command(argparse.ArgumentParser):
    """Options may stand anywhere: `ls CAPTURE --parameters PATTERN` is what `ls CAPTURE PATTERN --parameters` is."""

    mixes = True

    def parse_known_args(self, args=None, namespace=None):
        if not self.mixes:
            return super().parse_known_args(args, namespace)
        self.mixes = False  # the mixed form parses twice, each time as usual
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.mixes = True


def build_parser():
    """The parser of `porting`; `parse_args().run(args)` runs the chosen command and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="porting",
        description="Find the layer where a port of a PyTorch model goes wrong, and why.",
        epilog="Exit codes: 0 same or done, 1 differ, 2 trouble.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Command)
    _add_capture(commands)
    _add_looking(commands)
    _add_judging(commands)
    _add_keeping(commands)
    return parser


def _command(commands, name, function, help_text, module=".commands", **kwargs):
    command = commands.add_parser(name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".", **kwargs)
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    command.set_defaults(run=_late(module, function), parser=command)
    return command


def _add_json(command):
    command.add_argument("--json", action="store_true", help="print JSON")


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def _add_capture(commands):
    command = _command(
        commands, "capture", "capture", "run an unmodified Python script and capture every call of every model in it",
        module=".capturing",
        epilog="Every module that is called from outside of any other module is a root with a capture of its own: the first in DIR, "
               "others beside it, with their class in the name. "
               "The exit code is the script's own.")
    command.mixes = False  # what stands after SCRIPT is the script's
    command.add_argument("-o", "--output", metavar="DIR", help="the capture to create (default: SCRIPT without .py, plus .capture)")
    command.add_argument("--max-layers", type=_positive, metavar="N", help="of everything numbered (layers.0, layers.1, ...) only the first N")
    command.add_argument("--stop-after-first-step", action="store_true", help="end the script when a root is called for the second time")
    command.add_argument("--include", action="append", metavar="RE", help="only modules whose name matches (may be repeated)")
    command.add_argument("--exclude", action="append", metavar="RE", help="no modules whose name matches (may be repeated)")
    command.add_argument("--program", choices=["once", "all", "none"], default="once",
                         help="record the ops of each distinct call pattern once, of all calls, or not at all (default: once)")
    command.add_argument("--sizes", action="store_true",
                         help="find out which numbers follow the inputs' sizes: porting.Engine then runs other sizes than the captured ones")
    command.add_argument("--weights", choices=["auto", "all", "none"], default="auto",
                         help="store parameters if they total under 2 GB, always, or never (default: auto)")
    command.add_argument("--level", choices=["module", "op", "stats"], default="module",
                         help="what is kept: tensors of modules (default), also of every op inside them, or statistics of tensors only")
    command.add_argument("--budget", type=_positive, metavar="MIB", help="most memory for tensors that wait for the disk")
    command.add_argument("--noise", action="store_true",
                         help="run the script twice more, with other settings, and store how far the reference is from itself: --tol auto allows a port that much")
    command.add_argument("script", help="the script to run")
    command.add_argument("args", nargs="...", help="its arguments").required = False


def _add_looking(commands):
    command = _command(commands, "ls", "ls", "list the tensors of a capture")
    command.add_argument("capture", metavar="CAPTURE")
    command.add_argument("pattern", nargs="?", metavar="PATTERN", help="a part of a name, or a pattern with * and ?; fits later calls (name@1) too")
    command.add_argument("--modules", action="store_true", help="list modules and their calls instead")
    command.add_argument("--parameters", action="store_true", help="list the stored parameters and buffers instead")
    _add_json(command)
    command = _command(commands, "show", "show", "show one tensor or parameter, or the calls of one module")
    command.add_argument("capture", metavar="CAPTURE")
    command.add_argument("name", metavar="NAME", help="of a tensor, a module or a parameter")
    command.add_argument("-n", "--count", type=int, default=8, metavar="N", help="how many values to print (default: 8)")
    _add_json(command)
    command = _command(commands, "graph", "graph", "print what one call of a module executed: ops, shapes, parameters")
    command.add_argument("capture", metavar="CAPTURE")
    command.add_argument("module", nargs="?", default="", metavar="MODULE", help="(default: the root)")
    command.add_argument("--call", type=int, default=0, metavar="K", help="which of its calls (default: 0)")
    _add_json(command)
    command = _command(commands, "describe", "describe", "tell a model's facts, each verified in C against captured bits")
    command.add_argument("source", metavar="CAPTURE_OR_MODEL", help="a capture, or a folder with a checkpoint of Transformers")
    _add_json(command)
    command = _command(commands, "config", "config", "show what this installation computes with")
    _add_json(command)
    command = _command(commands, "probe", "probe", "find by experiment what the installed torch computes on this machine, and whether the kernels match it")
    command.add_argument("--again", action="store_true", help="ask even if the answers are kept from an earlier run")
    _add_json(command)
    command = _command(commands, "ops", "ops", "list the kernels and what each promises: all bits of torch's result, or a bound")
    command.add_argument("pattern", nargs="?", metavar="PATTERN", help="a part of an op's name, or a pattern with * and ?")
    _add_json(command)


def _add_judging(commands):
    def add_common(command):
        command.add_argument("--tol", default="auto", metavar="T", help="the tolerance (default: auto), or a TOML file with tolerances by module")
        command.add_argument("--ledger", metavar="FILE", help="fail if a module is worse than FILE (porting.lock) says it has been")
        command.add_argument("--update", action="store_true", help="write to the ledger what became better, and modules that it does not know")
        command.add_argument("--loosen", metavar="NAME", help="let the ledger's entry of this module be what it is now")
        command.add_argument("--why", metavar="TEXT", help="why it may be worse; kept in the ledger")
        command.add_argument("--level", choices=("module", "op"), default="module",
                             help="judge modules (default), or each op of captures made with --level op")
        command.add_argument("--html", metavar="FILE", help="write the report as one HTML file")
        command.add_argument("--all", action="store_true", help="print every tensor, not only the summary and what differs")
        _add_json(command)

    command = _command(commands, "check", "check", "re-run every captured module in C and compare")
    command.add_argument("capture", metavar="CAPTURE")
    command.add_argument("--provider", default="auto", metavar="P", help="what multiplies matrices (default: auto)")
    command.add_argument("--profile", default="as-captured", metavar="NAME",
                         help="how it is computed: as-captured (default), golden, strict, or operands of products in tf32, bf16, f16, q8_0")
    command.add_argument("--include", action="append", metavar="PATTERN", help="only modules whose name matches, with * and ? (may be repeated)")
    command.add_argument("--mode", choices=("isolated", "chained"), default="isolated",
                         help="run each module on its captured inputs (default), or the whole model from its inputs alone")
    add_common(command)
    command = _command(commands, "compare", "compare", "compare a port's outputs with a capture")
    command.add_argument("reference", metavar="REF", help="a capture")
    command.add_argument("port", metavar="PORT", help="a capture, or a folder or file of tensors")
    command.add_argument("--require-coverage", action="store_true",
                         help="fail if the port lacks any tensor of the capture"
                              " (default: judge what it holds; porting.compare in Python requires it)")
    command.add_argument("--names", action="append", metavar="MAP",
                         help="what the reference calls the port's tensors: a TOML file (docs/NAMES.md), llama.cpp, flax, zml, onnx or nnef (may be repeated)")
    command.add_argument("--layout", action="append", metavar="[PATTERN=]LAYOUT",
                         help='how the port\'s axes become the reference\'s, such as "NHWC -> NCHW" or "*.q_proj.out.0=b h s d -> b s (h d)" (may be repeated)')
    command.add_argument("--propose", metavar="FILE", help="write the names and layouts that the values suggest as a name map, to be looked through")
    command.add_argument("--mode", choices=("isolated", "chained", "both"), default="isolated",
                         help="judge each module on the inputs the port gave it (default), on what the reference returned, or on both")
    command.add_argument("--provider", default="auto", metavar="P", help="what multiplies matrices where a module is re-run (default: auto)")
    add_common(command)


def _add_keeping(commands):
    command = _command(commands, "export", "export", "write all tensors of a capture into one file")
    command.add_argument("capture", metavar="CAPTURE")
    command.add_argument("file", metavar="FILE", help="ends with .safetensors, .npz or .pt")
    command.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    command = _command(commands, "fixture", "fixture", "write one module call as a folder to send: tensors, program, a C and a Python port to fill in")
    command.add_argument("capture", metavar="CAPTURE")
    command.add_argument("module", metavar="MODULE")
    command.add_argument("-o", "--output", metavar="DIR", required=True, help="the folder to create")
    command.add_argument("--call", type=int, default=0, metavar="N", help="which of its calls (default: 0)")
    _add_json(command)
    command = _command(commands, "verify", "verify", "read every tensor of a capture and compare it with its checksum")
    command.add_argument("capture", metavar="CAPTURE")
    _add_json(command)
    command = _command(commands, "repair", "repair", "make an unfinished capture a finished one")
    command.add_argument("capture", metavar="CAPTURE")
    _add_json(command)
    command = _command(commands, "demo", "demo", "capture two real models, check every module in C, find three planted faults")
    command.add_argument("--output", default="out/demo", metavar="DIR", help="where captures and reports go (default: out/demo)")
