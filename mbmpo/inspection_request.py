"""What to look at in a saved run's models. Imports nothing heavy, so that a mistake is told at once."""

import dataclasses

from metarl.experiment import checks

ACTIONS = ("own", "random")
_MOST_ROLLOUTS = 100


@dataclasses.dataclass(frozen=True)
class InspectionRequest:
    """What to look at.

    Attributes:
        rollouts: n, fresh real rollouts.
        horizon: H, steps to predict; None: as long as real episodes of the run.
        actions: whose: the run's "own" (its unadapted policy, or its planner), or "random" ones.
        drawn: rollouts that get a figure and a table of their own.
        seed: of the rollouts; None: the run's.

    Raises:
        UserError: a value is out of range; names the launcher's flag.
    """

    rollouts: int = 10
    horizon: int | None = None
    actions: str = "own"
    drawn: int = 2
    seed: int | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        checks.integer("--rollouts", self.rollouts, 1, _MOST_ROLLOUTS)
        checks.integer("--drawn", self.drawn, 0, _MOST_ROLLOUTS)
        checks.choice("--actions", self.actions, ACTIONS)
        if self.horizon is not None:
            checks.integer("--horizon", self.horizon, 1)
        if self.seed is not None:
            checks.integer("--seed", self.seed, 0, 2**32 - 1)
