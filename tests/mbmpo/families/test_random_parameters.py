"""Tasks that are multipliers of physical parameters."""

import copy
from inspect import signature

import mujoco
import numpy as np
import pytest

from mbmpo import families
from mbmpo.families import RandomParameters
from metarl.experiment.errors import UserError
from metarl.sampling.noise import NoiseKey
from metarl.sampling.random_actions import uniform_actions
from metarl.sampling.sampler import Sampler

FIELDS = ("body_mass", "dof_damping", "body_inertia", "geom_friction")
NAMES = sorted(
    name for name in families.__all__ if "random_parameters" in signature(getattr(families, name)).parameters
)


def make(name, **options):
    return getattr(families, name)(random_parameters=RandomParameters(**options))


def rollout(family, tasks, numbers, actions, simulation=None):
    simulation = family.make_simulation(len(tasks)) if simulation is None else simulation
    simulation.assign_tasks(tasks)
    simulation.reset(None, numbers)
    for action in actions:
        simulation.step(action, tasks)
    return np.concatenate([simulation.qpos, simulation.qvel], axis=1)


def setting(name, count=3, steps=10, **options):
    family, rng = make(name, **options), np.random.default_rng(0)
    tasks = np.stack([family.draw_task(rng) for _ in range(count)])
    return family, tasks, family.draw_reset(rng, count), rng.uniform(-1, 1, (steps, count, family.action_dim))


@pytest.mark.parametrize("name", NAMES)
def test_every_copy_runs_on_its_own_overwritten_model(name):
    """As in the original: the arrays are multiplied and nothing else is changed."""
    family, tasks, numbers, actions = setting(name, log_scale_limit=1.0)
    state = rollout(family, tasks, numbers, actions)
    start, speed = family.reset_state(numbers)
    nominal = getattr(families, name)()
    assert nominal.task_dim == 0
    for i, task in enumerate(tasks):
        model, begin = copy.copy(nominal.model), 0
        for field in FIELDS:
            values = getattr(model, field)
            values *= task[begin : begin + values.size].reshape(values.shape)
            begin += values.size
        assert begin == family.task_dim == task.size
        # Masses of a body by itself are looked up, not computed.
        simple = model.dof_simplenum > 0
        model.dof_M0[simple] *= task[model.dof_bodyid[simple]]
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = start[i], speed[i]
        low, high = model.actuator_ctrlrange.T
        for action in actions[:, i]:
            data.ctrl[:] = low + (action + 1) / 2 * (high - low)
            mujoco.mj_step(model, data, family.frame_skip)
        expected = np.concatenate([data.qpos, data.qvel])
        np.testing.assert_allclose(state[i], expected, rtol=1e-7, atol=1e-9)
    assert np.abs(state - rollout(nominal, tasks[:, :0], numbers, actions)).max() > 1e-3


def test_all_families_with_the_option_are_tried():
    assert {"HalfCheetah", "Humanoid", "InvertedPendulum", "Reacher", "Snake"} < set(NAMES)


def test_multipliers():
    """Section 7.1: 1.5^u, for damping 1.3^u, u uniform, one for every number."""
    family = make("Hopper")
    model, rng = family.model, np.random.default_rng(0)
    sizes = [getattr(model, field).size for field in FIELDS]
    assert family.task_dim == sum(sizes)
    tasks = np.stack([family.draw_task(rng) for _ in range(500)])
    for part, base in zip(np.split(tasks, np.cumsum(sizes)[:-1], axis=1), (1.5, 1.3, 1.5, 1.5), strict=True):
        u = np.log(part) / np.log(base)
        assert np.abs(u).max() <= 2
        assert u.std(axis=0).min() > 1.0
        assert np.abs(u.std() - 4 / np.sqrt(12)) < 0.03
    assert np.abs(np.corrcoef(tasks.T) - np.eye(len(tasks[0]))).max() < 0.25


