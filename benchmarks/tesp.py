"""Measures what a TESP user waits for, beside what this machine can do in the same run.

python -m benchmarks.tesp [--only=sampling,encoder] [--quick] [--output=speed.json]

Takes some minutes on two idle cores. Every ratio has its yardstick measured in turn with the work; the machine should
still be idle, because other work does not slow both sides alike.
"""

import logging
import sys

from absl import app, flags

from launchers.command_line import parse

PARTS = ("machine", "paper", "sampling", "inner", "encoder", "outer", "original")

_ONLY = flags.DEFINE_list("only", [], f"Parts, separated by commas: {', '.join(PARTS)}; default all.")
_QUICK = flags.DEFINE_bool("quick", False, "Tiny sizes, seconds: whether everything runs, not how fast.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write the table here: .csv or .json.")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.experiment import front_door, runtime
    from metarl.experiment.errors import UserError, did_you_mean

    def measure() -> int:
        from benchmarks import report

        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; every option begins with --")
        for name in _ONLY.value:
            if name not in PARTS:
                raise UserError(f"--only: there is no part {name!r}{did_you_mean(name, PARTS)}")
        output = report.check_output(_OUTPUT.value) if _OUTPUT.value else None
        runtime.import_tensorflow()
        # Every size has compiled functions of its own, which TensorFlow takes for one function retraced.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        from benchmarks import parts

        scale = parts.QUICK if _QUICK.value else parts.Scale()
        rows = []
        for name in PARTS:
            if not _ONLY.value or name in _ONLY.value:
                sys.stderr.write(f"measuring: {name}\n")
                rows += parts.judge(parts.PARTS[name](scale), scale)
        sys.stdout.write(report.table(rows))
        if output:
            report.write(rows, output)
        return 0

    return front_door.exit_code(measure)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
