"""The examples as the README has a user run them: in their own folder, at a tiny size."""

import shutil
from pathlib import Path

import experiment_tools as tools
import numpy as np
import pytest

from metarl.experiment import front_door, gin_front_door
from metarl.experiment.checkpoints import list_checkpoints, load_checkpoint
from metarl.experiment.errors import UserError

EXAMPLES = Path(__file__).parents[2] / "examples"
MOST_LINES = 45  # that are not blank
TINY = {
    "own_environment_mbmpo": (
        "ITERATIONS = 2", "META_BATCH_SIZE = 5", "HORIZON = 8", "INITIAL_RANDOM_STEPS = 40", "META_STEPS = 1",
        "IMAGINED_ROLLOUTS_PER_TASK = 2", "MODEL_MAX_EPOCHS = 2", "MODEL_HIDDEN_SIZES = [8]",
    ),
    "own_environment_maml": ("ITERATIONS = 2", "META_BATCH_SIZE = 2", "ROLLOUTS_PER_TASK = 2", "HORIZON = 8"),
    "own_environment_tesp": (
        "ITERATIONS = 2", "META_BATCH_SIZE = 2", "ROLLOUTS_PER_TASK = 2", "HORIZON = 8", "GRU_UNITS = 4",
        "INNER_UPDATES = 1", "TespLearner.num_goals = 2", "Validation.num_goals = 1", "FinalTable.num_goals = 1",
    ),
    "own_method": (
        "ITERATIONS = 2", "META_BATCH_SIZE = 2", "ROLLOUTS_PER_TASK = 2", "HORIZON = 8", "HIDDEN_SIZES = [4, 4]",
        "INNER_UPDATES = 1", "TespLearner.num_goals = 2", "Validation.num_goals = 1", "FinalTable.num_goals = 1",
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with the examples, which the interpreter looks for modules in, as `python -m` has it."""
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_every_example_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.gin")} == set(TINY)
    for path in EXAMPLES.glob("*.py"):
        code = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(code) <= MOST_LINES, path


@pytest.mark.parametrize("name", sorted(TINY.keys() - {"own_method"}))  # which the next test runs
def test_an_example_trains(folder, name):
    assert front_door.run(front_door.Command([f"{name}.gin"], TINY[name], logdir="run")) == 0
    assert max(list_checkpoints("run")) == 2
    assert len(tools.rows("run")) == 2


def test_a_users_module_is_found_from_the_working_directory(folder):
    """The command of the README, in a process of its own, and the tools that read the run afterwards."""
    params = [f"--gin_param={param}" for param in TINY["own_method"]]
    done = tools.launch("launchers.train", "--gin_file=own_method.gin", *params, "--logdir=run")
    assert done.returncode == 0, done.stderr
    assert "LastLayerMAML" in (folder / "run/operative_config.gin").read_text()
    paths = list_checkpoints("run")
    first, last = (load_checkpoint(paths[i]).arrays for i in (min(paths), max(paths)))
    for name in ("parameters/inner/mlp2.kernel", "parameters/shared/mlp0.kernel"):  # both are meta-learned
        assert not np.array_equal(first[name], last[name])
    done = tools.launch("launchers.evaluate", "--run=run", "--goal=0.5,-0.3", "--fast_updates=1")
    assert done.returncode == 0, done.stderr


def test_a_misspelt_module_is_one_line_with_the_nearest_name(folder):
    text = (folder / "own_method.gin").read_text().replace("import own_method", "import own_metod")
    (folder / "own_method.gin").write_text(text)
    with pytest.raises(UserError, match=r"no module 'own_metod'; did you mean 'own_method'\?"):
        front_door.run(front_door.Command(["own_method.gin"], TINY["own_method"], logdir="run"))
    assert not (folder / "run").exists()


def test_fast_updates_of_the_own_method_move_the_last_layer_alone(folder):
    learner = gin_front_door.build(gin_front_door.parse(["own_method.gin"], TINY["own_method"])).learner
    assert set(learner.parameters.inner) == {"mlp2.kernel", "mlp2.bias"}
    assert set(learner.parameters.shared) == {"mlp0.kernel", "mlp0.bias", "mlp1.kernel", "mlp1.bias"}
    accumulated = {name: np.ones((1, *value.shape), np.float32) for name, value in learner.parameters.inner.items()}
    adapted = learner.method.adapted_params(learner.parameters, accumulated)
    for name, value in learner.parameters.inner.items():
        np.testing.assert_allclose(adapted[name][0], value - 0.02, rtol=1e-6)


def test_the_own_environments_batch_reward_is_that_of_its_steps(folder):
    import own_environment

    family = own_environment.Boat()
    rng = np.random.default_rng(3)
    boats = family.make_simulation(50)
    boats.reset(None, family.draw_reset(rng, 50))
    tasks = np.stack([family.draw_task(rng) for _ in range(50)])
    assert (np.abs(tasks) <= 0.05).all()
    before, actions = boats.observe(), rng.normal(size=(50, 2))
    outcome = boats.step(actions, tasks)
    np.testing.assert_allclose(family.reward(before, actions, boats.observe()), outcome.reward)
    np.testing.assert_array_equal(family.termination(boats.observe()), outcome.terminated)
    np.testing.assert_allclose(boats.observe(), before + 0.1 * np.clip(actions, -1, 1) + tasks)
