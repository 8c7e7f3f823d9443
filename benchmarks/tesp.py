"""Measures what a TESP user waits for, beside what this machine can do in the same run.

python -m benchmarks.tesp [--only=sampling,encoder] [--quick] [--output=speed.json]

Parts: machine, paper, sampling, inner, encoder, outer, original. Takes some minutes on two idle cores. Every ratio has
its yardstick measured in turn with the work; the machine should still be idle, because other work does not slow both
sides alike.
"""

from absl import app

from benchmarks import command
from launchers.command_line import parse

PARTS = ("machine", "paper", "sampling", "inner", "encoder", "outer", "original")


def main(argv: list[str]) -> int:
    """Delegates."""
    return command.run(argv, PARTS, "benchmarks.parts")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
