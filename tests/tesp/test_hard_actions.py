"""The MuJoCo families through their Gymnasium face against a plain loop over one `MjData`, under rough treatment.

Beyond the reference trajectories: random, saturated and infinite actions, joint limits, steps after termination, and
several episodes in one environment. The loop below has MuJoCo's own memory and is written from section 5.
"""

import importlib.resources
import re

import gymnasium
import mujoco
import numpy as np
import pytest

import tesp  # noqa: F401  (registers the ids)

ANT_QPOS = (0, 0, 0.25, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1)
CASES = {
    "TESP/Wheeled-v0": ("wheeled.xml", "car", 50.0, 0.02, None),
    "TESP/Ant-v0": ("ant.xml", "torso", 50.0, 0.03, ANT_QPOS),
    "TESP/Reacher2Link-v0": ("reacher_2link.xml", "fingertip", 100.0, 0.06, None),
    "TESP/Reacher4Link-v0": ("reacher_4link.xml", "fingertip", 50.0, 0.11, None),
}
ACTIONS = {
    "random": lambda rng, t, n: 3.0 * rng.standard_normal(n),
    "saturated": lambda rng, t, n: np.where((t // 37) % 2, 1.0, -1.0) * np.ones(n),
    "resting": lambda rng, t, n: np.zeros(n),
    "infinite": lambda rng, t, n: rng.choice([-np.inf, np.inf], n),
}


def observed(env_id, data, position):
    if "Wheeled" in env_id:
        yaw = data.qpos[3]
        return np.concatenate([data.qpos[:3], [np.sin(yaw), np.cos(yaw)], data.qvel[:4]])
    if "Ant" in env_id:
        return np.concatenate([data.qpos, data.qvel])
    return np.concatenate([np.cos(data.qpos), np.sin(data.qpos), data.qvel, position])


@pytest.mark.parametrize("env_id", CASES)
def test_equals_a_plain_loop(env_id):
    file, body, limit, threshold, start = CASES[env_id]
    xml = importlib.resources.files("tesp.families").joinpath("assets", file).read_text()
    model = mujoco.MjModel.from_xml_string(re.sub(r'<size memory="[^"]*"/>', "", xml))
    data = mujoco.MjData(model)
    environment = gymnasium.make(env_id, ctrl_cost_coeff=1e-3).unwrapped
    ends = 0
    for goal, (name, act) in zip(([0.6, 0.5], [-1.4, 0.3], "start", [0.0, 0.1]), ACTIONS.items(), strict=True):
        rng = np.random.default_rng(0)
        mujoco.mj_resetData(model, data)
        if start is not None:
            data.qpos[:] = start
        mujoco.mj_forward(model, data)
        position = data.body(body).xpos[:2]
        goal = np.add(position, [0.0, 0.5 * threshold]) if goal == "start" else goal
        observation, _ = environment.reset(options={"goal": goal})
        np.testing.assert_array_equal(observation, observed(env_id, data, position))
        for t in range(250):
            action = act(rng, t, model.nu)
            clipped = np.clip(action, -1.0, 1.0)
            data.ctrl[:] = limit * clipped
            for _ in range(5):
                mujoco.mj_step(model, data)
            distance, cost = np.linalg.norm(position - goal), 0.5 * np.sum(clipped**2)
            end = distance < threshold or ("Ant" in env_id and not 0.15 <= data.qpos[2] <= 0.45)
            observation, reward, terminated, truncated, info = environment.step(action)
            where = f"{name}, step {t}"
            np.testing.assert_array_equal(observation, observed(env_id, data, position), err_msg=where)
            np.testing.assert_array_equal(info["position"], position, err_msg=where)
            np.testing.assert_allclose(reward, -distance - 1e-3 * cost, rtol=1e-12, err_msg=where)
            np.testing.assert_allclose([info["dist_reward"], info["ctrl_cost"]], [-distance, cost], rtol=1e-12)
            assert terminated == end, where
            assert not truncated
            ends += end
    assert ends
