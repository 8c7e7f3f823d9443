"""The Gymnasium face of the five families."""

import json
import pathlib
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import tesp
from metarl.experiment.errors import UserError
from tesp import families
from tesp.environments import FAMILY_OF_ID

REFERENCE = json.loads((pathlib.Path(__file__).parents[1] / "data" / "tesp_env_trajectories.json").read_text())
IDS = ["TESP/Wheeled-v0", "TESP/Ant-v0", "TESP/Reacher2Link-v0", "TESP/Reacher4Link-v0", "TESP/Point-v0"]


def test_ids():
    assert list(FAMILY_OF_ID) == IDS
    assert set(IDS) <= set(gymnasium.registry)
    # Importing twice, as a reload does, neither fails nor warns.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tesp.environments.register()


@pytest.mark.parametrize("env_id", IDS)
def test_check_env(env_id):
    environment = gymnasium.make(env_id, ctrl_cost_coeff=1e-3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(environment.unwrapped, skip_render_check=True)
    # The observation is unbounded by specification, which is the one thing Gymnasium remarks on.
    assert [str(w.message) for w in caught if "observation space m" not in str(w.message)] == []


@pytest.mark.parametrize("env_id", IDS)
def test_goal_is_hidden_but_told(env_id):
    environment = gymnasium.make(env_id).unwrapped
    observations = []
    for goal in ([0.6, 0.5], [-0.6, 0.5]):
        observation, info = environment.reset(options={"goal": goal})
        np.testing.assert_array_equal(info["goal"], goal)
        action = np.full(environment.action_space.shape, 0.5, np.float32)
        after, reward, terminated, truncated, info = environment.step(action)
        observations.append(np.concatenate([observation, after]))
        np.testing.assert_array_equal(info["goal"], goal)
        assert info["position"].shape == (2,)
        assert info["dist_reward"] == pytest.approx(-np.linalg.norm(info["position"] - goal))
        coefficient = environment.family.ctrl_cost_coeff
        assert reward == pytest.approx(info["dist_reward"] - coefficient * info["ctrl_cost"])
        assert isinstance(reward, float)
        assert isinstance(terminated, bool)
        assert truncated is False
    np.testing.assert_array_equal(*observations)
    assert environment.observation_space.contains(after)


def test_reference_trajectory_through_gymnasium():
    reference = REFERENCE["trajectories"]["ant"]
    environment = gymnasium.make("TESP/Ant-v0", ctrl_cost_coeff=1e-3)
    observation, _ = environment.reset(options={"goal": [0.6, 0.5]})
    np.testing.assert_array_equal(observation, reference["reset_obs"])
    for t in range(50):
        observation, reward, *_ = environment.step(0.5 * np.sin(0.1 * t + np.arange(8)))
    np.testing.assert_allclose(observation, reference["steps"]["50"]["obs"], rtol=1e-5)
    assert reward == pytest.approx(reference["steps"]["50"]["reward"], rel=1e-5)


@pytest.mark.parametrize("env_id", IDS)
def test_time_limit_is_200(env_id):
    environment = gymnasium.make(env_id)
    environment.reset(seed=0, options={"goal": [1.4, 1.4]})
    action = np.zeros(environment.action_space.shape, np.float32)
    for t in range(200):
        _, _, terminated, truncated, _ = environment.step(action)
        assert truncated == (t == 199)
        assert not terminated


def test_stepping_goes_on_after_termination():
    environment = gymnasium.make("TESP/Point-v0").unwrapped
    environment.reset(options={"goal": [0.05, 0.0]})
    ends = [environment.step(np.array([1.0, 0.0]))[2] for _ in range(3)]
    assert ends == [True, False, False]


@pytest.mark.parametrize("env_id", IDS)
def test_reset_draws_a_new_goal_from_the_seed(env_id):
    environment = gymnasium.make(env_id).unwrapped
    _, first = environment.reset(seed=5)
    _, second = environment.reset()
    _, again = environment.reset(seed=5)
    np.testing.assert_array_equal(first["goal"], again["goal"])
    assert not np.array_equal(first["goal"], second["goal"])
    parameters = environment.family.goal_parameters
    for info in (first, second):
        assert parameters.inner_radius < np.linalg.norm(info["goal"]) < parameters.near_radius


@pytest.mark.parametrize(
    "goal", [[1.0], [1.0, 2.0, 3.0], "here", None, [np.nan, 0.0], [[0.0, 1.0]], {"x": 1.0}, [[1.0], [1.0, 2.0]]]
)
def test_bad_goals(goal):
    environment = gymnasium.make("TESP/Point-v0").unwrapped
    with pytest.raises(ValueError, match="'goal' must be 2 finite numbers") as caught:
        environment.reset(options={"goal": goal})
    assert "\n" not in str(caught.value)


def test_other_mistakes():
    environment = gymnasium.make("TESP/Point-v0").unwrapped
    with pytest.raises(ValueError, match="reset the environment"):
        environment.step(np.zeros(2))
    with pytest.raises(ValueError, match="unknown reset option 'gaol'; the only option is 'goal'"):
        environment.reset(options={"gaol": [0.0, 1.0]})
    environment.reset()
    with pytest.raises(ValueError, match="action must have shape"):
        environment.step(np.zeros(3))
    with pytest.raises(UserError, match="Wheeled has no option 'ctrl_cost_coef'; did you mean 'ctrl_cost_coeff'"):
        gymnasium.make("TESP/Wheeled-v0", ctrl_cost_coef=1e-3)
    with pytest.raises(UserError, match="ctrl_cost_coeff must be at least 0"):
        gymnasium.make("TESP/Wheeled-v0", ctrl_cost_coeff=-1)


def test_options_reach_the_family():
    environment = gymnasium.make("TESP/Ant-v0", ctrl_cost_coeff=0.5, unhealthy_penalty=2.0, fresh_kinematics=True)
    family = environment.unwrapped.family
    assert isinstance(family, families.Ant)
    assert (family.ctrl_cost_coeff, family.unhealthy_penalty, family.fresh_kinematics) == (0.5, 2.0, True)


def test_import_is_light():
    code = "import sys, tesp; print([m for m in ('tensorflow', 'keras', 'mujoco') if m in sys.modules])"
    root = pathlib.Path(tesp.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "[]"


def test_making_an_environment_does_not_import_tensorflow():
    code = (
        "import sys, gymnasium, tesp; gymnasium.make('TESP/Wheeled-v0').reset(); "
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    root = pathlib.Path(tesp.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "[]"
