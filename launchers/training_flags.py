"""The flags of every launcher that trains, and what they do alike."""

import sys
from collections.abc import Callable, Sequence

from absl import flags

GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Config to run; repeat to add overlays, the last binding wins.")
GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "gin binding applied after the files; repeatable.")
LOGDIR = flags.DEFINE_string("logdir", None, "Folder of the run; default runs/<config>/seed_<n>.")
SEED = flags.DEFINE_integer("seed", None, "The macro SEED, applied last.", lower_bound=0)
flags.DEFINE_alias("gin_bindings", "gin_param")


def run(argv: Sequence[str], train: Callable[..., int], more: Sequence[flags.FlagHolder] = ()) -> int:
    """Trains what the flags say; returns the exit code.

    Args:
        argv: what is left of the command line after the flags.
        train: is called with a `front_door.Command` and the flags of `more` that were given, by name.
        more: flags of this launcher alone.
    """
    from metarl.experiment import front_door

    if len(argv) > 1:
        sys.stderr.write(f"error: unexpected argument {argv[1]!r}; every option begins with --\n")
        return front_door.USER_ERROR
    given = [flag.serialize() for flag in (GIN_FILE, GIN_PARAM, LOGDIR, SEED, *more) if flag.present]
    options = {flag.name: flag.value for flag in more if flag.present}
    command = front_door.Command(GIN_FILE.value, GIN_PARAM.value, SEED.value, LOGDIR.value, given)
    return front_door.exit_code(lambda: train(command, **options))
