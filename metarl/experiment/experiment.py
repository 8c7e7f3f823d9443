"""The root of every config: which learner, for how long, saved and shown how often."""

import gin

from metarl.experiment import checks
from metarl.experiment.gin_bindings import Key
from metarl.experiment.learner import Learner

_MAY_CHANGE_WHEN_RESUMED = ("iterations", "checkpoint_every", "keep_checkpoints", "figure_every")


@gin.configurable(module="metarl")
class Experiment:
    """A learner and how to run it. Building one builds all it consists of and steps nothing.

    Args:
        learner: what is trained.
        iterations: meta-updates in all; raising it continues a finished run.
        checkpoint_every: meta-updates between two checkpoints.
        keep_checkpoints: how many of the newest checkpoints stay on disk; 0 keeps all.
        figure_every: meta-updates between two figures; 0 draws none.

    Raises:
        UserError: a value has a wrong type or range.
    """

    def __init__(
        self,
        learner: Learner = gin.REQUIRED,
        iterations: int = gin.REQUIRED,
        checkpoint_every: int = 10,
        keep_checkpoints: int = 5,
        figure_every: int = 0,
    ):
        self.learner: Learner = checks.instance("learner", learner, Learner, "a learner, such as @Name()")
        self.iterations = checks.integer("iterations", iterations, 1)
        self.checkpoint_every = checks.integer("checkpoint_every", checkpoint_every, 1)
        self.keep_checkpoints = checks.integer("keep_checkpoints", keep_checkpoints, 0)
        self.figure_every = checks.integer("figure_every", figure_every, 0)

    def may_change(self, key: Key) -> bool:
        """Tells whether a run may be resumed with another value of `key`: it changes no result."""
        return changes_no_result(key) or key.owner in self.learner.changeable


def changes_no_result(key: Key) -> bool:
    """Tells whether a binding is one of those that a run may be resumed with other values of, whatever it learns."""
    return key.selector == "metarl.Experiment" and key.parameter in _MAY_CHANGE_WHEN_RESUMED
