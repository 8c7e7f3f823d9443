"""The promise that a stored run loads from now on: small runs of both ports, trained by the first released format.

The folders under tests/data/checkpoints are never written again. A change that breaks these tests breaks every run that
users have: it needs a new `FORMAT_VERSION` and code that still reads the old one, or keeps the old gin name alive.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from metarl.experiment import front_door, saved_run
from metarl.experiment.checkpoints import FORMAT_VERSION, list_checkpoints
from metarl.experiment.learner import EvaluationRequest

STORED = Path(__file__).parents[1] / "data" / "checkpoints"
MOST_BYTES = 100_000
# Returns before and after one fast-update, as the code that stored the runs evaluated them.
RETURNS = {"mbmpo": (-14.329946, -8.908493), "tesp": (-6.056643, -6.338335)}
TASKS = {"tesp": ((0.5, -0.3),), "mbmpo": ()}


@pytest.fixture(params=sorted(RETURNS))
def stored(request, tmp_path):
    """The name of a stored run, and a copy of it."""
    shutil.copytree(STORED / request.param, tmp_path / "run")
    return request.param, tmp_path / "run"


def test_the_stored_runs_are_small_and_of_the_first_format():
    assert sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < MOST_BYTES
    assert {path.name for path in STORED.iterdir()} == set(RETURNS)
    assert FORMAT_VERSION >= 1


def test_a_stored_run_is_restored_and_evaluates_as_it_did(stored):
    name, folder = stored
    saved = saved_run.find(str(folder))
    learner = saved_run.build_learner(saved)
    assert learner.iteration == saved.checkpoint.iteration == 2
    state = learner.state()
    assert state.keys() == saved.checkpoint.arrays.keys()
    for key, array in saved.checkpoint.arrays.items():
        np.testing.assert_array_equal(state[key], array, err_msg=key)
    request = EvaluationRequest(tasks=TASKS[name], num_tasks=None if TASKS[name] else 3, seed=7)
    result = learner.evaluate(request, lambda phase: None)
    np.testing.assert_allclose([row["return"] for row in result.pooled], RETURNS[name], rtol=1e-3)


def test_a_stored_run_goes_on(stored):
    _, folder = stored
    assert front_door.run([str(folder / "operative_config.gin")], ["ITERATIONS = 3"], logdir=str(folder)) == 0
    assert max(list_checkpoints(folder)) == 3
    assert len((folder / "progress.csv").read_text().splitlines()) == 4
