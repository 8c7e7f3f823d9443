"""From sampled rounds to recorded episodes: which one to show, and its states, by simulating it again.

The sampler keeps observations and actions but no states. Physics repeats bit for bit, so one copy that starts from the
same reset and applies the recorded actions goes through the same states; the rewards prove it.

Shapes: `T` steps of an episode, `G` numbers of a task, `A` action, `nq` positions of a model.
"""

from typing import NamedTuple

import numpy as np

from metarl.experiment.errors import UserError
from metarl.sampling.noise import NoiseKey, ResetStream
from metarl.sampling.steps import Batch
from metarl.simulation.mujoco_simulation import MujocoSimulation
from metarl.simulation.task_family import Simulation, TaskFamily

_RESETS_AT_ONCE = 64
# Rewards are recorded in single precision.
_REWARD_TOLERANCE = 1e-4


class Round(NamedTuple):
    """One sampling round of one task.

    Attributes:
        label: what the policy was, such as "after 2 fast-updates".
        batch: the round, M = 1.
        key: of its random numbers.
    """

    label: str
    batch: Batch
    key: NoiseKey


class SampledTask(NamedTuple):
    """Rounds of one task, in the order of the fast-updates before them; `task` is [G]."""

    task: np.ndarray
    rounds: list[Round]


class Recording(NamedTuple):
    """An episode as a picture needs it.

    Attributes:
        label: of its round.
        episode_return: undiscounted.
        mean_return: of all episodes of the round.
        num_episodes: their number.
        states: [T + 1, nq] float64 positions of the model, or [T + 1, 2] of a point, from the reset on.
        rewards: [T] float64.
        path: [T, 2] float64, where the part that has to reach a goal was after each step, or None.
        end: how it ended: "arrived", "ended" by itself in another way, or "time is up".
    """

    label: str
    episode_return: float
    mean_return: float
    num_episodes: int
    states: np.ndarray
    rewards: np.ndarray
    path: np.ndarray | None
    end: str


def fast_update_label(fast_updates: int) -> str:
    """Returns how a round after so many fast-updates is called."""
    if not fast_updates:
        return "before fast-updates"
    return f"after {fast_updates} fast-update{'s' if fast_updates > 1 else ''}"


def drawable_simulation(family: TaskFamily, num_copies: int) -> Simulation:
    """Returns a simulation of `family` whose state can be drawn.

    Raises:
        UserError: its state is neither that of a MuJoCo model nor a point's.
    """
    simulation = family.make_simulation(num_copies)
    state = getattr(simulation.drawn, "state", None)
    if not isinstance(simulation.drawn, MujocoSimulation) and (state is None or np.shape(state) != (num_copies, 2)):
        raise UserError(
            f"{family.name} cannot be drawn: its simulation is no MujocoSimulation and has no `state` [n, 2], the "
            "positions of points"
        )
    return simulation


def record(family: TaskFamily, task: np.ndarray, sampled: Round) -> Recording:
    """Records the round's episode of median return (the lower one of two).

    Args:
        family: what was sampled.
        task: [G].
        sampled: the round; its episodes are those of one task, without transition noise.

    Raises:
        UserError: the family cannot be drawn, or did not repeat the episode.
    """
    episodes, steps = sampled.batch.episodes, sampled.batch.steps
    number = len(episodes.episode_return)
    chosen = int(np.argsort(episodes.episode_return, kind="stable")[(number - 1) // 2])
    rows = slice(int(episodes.start[chosen]), int(episodes.start[chosen] + episodes.length[chosen]))
    actions, recorded = np.asarray(steps.action)[0, rows], np.asarray(steps.reward)[0, rows]
    reset = _reset_numbers(family, task, sampled.key, np.asarray(steps.observation)[0, rows.start], number)

    simulation = drawable_simulation(family, 1)
    tasks = task[None]
    simulation.assign_tasks(tasks)
    simulation.reset(None, reset)
    states, rewards, path = [_state(simulation)], [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for action in actions.astype(np.float64):
            outcome = simulation.step(action[None], tasks)
            rewards.append(float(outcome.reward[0]))
            states.append(_state(simulation))
            path += list(outcome.info.get("position", ()))
    if not np.allclose(rewards, recorded, rtol=_REWARD_TOLERANCE, atol=_REWARD_TOLERANCE, equal_nan=True):
        raise UserError(f"{family.name} did not repeat an episode from the same start and actions: it draws no picture")
    end = "ended" if episodes.terminated[chosen] else "time is up"
    if "arrived" in episodes.final and episodes.final["arrived"][chosen]:
        end = "arrived"
    return Recording(
        sampled.label,
        float(episodes.episode_return[chosen]),
        float(np.mean(episodes.episode_return)),
        number,
        _finite(np.stack(states)),
        np.array(rewards),
        np.stack(path) if path else None,
        end,
    )


def _finite(states: np.ndarray) -> np.ndarray:
    """Lets what diverged stand where it was last: there is no picture of a state that is not finite."""
    good = np.isfinite(states).all(axis=1)
    return states[np.maximum.accumulate(np.where(good, np.arange(len(states)), 0))]


def _state(simulation: Simulation) -> np.ndarray:
    drawn = simulation.drawn
    return np.array(drawn.qpos[0] if isinstance(drawn, MujocoSimulation) else drawn.state[0])  # type: ignore[attr-defined]


def _reset_numbers(
    family: TaskFamily, task: np.ndarray, key: NoiseKey, observation: np.ndarray, num_episodes: int
) -> np.ndarray | None:
    """The random numbers [1, reset_dim] of the reset that gave `observation` [O] float32; None without randomness.

    They are among the round's first: a copy is reset once before each of its episodes, the unfinished ones included.
    """
    if not family.reset_dim:
        return None
    stream = ResetStream(key._replace(phase=key.phase + "/reset"), family)
    simulation = family.make_simulation(_RESETS_AT_ONCE)
    simulation.assign_tasks(np.repeat(task[None], _RESETS_AT_ONCE, axis=0))
    # About as many episodes are unfinished at the end as there are copies, and every copy has finished one.
    for _ in range(1 + -(-2 * num_episodes // _RESETS_AT_ONCE)):
        numbers = stream.draw(np.zeros(_RESETS_AT_ONCE, np.intp))
        assert numbers is not None
        simulation.reset(None, numbers)
        found = np.flatnonzero((simulation.observe().astype(np.float32) == observation).all(axis=1))
        if found.size:
            return numbers[found[:1]]
    raise UserError(f"{family.name} did not repeat a reset from the same random numbers: it draws no picture")
