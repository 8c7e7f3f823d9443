"""Meta-trains the experiment that a gin file names; the same command again resumes it.

python -m launchers.train --gin_file=configs/tesp_wheeled.gin --gin_param="ITERATIONS=50" --logdir=runs/wheeled --seed=1
"""

import os
import sys

from absl import app, flags

from launchers import training_flags
from launchers.command_line import parse

flags.adopt_module_key_flags(training_flags)
_LIST = flags.DEFINE_bool("list", False, "Show the configs and exit.")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.experiment import front_door, project

    if _LIST.value and len(argv) == 1:
        try:
            for name, headline in project.configs().items():
                sys.stdout.write(f"{name}  {headline}\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough; nothing is left for Python to flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return training_flags.run(argv, front_door.run)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
