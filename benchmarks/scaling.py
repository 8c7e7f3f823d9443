"""Measures what spreading an experiment's tasks over worker processes gains and costs on this machine.

python -m benchmarks.scaling [--only=tesp] [--quick] [--output=scaling.csv]

Parts: messages, tesp, mbmpo. One process, one worker and two workers take turns; the best iteration of each counts.
The last rows of a part are of a model of 64 workers (`benchmarks.scaling_model`), beside how it does on two. The
machine should be idle: workers and learner wait for each other, and other work makes them wait longer.
"""

from absl import app

from benchmarks import command
from launchers.command_line import parse

PARTS = ("messages", "tesp", "mbmpo")


def main(argv: list[str]) -> int:
    """Delegates."""
    return command.run(argv, PARTS, "benchmarks.scaling_parts")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
