"""Meta-trains like launchers.train, with the tasks spread over worker processes of this machine.

python -m launchers.multiprocess --num_workers=2 --gin_file=configs/tesp_wheeled.gin --logdir=runs/wheeled --seed=1

The same command again resumes the run, as does launchers.train or another number of workers.
"""

from absl import app, flags

from launchers import training_flags
from launchers.command_line import parse

flags.adopt_module_key_flags(training_flags)
_NUM_WORKERS = flags.DEFINE_integer("num_workers", None, "Worker processes; default as many as cores.", lower_bound=1)
_WORKER_TIMEOUT = flags.DEFINE_float(
    "worker_timeout", 1800.0, "Seconds without a sign of life after which a worker that works is replaced."
)


def main(argv: list[str]) -> int:
    """Delegates; nothing heavy is imported before the flags are parsed."""
    from metarl.scaling import processes

    return training_flags.run(argv, processes.run, (_NUM_WORKERS, _WORKER_TIMEOUT))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
