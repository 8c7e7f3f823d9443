"""A toy experiment and what the tests of the experiment floor look at."""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from absl import logging

from metarl.experiment import front_door
from metarl.experiment.checkpoints import list_checkpoints, load_checkpoint
from metarl.experiment.errors import UserError

TESTS = Path(__file__).parent
HEAVY = {"tensorflow", "keras", "gin", "numpy", "mujoco", "matplotlib", "gymnasium"}

TOY = """# A toy, for tests.
import toy_learner

SEED = 1
ITERATIONS = 6
META_BATCH_SIZE = 4

Experiment.learner = @ToyLearner()
Experiment.iterations = %ITERATIONS
Experiment.checkpoint_every = 2
ToyLearner.task = @Hill()
ToyLearner.seed = %SEED
ToyLearner.meta_batch_size = %META_BATCH_SIZE
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A working directory with `toy.gin`; returns its path."""
    (tmp_path / "toy.gin").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    yield tmp_path
    logging.set_verbosity(verbosity)


def run(*params, logdir="run", seed=None):
    """Runs the toy experiment of the working directory in this process; returns the exit code."""
    return front_door.run(front_door.Command(["toy.gin"], params, seed, logdir))


def mistake(*params, logdir="run", seed=None):
    """Runs the toy experiment, which must be refused; returns the message, checked to be one line."""
    with pytest.raises(UserError) as caught:
        run(*params, logdir=logdir, seed=seed)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def contents(folder):
    """Everything under a folder: relative paths with the bytes of the files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in Path(folder).rglob("*")
    }


def rows(logdir="run"):
    """The rows of progress.csv as text, without the wall-clock columns."""
    with (Path(logdir) / "progress.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if not name.startswith("time/")} for row in csv.DictReader(file)
        ]


def final_state(logdir="run"):
    """The arrays of the newest checkpoint as bytes."""
    newest = list_checkpoints(logdir)
    checkpoint = load_checkpoint(newest[max(newest)])
    return {name: (array.shape, np.asarray(array).tobytes()) for name, array in checkpoint.arrays.items()}


def assert_same_run(logdir, other):
    """Both runs have the same metrics and the same state, bit for bit."""
    assert rows(logdir) == rows(other)
    assert final_state(logdir) == final_state(other)
    assert (Path(logdir) / "final.csv").read_bytes() == (Path(other) / "final.csv").read_bytes()


def program(module):
    """The command of a launcher."""
    return [sys.executable, "-m", module]


def program_environment():
    """A user's environment for a launcher: not quietened, with the project and the toy learner importable."""
    environment = dict(os.environ, PYTHONPATH=f"{TESTS}{os.pathsep}{TESTS.parent}")
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return environment


def start(module, *arguments):
    """Starts a launcher in the working directory; its log is `.stderr`."""
    return subprocess.Popen(
        [*program(module), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program_environment(),
    )


def launch(module, *arguments, timeout=120):
    """Runs a launcher to its end; returns exit code, stdout and stderr."""
    return subprocess.run(
        [*program(module), *arguments], capture_output=True, text=True, timeout=timeout, env=program_environment()
    )


def read_until(process, text):
    """Reads a process's log up to a line with `text`, and returns it; one that ends before fails the test."""
    log = []
    while not log or text not in log[-1]:
        log.append(process.stderr.readline())
        assert log[-1], f"the process ended with {process.wait()}:\n{''.join(log)}"
    return "".join(log)


def assert_help_is_quick(module, *flags):
    """`--help` names the flags, takes less than a second and imports nothing heavy."""
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        done = launch(module, "--help")
        best = min(best, time.perf_counter() - begin)
    assert done.returncode == 0
    for flag in flags:
        assert flag in done.stdout
    assert best < 1.0
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    imports = subprocess.run(command, capture_output=True, text=True, timeout=60, env=program_environment())
    imported = {line.split("|")[-1].strip().split(".")[0] for line in imports.stderr.splitlines()}
    assert "absl" in imported
    assert not imported & HEAVY
