"""Meta-trains the experiment that a gin file names; the same command again resumes it.

python -m launchers.train --gin_file=configs/tesp_wheeled.gin --gin_param="ITERATIONS=50" --logdir=runs/wheeled --seed=1
"""

import os
import sys

from absl import app, flags

from launchers.command_line import parse

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Config to run; repeat to add overlays, the last binding wins.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "gin binding applied after the files; repeatable.")
_LOGDIR = flags.DEFINE_string("logdir", None, "Folder of the run; default runs/<config>/seed_<n>.")
_SEED = flags.DEFINE_integer("seed", None, "The macro SEED, applied last.", lower_bound=0)
_LIST = flags.DEFINE_bool("list", False, "Show the configs and exit.")
flags.DEFINE_alias("gin_bindings", "gin_param")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.experiment import front_door, project

    if len(argv) > 1:
        sys.stderr.write(f"error: unexpected argument {argv[1]!r}; every option begins with --\n")
        return front_door.USER_ERROR
    if _LIST.value:
        try:
            for name, headline in project.configs().items():
                sys.stdout.write(f"{name}  {headline}\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough; nothing is left for Python to flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    given = [flag.serialize() for flag in (_GIN_FILE, _GIN_PARAM, _LOGDIR, _SEED) if flag.present]
    return front_door.exit_code(
        lambda: front_door.run(_GIN_FILE.value, _GIN_PARAM.value, _SEED.value, _LOGDIR.value, given)
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
