"""Meta-trains like launchers.train, with the tasks split over the replicas of tf.distribute.

python -m launchers.distribute --strategy=mirrored --replicas=2 --gin_file=configs/tesp_wheeled.gin --seed=1
TF_CONFIG=... python -m launchers.distribute --strategy=multi_worker --gin_file=configs/tesp_wheeled.gin   (every host)
"""

from absl import app, flags

from launchers import training_flags
from launchers.command_line import parse

flags.adopt_module_key_flags(training_flags)
_STRATEGY = flags.DEFINE_string(
    "strategy", "mirrored", "mirrored: over the devices of this machine; multi_worker: over hosts by TF_CONFIG."
)
_REPLICAS = flags.DEFINE_integer(
    "replicas",
    None,
    "mirrored: GPUs to use (default all), or virtual devices of the CPU where there is no GPU.",
    lower_bound=1,
)
_PEER_TIMEOUT = flags.DEFINE_float(
    "peer_timeout", 600.0, "multi_worker: seconds after which another process counts as lost."
)


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.scaling import distributed

    return training_flags.run(argv, distributed.run, (_STRATEGY, _REPLICAS, _PEER_TIMEOUT))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
