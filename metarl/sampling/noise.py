"""The random numbers of a sampling round, keyed per task.

Shapes: `M` tasks, `R` copies per task, `H` horizon, `O` observation, `A` action.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metarl.experiment import checks
from metarl.seeding import keyed_generator

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
