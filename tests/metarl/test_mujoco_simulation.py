"""The block of MuJoCo copies on a model that no family uses: a free body with a ball-jointed child, and a slider."""

import threading

import mujoco
import numpy as np
import pytest

from metarl.simulation.mujoco_simulation import MujocoSimulation
from metarl.simulation.task_family import StepOutcome

XML = """
<mujoco>
  <size memory="64K"/>
  <option timestep="0.01" integrator="{integrator}"><flag autoreset="{autoreset}"/></option>
  <worldbody>
    <body name="flyer" pos="0 0 1">
      <freejoint/>
      <geom size="0.1"/>
      <body name="child" pos="0 0 0.3"><joint type="ball"/><geom size="0.05" pos="0.1 0 0"/></body>
    </body>
    <body name="slider" pos="0 3 0"><joint name="x" type="slide" axis="1 0 0"/><geom size="0.1"/></body>
  </worldbody>
  <actuator><motor joint="x" gear="10"/></actuator>
</mujoco>
"""
NQ, NV = 12, 10


class Block(MujocoSimulation):
    """The least a subclass can be."""

    def observe(self):
        return np.hstack([self.qpos, self.qvel])

    def step(self, actions, tasks):
        self.advance(actions)
        return StepOutcome(-self.body_positions[:, 1, 0], np.zeros(self.num_copies, bool), {})


def make_block(num_copies=3, integrator="Euler", autoreset="disable", **options):
    model = mujoco.MjModel.from_xml_string(XML.format(integrator=integrator, autoreset=autoreset))
    return Block(model, num_copies, frame_skip=4, bodies=["flyer", "slider"], **options)


def push(block, steps=5):
    for t in range(steps):
        block.step(np.sin(t + np.arange(block.num_copies))[:, None], np.zeros((block.num_copies, 2)))
    return block


@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
@pytest.mark.parametrize("fresh", [False, True])
def test_equals_one_copy_stepped_by_hand(integrator, fresh):
    block = push(make_block(integrator=integrator, fresh_kinematics=fresh))
    for copy in range(3):
        data = mujoco.MjData(block.model)
        mujoco.mj_forward(block.model, data)
        for t in range(5):
            data.ctrl[:] = np.sin(t + copy)
            for _ in range(4):
                mujoco.mj_step(block.model, data)
        if fresh:
            mujoco.mj_forward(block.model, data)
        np.testing.assert_array_equal(block.qpos[copy], data.qpos)
        np.testing.assert_array_equal(block.qvel[copy], data.qvel)
        np.testing.assert_array_equal(block.body_positions[copy], data.xpos[[1, 3]])


def test_positions_lag_by_one_physics_step_unless_fresh():
    stale, fresh = push(make_block()), push(make_block(fresh_kinematics=True))
    np.testing.assert_array_equal(stale.qpos, fresh.qpos)
    np.testing.assert_array_equal(fresh.body_positions[:, 1, 0], fresh.qpos[:, -1])
    lag = fresh.body_positions[:, 1, 0] - stale.body_positions[:, 1, 0]
    np.testing.assert_allclose(lag, 0.01 * stale.qvel[:, -1], rtol=1e-9)


def test_initial_state():
    initial = np.arange(NQ, dtype=float)
    initial[3:7], initial[7:11] = [1, 0, 0, 0], [0, 1, 0, 0]
    block = push(make_block(initial_qpos=initial))
    block.reset(np.array([2]))
    np.testing.assert_array_equal(block.qpos[2], initial)
    np.testing.assert_array_equal(block.qvel[2], np.zeros(NV))
    np.testing.assert_array_equal(block.body_positions[2], [[0, 1, 2], [11, 3, 0]])
    assert not np.array_equal(block.qpos[1], initial)


def test_unselected_copies_rest():
    block = push(make_block())
    before = block.observe().copy()
    block.select(np.array([1]))
    push(block)
    assert (block.observe() == before).all(axis=1).tolist() == [True, False, True]
    block.select(None)
    push(block)
    assert (block.observe() == before).all(axis=1).tolist() == [False, False, False]


def test_perturbation_normalises_every_quaternion():
    block = push(make_block())
    noise = 0.1 * np.random.RandomState(0).randn(3, NQ + NV)
    wanted = block.observe() + noise
    for start in (3, 7):
        wanted[:, start : start + 4] /= np.linalg.norm(wanted[:, start : start + 4], axis=1, keepdims=True)
    block.perturb_state(noise)
    np.testing.assert_allclose(block.observe(), wanted, rtol=1e-14)
    np.testing.assert_allclose(block.body_positions[:, 1, 0], wanted[:, NQ - 1])


