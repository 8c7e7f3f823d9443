"""Adapting to whole goal sets with frozen meta-parameters: validation and the final table (TESP specification, 6.1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import gin
import numpy as np

from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.sampling.noise import TransitionNoise
from metarl.sampling.steps import Episodes, joined
from metarl.scaling.pool import ShardPool
from metarl.scaling.shard import TaskBatch
from metarl.simulation.task_family import TaskFamily
from tesp.methods import MetaParameters

# Names of the goal sets, and what the paper calls them.
GOAL_SETS = {"train": "D", "test_1": "D'", "test_2": "D''"}


@gin.configurable(module="tesp")
class Validation:
    """When and how the goal sets are validated during training.

    Args:
        frequency: every so many meta-updates; 0 for never; "auto" for every 100 up to 200 and every 25 from there.
        goal_sets: which ones.
        num_goals: the first so many goals of each set; default: all.
        noise_sigma: standard deviation of the transition noise on the test sets (section 6.2); the training goals
            are validated without noise.
        noise_kind: "observation" or "state".
    """

    def __init__(
        self,
        *,
        frequency: int | str = 25,
        goal_sets: Sequence[str] = tuple(GOAL_SETS),
        num_goals: int | None = None,
        noise_sigma: float = 0.0,
        noise_kind: str = "observation",
    ):
        if frequency != "auto":
            if isinstance(frequency, str):
                raise UserError(f'Validation.frequency must be an integer or "auto", got {frequency!r}')
            frequency = checks.integer("Validation.frequency", frequency, minimum=0)
        self.frequency = frequency
        self.goal_sets = checks.choices("Validation.goal_sets", goal_sets, GOAL_SETS)
        self.num_goals = None if num_goals is None else checks.integer("Validation.num_goals", num_goals, minimum=1)
        self._noise = TransitionNoise(noise_sigma, noise_kind)

    def is_due(self, iteration: int) -> bool:
        """Whether validation follows the meta-update that makes `iteration` completed ones."""
        late = 100 if iteration <= 200 else 25
        frequency = self.frequency if isinstance(self.frequency, int) else late
        return frequency > 0 and iteration % frequency == 0

    def noise_for(self, goal_set: str) -> TransitionNoise | None:
        """The transition noise of a goal set: None for the training goals."""
        return None if goal_set == "train" or self._noise.sigma == 0.0 else self._noise


class SetResult(NamedTuple):
    """Adaptation to a set of goals.

    Attributes:
        rounds: the episodes after 0 .. K fast-updates; `Episodes.task` is the index of the goal.
        simulated_steps: environment steps made.
    """

    rounds: list[Episodes]
    simulated_steps: int


def adapt_to_goals(
    pool: ShardPool,
    parameters: MetaParameters,
    goals: np.ndarray,
    *,
    seed: int,
    iteration: int,
    phase: str,
    transition_noise: TransitionNoise | None = None,
    report: Callable[[str], None] | None = None,
) -> SetResult:
    """Runs the complete adaptation for every goal, in chunks of M, the last one padded.

    Args:
        pool: samples and adapts M tasks at once; what its shards keep for the outer loop stays untouched.
        parameters: meta-parameters.
        goals: [n, G], tasks of the family.
        seed: of the experiment.
        iteration: completed meta-updates.
        phase: names the goal set in the random numbers' keys; the goal's index is the task index.
        transition_noise: noise on transitions.
        report: is told what is being done.
    """
    pieces: list[list[Episodes]] = []
    simulated = 0
    size = pool.num_tasks
    for start in range(0, len(goals), size):
        # The compiled shapes are those of a full chunk: missing goals repeat the last one and are dropped.
        indices = np.minimum(np.arange(start, start + size), len(goals) - 1)
        if report:
            report(f"{phase}: goals {start + 1}-{min(start + size, len(goals))} of {len(goals)}")
        adaptations = pool.collect(
            TaskBatch(goals[indices], indices),
            parameters=parameters,
            seed=seed,
            iteration=iteration,
            phase=phase,
            transition_noise=transition_noise,
            keep=False,
        )
        for adaptation, (first, stop) in zip(adaptations, pool.ranges(), strict=True):
            simulated += adaptation.simulated_steps
            count = min(stop, len(goals) - start) - first
            if count > 0:
                pieces.append([_first_tasks(episodes, count, start + first) for episodes in adaptation.rounds])
    return SetResult([joined(parts) for parts in zip(*pieces, strict=True)], simulated)


def do_nothing_return(family: TaskFamily, goals: np.ndarray, horizon: int) -> float:
    """Mean return over goals [n, G] of an episode with zero actions: what not learning anything is worth."""
    return float(np.mean(do_nothing_returns(family, goals, horizon)))


def do_nothing_returns(family: TaskFamily, goals: np.ndarray, horizon: int) -> np.ndarray:
    """The return of an episode of `horizon` steps with zero actions for each goal [n, G], [n] float64.

    Where resets are random, the episode begins in the state without their noise.
    """
    simulation = family.make_simulation(len(goals))
    simulation.assign_tasks(goals)
    simulation.reset()
    total, running = np.zeros(len(goals)), np.ones(len(goals), bool)
    for _ in range(horizon):
        outcome = simulation.step(np.zeros((len(goals), family.action_dim)), goals)
        total += np.where(running, outcome.reward, 0.0)
        running &= ~outcome.terminated
    return total


def _first_tasks(episodes: Episodes, count: int, offset: int) -> Episodes:
    """The episodes of the first `count` tasks, numbered from `offset`."""
    keep = episodes.task < count
    return Episodes(
        task=episodes.task[keep] + offset,
        episode_return=episodes.episode_return[keep],
        length=episodes.length[keep],
        terminated=episodes.terminated[keep],
        start=episodes.start[keep],
        sums={name: value[keep] for name, value in episodes.sums.items()},
        final={name: value[keep] for name, value in episodes.final.items()},
    )
