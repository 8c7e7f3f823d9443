"""Meta-trains the experiment that a gin file names; the same command again resumes it.

python -m launchers.train --gin_file=configs/tesp_wheeled.gin --gin_param="ITERATIONS=50" --logdir=runs/wheeled --seed=1
"""

from absl import app, flags

from launchers import training_flags
from launchers.command_line import parse, show

flags.adopt_module_key_flags(training_flags)
_LIST = flags.DEFINE_bool("list", False, "Show the configs and exit.")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.experiment import front_door, project

    if _LIST.value and len(argv) == 1:
        show("".join(f"{name}  {headline}\n" for name, headline in project.configs().items()))
        return 0
    return training_flags.run(argv, front_door.run)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
