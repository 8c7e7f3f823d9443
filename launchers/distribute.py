"""Meta-trains like launchers.train, with the tasks split over the replicas of tf.distribute.

python -m launchers.distribute --strategy=mirrored --replicas=2 --gin_file=configs/tesp_wheeled.gin --seed=1
TF_CONFIG=... python -m launchers.distribute --strategy=multi_worker --gin_file=configs/tesp_wheeled.gin   (every host)
"""

import sys

from absl import app, flags

from launchers.command_line import parse

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Config to run; repeat to add overlays, the last binding wins.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "gin binding applied after the files; repeatable.")
_LOGDIR = flags.DEFINE_string("logdir", None, "Folder of the run; default runs/<config>/seed_<n>.")
_SEED = flags.DEFINE_integer("seed", None, "The macro SEED, applied last.", lower_bound=0)
_STRATEGY = flags.DEFINE_string(
    "strategy", "mirrored", "mirrored: over the devices of this machine; multi_worker: over hosts by TF_CONFIG."
)
_REPLICAS = flags.DEFINE_integer(
    "replicas", None, "mirrored: GPUs to use (default all), or virtual devices of the CPU where there is no GPU."
)
_PEER_TIMEOUT = flags.DEFINE_float(
    "peer_timeout", 600.0, "multi_worker: seconds after which another process counts as lost."
)
flags.DEFINE_alias("gin_bindings", "gin_param")


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.experiment import front_door
    from metarl.scaling import distributed

    if len(argv) > 1:
        sys.stderr.write(f"error: unexpected argument {argv[1]!r}; every option begins with --\n")
        return front_door.USER_ERROR
    all_flags = (_GIN_FILE, _GIN_PARAM, _LOGDIR, _SEED, _STRATEGY, _REPLICAS, _PEER_TIMEOUT)
    given = [flag.serialize() for flag in all_flags if flag.present]
    return front_door.exit_code(
        lambda: distributed.run(
            _GIN_FILE.value,
            _GIN_PARAM.value,
            _SEED.value,
            _LOGDIR.value,
            given,
            strategy=_STRATEGY.value,
            replicas=_REPLICAS.value,
            peer_timeout=_PEER_TIMEOUT.value,
        )
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