def test_diverged_copies_freeze_until_reset(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = make_block()
    noise = np.zeros((3, NQ + NV))
    noise[1, NQ] = 1e200
    block.perturb_state(noise)
    push(block)
    assert block.diverged.tolist() == [False, True, False]
    assert np.isnan(block.body_positions[1]).all()
    assert np.isfinite(block.body_positions[[0, 2]]).all()
    frozen = block.observe()[1].copy()
    push(block)
    np.testing.assert_array_equal(block.observe()[1], frozen)
    block.reset(np.array([1]))
    assert not block.diverged.any()
    block.reset()
    np.testing.assert_array_equal(push(block).observe(), push(make_block()).observe())
    # No warning, no log file.
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_large_finite_state_is_not_divergence():
    block = make_block()
    noise = np.zeros((3, NQ + NV))
    noise[:, NQ - 1] = 1e308
    with np.errstate(over="ignore"):
        block.perturb_state(noise)
    assert not block.diverged.any()


def test_threads_do_not_disturb_each_other():
    expected = push(make_block(20), 60).observe()
    blocks = [make_block(20) for _ in range(4)]
    threads = [threading.Thread(target=push, args=(block, 60)) for block in blocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for block in blocks:
        np.testing.assert_array_equal(block.observe(), expected)


@pytest.mark.parametrize("fields", [(), ("cvel", "subtree_com")])
def test_threads_of_one_block_change_nothing(fields):
    block, expected = (push(make_block(20, fields=fields), 20) for _ in range(2))
    for num_threads in (3, 1, 2):
        block.use_threads(num_threads)
        np.testing.assert_array_equal(block.observe(), expected.observe())
        for name in fields:
            np.testing.assert_array_equal(block.fields[name], expected.fields[name])
        for one in (block, expected):
            one.select(np.arange(4 * num_threads))
            push(one, 20)
        np.testing.assert_array_equal(block.observe(), expected.observe())
        np.testing.assert_array_equal(block.body_positions, expected.body_positions)


def test_reset_leaves_nothing_of_the_old_state():
    block = push(make_block(), 30)
    block.reset(np.array([0, 2]))
    push(block, 10)
    np.testing.assert_array_equal(block.observe()[[0, 2]], push(make_block(), 10).observe()[[0, 2]])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="autoreset"):
        make_block(autoreset="enable")
    with pytest.raises(ValueError, match="initial_qpos"):
        make_block(initial_qpos=[0.0])
    with pytest.raises(ValueError, match="no body 'wing'"):
        Block(make_block().model, 1, frame_skip=1, bodies=["wing"])


def test_derived_fields_belong_to_the_live_state():
    """After resets, placements, steps and perturbations; without `fields` they would be those of the last substep."""
    block = make_block(fields=("xpos", "cvel"))
    model = block.model
    rng = np.random.default_rng(0)

    def check():
        data = mujoco.MjData(model)
        for copy in range(3):
            data.qpos[:], data.qvel[:] = block.qpos[copy], block.qvel[copy]
            mujoco.mj_forward(model, data)
            np.testing.assert_allclose(block.fields["xpos"][copy], data.xpos, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(block.fields["cvel"][copy], data.cvel, rtol=1e-12, atol=1e-12)

    check()
    push(block)
    check()
    block.reset(np.array([1]))
    check()
    qpos = block.qpos + rng.normal(size=(3, NQ))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    qpos[:, 7:11] /= np.linalg.norm(qpos[:, 7:11], axis=1, keepdims=True)
    block.place(np.array([2, 0]), qpos[[2, 0]], rng.normal(size=(2, NV)))
    np.testing.assert_array_equal(block.qpos[[2, 0]], qpos[[2, 0]])
    np.testing.assert_allclose(block.body_positions[2, 0], qpos[2, :3])
    check()
    block.perturb_state(rng.normal(size=(3, NQ + NV)) * 0.1)
    check()


def test_without_bodies_nothing_is_gathered():
    class Bodiless(Block):
        def step(self, actions, tasks):
            self.advance(actions)

    reference = push(make_block(2))
    block = push(Bodiless(reference.model, 2, frame_skip=4))
    assert block.body_positions.shape == (2, 0, 3)
    np.testing.assert_array_equal(block.qpos, reference.qpos)
