"""Measures what an MB-MPO user waits for, beside what this machine can do in the same run.

python -m benchmarks.mbmpo [--only=imagination,fit] [--quick] [--output=speed.json]

Parts: machine, iteration, imagination, fit, meta_update, original, maml. Takes some ten minutes on two idle cores.
Every ratio has its yardstick measured in turn with the work; the machine should still be idle, because other work does
not slow both sides alike.
"""

from absl import app

from benchmarks import command
from launchers.command_line import parse

PARTS = ("machine", "iteration", "imagination", "fit", "meta_update", "original", "maml")


def main(argv: list[str]) -> int:
    """Delegates."""
    return command.run(argv, PARTS, "benchmarks.mbmpo_parts")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