def test_a_selection_of_parameters():
    family = make("Swimmer", rand_params=("body_inertia", "body_mass"))
    assert family.task_dim == 4 * family.model.nbody
    simulation = family.make_simulation(1)
    task = np.ones((1, family.task_dim))
    task[0, 1] = 3.0
    simulation.assign_tasks(task)
    batch = simulation._batch
    np.testing.assert_array_equal(
        batch.expanded("body_mass")[0], family.model.body_mass * task[0, : family.model.nbody]
    )
    assert batch.expanded("geom_friction") is None


def test_without_spread_there_is_one_task():
    family = make("HalfCheetah", log_scale_limit=0.0)
    assert family.task_dim == 0
    assert family.draw_task(np.random.default_rng(0)).shape == (0,)


def test_fixed_parameters():
    """O-19: every task is one draw."""
    family, other = make("Hopper", fix_params=True, seed=4), make("Hopper", fix_params=True, seed=5)
    draws = [family.draw_task(np.random.default_rng(i)) for i in range(3)]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])
    assert np.abs(np.log(draws[0])).max() > 0.1
    assert np.any(other.draw_task(np.random.default_rng(0)) != draws[0])


def test_multipliers_do_not_compound():
    """O-19: they are applied to the nominal numbers, whatever was assigned before."""
    family, tasks, numbers, actions = setting("Walker2D")
    simulation = family.make_simulation(3)
    first = rollout(family, tasks, numbers, actions, simulation)
    second = rollout(family, tasks[::-1].copy(), numbers, actions, simulation)
    np.testing.assert_array_equal(first, rollout(family, tasks, numbers, actions, simulation))
    assert np.abs(first - second).max() > 1e-3
    simulation.use_threads(2)
    np.testing.assert_array_equal(first, rollout(family, tasks, numbers, actions, simulation))
    rollout(family, tasks, numbers, actions[:4], simulation)
    simulation.use_threads(3)
    for action in actions[4:]:
        simulation.step(action, tasks)
    np.testing.assert_array_equal(first, np.concatenate([simulation.qpos, simulation.qvel], axis=1))


def test_centre_of_mass_follows_the_masses():
    """A derived constant that only repeats masses is kept true; otherwise centres of mass would be scaled."""
    family, tasks, numbers, _ = setting("Snake")
    simulation = family.make_simulation(3)
    simulation.assign_tasks(tasks)
    simulation.reset(None, numbers)
    com, position = simulation._batch.bind("subtree_com"), simulation._batch.bind("xipos")
    simulation._batch.forward()
    mass = family.model.body_mass * tasks[:, : family.model.nbody]
    expected = (mass[..., None] * position).sum(axis=1) / mass.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(com[:, 0], expected, rtol=1e-10)


def test_the_sampler_gives_each_task_its_model():
    family, tasks, *_ = setting("HalfCheetah", count=2)
    key = NoiseKey(0, 0, "test", (0, 1))
    sampler = Sampler(family, uniform_actions, 2, 3, 15, 2, stop_rule="global")
    batch = sampler.collect({}, tasks, key)
    alone = Sampler(family, uniform_actions, 1, 3, 15, 1).collect({}, tasks[1:], key._replace(task_indices=(1,)))
    np.testing.assert_array_equal(batch.steps.observation[1:], alone.steps.observation)
    swapped = sampler.collect({}, tasks[::-1].copy(), key)
    assert np.abs(batch.steps.observation - swapped.steps.observation).max() > 1e-3
    again = sampler.collect({}, tasks, key)
    np.testing.assert_array_equal(batch.steps.observation, again.steps.observation)


def test_bad_options_are_one_line():
    with pytest.raises(UserError, match=r"RandomParameters.log_scale_limit must be at least 0"):
        RandomParameters(log_scale_limit=-1.0)
    with pytest.raises(UserError, match=r"body_mas.*did you mean 'body_mass'"):
        RandomParameters(rand_params=("body_mas",))
    with pytest.raises(UserError, match=r"Ant.random_parameters must be a RandomParameters, got 2.0"):
        families.Ant(random_parameters=2.0)
