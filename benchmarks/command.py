"""The command line that both ports' benchmarks share."""

import importlib
import logging
import sys
from collections.abc import Sequence

from absl import flags

_QUICK = flags.DEFINE_bool("quick", False, "Tiny sizes, seconds: whether everything runs, not how fast.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write the table here: .csv or .json.")
_ONLY = flags.DEFINE_list("only", [], "Parts, separated by commas; default all. The heading names them.")


def run(argv: Sequence[str], names: Sequence[str], module: str) -> int:
    """Measures the parts that the flags name and prints their table; nothing heavy is imported before.

    Args:
        argv: what is left of the command line after the flags.
        names: of all parts, in order.
        module: where they are: `PARTS`, `QUICK`, `Scale` and `judge`.

    Returns:
        The exit code.
    """
    from metarl.experiment import front_door, runtime
    from metarl.experiment.errors import UserError, did_you_mean

    def measure() -> int:
        from benchmarks import report

        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; every option begins with --")
        for name in _ONLY.value:
            if name not in names:
                raise UserError(f"--only: there is no part {name!r}{did_you_mean(name, names)}")
        output = report.check_output(_OUTPUT.value) if _OUTPUT.value else None
        runtime.import_tensorflow()
        # Every size has compiled functions of its own, which TensorFlow takes for one function retraced.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        parts = importlib.import_module(module)
        scale = parts.QUICK if _QUICK.value else parts.Scale()
        rows: list[report.Row] = []
        try:
            for name in names:
                if not _ONLY.value or name in _ONLY.value:
                    sys.stderr.write(f"measuring: {name}\n")
                    rows += report.judge(parts.PARTS[name](scale), scale.judged)
        finally:  # minutes of measuring are not lost to a Ctrl-C
            if rows:
                sys.stdout.write(report.table(rows))
            if rows and output:
                report.write(rows, output)
        return 0

    return front_door.exit_code(measure)
