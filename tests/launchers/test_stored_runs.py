"""The promise that a stored run loads from now on: small runs of both ports, trained by the first released format.

The folders under tests/data/checkpoints are never written again. A change that breaks these tests breaks every run that
users have: it needs a new `FORMAT_VERSION` and code that still reads the old one, or keeps the old gin name alive.
"""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from experiment_tools import contents

from metarl.experiment import checkpoints, evaluation, front_door, saved_run
from metarl.experiment.checkpoints import FORMAT_VERSION, list_checkpoints
from metarl.experiment.errors import UserError
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
    assert (
        front_door.run(
            front_door.Command([str(folder / "operative_config.gin")], ["ITERATIONS = 3"], logdir=str(folder))
        )
        == 0
    )
    assert max(list_checkpoints(folder)) == 3
    assert len((folder / "progress.csv").read_text().splitlines()) == 4


def forged(source, target, **changes):
    """Writes `source` with other entries in its manifest, under the hash that belongs to them."""
    arrays = checkpoints.load_checkpoint(source).arrays
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"]) | changes
    manifest["sha256"] = checkpoints._digest(manifest, arrays)
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("iteration", ["../../../escaped", "2", -2, 2.0, True, None, [2]])
@pytest.mark.parametrize("name", ["forged.npz", "checkpoint_00000002.npz"])
def test_a_forged_iteration_names_no_file(tmp_path, monkeypatch, iteration, name):
    """The iteration becomes part of file names; with a valid hash it is still not believed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(STORED / "tesp", "run")
    path = tmp_path / "run/checkpoints" / name
    forged(STORED / "tesp/checkpoints/checkpoint_00000002.npz", path, iteration=iteration)
    before = contents(".")
    with pytest.raises(UserError, match="is damaged") as caught:
        evaluation.run("run", str(path), EvaluationRequest())
    assert "\n" not in str(caught.value)
    assert contents(".") == before


@pytest.mark.parametrize("version", ["1", 0, -1, 1.5, None, True])
def test_a_format_version_that_was_never_written_is_damage(tmp_path, version):
    forged(STORED / "tesp/checkpoints/checkpoint_00000002.npz", tmp_path / "x.npz", format_version=version)
    with pytest.raises(checkpoints.DamagedCheckpointError):
        checkpoints.load_checkpoint(tmp_path / "x.npz")


def test_a_newer_format_says_so(tmp_path):
    forged(STORED / "tesp/checkpoints/checkpoint_00000002.npz", tmp_path / "x.npz", format_version=FORMAT_VERSION + 1)
    with pytest.raises(UserError, match="use the newer version that wrote it"):
        checkpoints.load_checkpoint(tmp_path / "x.npz")


@pytest.mark.parametrize("folder", ["evaluations", "checkpoints"])
def test_links_of_a_run_that_lead_out_are_not_followed_when_writing(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(STORED / "tesp", "run")
    (tmp_path / "elsewhere").mkdir()
    if folder == "checkpoints":
        shutil.move("run/checkpoints", "elsewhere/real")
        (tmp_path / "run" / folder).symlink_to(tmp_path / "elsewhere" / "real")
        with pytest.raises(UserError, match="leads out of the run's folder"):
            front_door.run(front_door.Command(["run/operative_config.gin"], ["ITERATIONS = 3"], logdir="run"))
        assert set(contents("elsewhere")) == {"real", "real/checkpoint_00000002.npz"}
        return
    (tmp_path / "run" / folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of the run's folder"):
        evaluation.run("run", "latest", EvaluationRequest())
    assert contents("elsewhere") == {}
