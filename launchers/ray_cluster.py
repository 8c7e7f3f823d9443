"""Meta-trains like launchers.train, with the tasks spread over actors of a Ray cluster (extra [ray]).

python -m launchers.ray_cluster --address=auto --num_workers=8 --gin_file=configs/tesp_wheeled.gin --seed=1

The project must be installed on every machine. The same command again resumes the run, as does launchers.train or
another number of workers.
"""

from absl import app, flags

from launchers import training_flags
from launchers.command_line import parse

flags.adopt_module_key_flags(training_flags)
_ADDRESS = flags.DEFINE_string(
    "address", "local", "auto: the running cluster that Ray finds; local: a new one on this machine; or host:port."
)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "Actors; default as many as the cores or the cluster's CPUs allow.", lower_bound=1
)
_CPUS_PER_WORKER = flags.DEFINE_integer(
    "cpus_per_worker", None, "CPUs and threads of each; default its share of the cores, on a cluster 1.", lower_bound=1
)
_WORKER_TIMEOUT = flags.DEFINE_float(
    "worker_timeout", 1800.0, "Seconds after which a worker that was asked something is replaced."
)


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.scaling import ray_training

    more = (_ADDRESS, _NUM_WORKERS, _CPUS_PER_WORKER, _WORKER_TIMEOUT)
    return training_flags.run(argv, ray_training.run, more)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
