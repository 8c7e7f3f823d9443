"""From the command line's flags to an exit code: what every launcher that trains delegates to."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from metarl.experiment import project, runtime
from metarl.experiment.errors import UserError, WorkerError

if TYPE_CHECKING:
    from metarl.experiment.learner import Learner
    from metarl.scaling.pool import ShardPool

    Spread = Callable[[Learner, str], ShardPool]
    """Gives a learner shards elsewhere, from the gin text of its experiment; changes nothing on disk."""

USER_ERROR, WORKERS_LOST = 2, 4
_INTERRUPTED = 130


class Command(NamedTuple):
    """What the command line of a launcher that trains says about the run, wherever its shards are.

    Attributes:
        gin_files: config files, looked up in the working directory and then in the project.
        gin_params: gin bindings applied after the files.
        seed: the macro SEED, applied last.
        logdir: the run directory; by default `runs/<config>/seed_<SEED>`.
        flags: the flags as given, kept with the run.
    """

    gin_files: Sequence[str]
    gin_params: Sequence[str] = ()
    seed: int | None = None
    logdir: str | None = None
    flags: Iterable[str] = ()

    def require_files(self) -> None:
        """Passes if there are files and all of them exist; imports nothing heavy.

        Raises:
            UserError: one line that names what is missing.
        """
        if not self.gin_files:
            raise UserError("which experiment? Give --gin_file=configs/<name>.gin; launchers.train --list shows them")
        for name in self.gin_files:
            project.find_gin_file(name, "--gin_file")


def exit_code(work: Callable[[], int]) -> int:
    """Returns what `work` returns; a user's mistake becomes one line on stderr and exit code 2."""
    try:
        return work()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return USER_ERROR
    except WorkerError as error:
        sys.stderr.write(f"error: {error}; the same command goes on from the last checkpoint\n")
        return WORKERS_LOST
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return _INTERRUPTED


def run(command: Command, spread: "Spread | None" = None) -> int:
    """Builds the configured experiment and trains it in its run directory, resuming what is there.

    Args:
        command: what to train.
        spread: where the learner's shards are; None: in this process.

    Returns:
        The exit code of `loop.train`.

    Raises:
        UserError: a mistake in the configuration or the folder; nothing on disk was changed.
        WorkerError: workers were lost for good.
    """
    command.require_files()
    runtime.import_tensorflow()
    # What follows imports TensorFlow at some point, which is only silent from here on.
    import gin

    from metarl.experiment import gin_front_door, loop
    from metarl.experiment.run_directory import RunDirectory, default_path

    config = gin_front_door.parse(command.gin_files, command.gin_params, command.seed)
    directory = RunDirectory(command.logdir or default_path(config.files, config.macro("SEED")))
    experiment = gin_front_door.build(config)
    operative_config = gin.operative_config_str()
    pool = None if spread is None else spread(experiment.learner, operative_config)
    directory.check(operative_config, config.bindings, experiment.may_change, experiment.iterations)
    directory.acquire()
    try:
        # Another trainer may have come and gone between the first look and the lock.
        directory.check(operative_config, config.bindings, experiment.may_change, experiment.iterations)
        return loop.train(experiment, directory, operative_config, command.flags)
    finally:
        if pool is not None:
            pool.close()
        directory.release()
