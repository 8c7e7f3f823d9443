"""The random numbers of a sampling round, keyed per task.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `O` observation, `A` action.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metarl.experiment import checks
from metarl.seeding import keyed_generator
from metarl.simulation.task_family import TaskFamily

# Ticks drawn at once. The numbers do not depend on it (a generator's stream is the same however it is cut up);
# it only keeps the cost of one call into NumPy away from the tick.
_CHUNK_TICKS = 64


class NoiseKey(NamedTuple):
    """Names the random numbers of one sampling round.

    Attributes:
        seed: the experiment's seed.
        iteration: 0-based meta-update.
        phase: what the round is for, for example "train/round_2".
        task_indices: [M] index of each task in the whole meta-batch or goal set, whatever part of it is sampled here.
    """

    seed: int
    iteration: int
    phase: str
    task_indices: Sequence[int] | np.ndarray


@dataclasses.dataclass(frozen=True)
class TransitionNoise:
    """Gaussian noise on transitions (TESP specification, section 6.2).

    Attributes:
        sigma: standard deviation, in the units of the observation or of the state; at least 0.
        kind: "observation" adds it to every next observation (a reset's observation stays exact) and leaves reward and
            simulator alone; "state" adds it to positions and velocities after each step, whose reward and termination
            it therefore does not touch.

    Raises:
        UserError: for a negative or non-finite sigma, or an unknown kind.
    """

    sigma: float
    kind: str = "observation"

    def __post_init__(self) -> None:
        """Checks the values."""
        checks.real("TransitionNoise.sigma", self.sigma, minimum=0.0)
        checks.choice("TransitionNoise.kind", self.kind, ("observation", "state"))


class NormalStream:
    """Standard normal numbers for the copies of some tasks, tick by tick, each task from its own generator."""

    def __init__(self, key: NoiseKey, num_slots: int, rollouts_per_task: int, width: int, horizon: int):
        """Opens the generators; nothing is drawn before it is asked for.

        Args:
            key: names the numbers; its tasks fill the first slots.
            num_slots: task slots, at least as many as the key has tasks; the others stay zero.
            rollouts_per_task: R.
            width: numbers per copy and tick.
            horizon: H, only to keep short rounds from drawing more than they use.
        """
        self._generators = [keyed_generator(key.seed, key.iteration, key.phase, int(i)) for i in key.task_indices]
        self._chunk = min(horizon, _CHUNK_TICKS)
        self._block = np.zeros((num_slots, self._chunk, rollouts_per_task, width), np.float32)

    def at(self, tick: int) -> np.ndarray:
        """Returns the numbers of `tick`, [slots, R, width] float32, until the next call; ticks must come in order."""
        position = tick % self._chunk
        if position == 0:
            for generator, block in zip(self._generators, self._block, strict=False):
                generator.standard_normal(dtype=np.float32, out=block)
        return self._block[:, position]


class ResetStream:
    """The random numbers of resets, each task from its own generator, in the order in which its copies are reset."""

    def __init__(self, key: NoiseKey, family: TaskFamily):
        """Opens the generators.

        Args:
            key: names the numbers; its tasks fill the first slots.
            family: draws the numbers of a reset.
        """
        self._family = family
        self._generators = [keyed_generator(key.seed, key.iteration, key.phase, int(i)) for i in key.task_indices]

    def draw(self, slots: np.ndarray) -> np.ndarray | None:
        """Returns the numbers for resetting one copy of each of the task slots `slots` (int [k], ascending).

        Returns:
            [k, reset_dim] float64, zeros for slots without a task; None for families whose resets are deterministic.
        """
        if not self._family.reset_dim:
            return None
        numbers = np.zeros((slots.size, self._family.reset_dim))
        bounds = np.searchsorted(slots, np.arange(len(self._generators) + 1))
        for slot in np.flatnonzero(np.diff(bounds)).tolist():
            rows = slice(bounds[slot], bounds[slot + 1])
            numbers[rows] = self._family.draw_reset(self._generators[slot], rows.stop - rows.start)
        return numbers
