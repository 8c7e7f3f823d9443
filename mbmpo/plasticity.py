"""Where adaptation changes the policy, and where the models disagree: two maps of the plane (specification, 9.2).

In every iteration, after the fit, the policy is adapted to real data of every task. On a grid of positions o:

    KL(pi_theta(o) ‖ pi_theta'_i(o)), averaged over the tasks i
    standard deviation over the models of the observation predicted after action -0.05 o, averaged over both axes

Shapes: `T` iterations, `M` tasks, `g` points of the grid along an axis.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf

from mbmpo import distributions
from mbmpo.dynamics import DynamicsEnsemble
from mbmpo.families.point import Point2D
from mbmpo.policies import GaussianMLPPolicy, Weights
from metarl.compiled import Compiled
from metarl.experiment import checks
from metarl.experiment.errors import UserError
from metarl.experiment.learner import Metrics

BOUNDS = ("environment", "fixed")
_SHARE_OF_THE_BOX = 0.9  # of starts: ±1.8 for the default box, as in the original
_FIXED_HALF_WIDTH = 1.8
_ACTION = -0.05


class Maps(NamedTuple):
    """What was measured so far; row i of a map is the i-th ordinate from below, column j the j-th abscissa from left.

    Attributes:
        kl: [T, g, g] in nats.
        std: [T, g, g] in metres.
        extent: [4], left, right, bottom and top of the grid, in metres.
    """

    kl: np.ndarray
    std: np.ndarray
    extent: np.ndarray


@gin.configurable(module="mbmpo")
class PointPlasticity:
    """The plasticity study of the point.

    Args:
        bounds: "environment", 0.9 times the box of starts around its centre; or "fixed", ±1.8 whatever the box is, as
            the original has it even where the point lives elsewhere (O-15).
        resolution: g.
    """

    def __init__(self, *, bounds: str = "environment", resolution: int = 50):
        name = "PointPlasticity"
        self.bounds = checks.choice(f"{name}.bounds", bounds, BOUNDS)
        self.resolution = checks.integer(f"{name}.resolution", resolution, minimum=2)

    def extent(self, family: Point2D) -> np.ndarray:
        """Left, right, bottom and top of the grid, [4]."""
        if self.bounds == "fixed":
            return np.array([-_FIXED_HALF_WIDTH, _FIXED_HALF_WIDTH] * 2)
        centre = (family.start_low + family.start_high) / 2.0
        half = _SHARE_OF_THE_BOX * (family.start_high - family.start_low) / 2.0
        return np.stack([centre - half, centre + half], axis=1).ravel()

    def grid(self, family: Point2D) -> np.ndarray:
        """The positions, [g * g, 2] float32, row by row from below."""
        left, right, bottom, top = self.extent(family)
        x, y = np.linspace(left, right, self.resolution), np.linspace(bottom, top, self.resolution)
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


class MapMaker:
    """Both maps of one experiment, compiled once.

    Args:
        settings: of the study.
        policy: the policy.
        ensemble: the models.
        family: the point.
        asked_by: the setting that names the study, for the message.

    Attributes:
        settings: as given.

    Raises:
        UserError: the family is not the point.
    """

    def __init__(
        self,
        settings: PointPlasticity,
        policy: GaussianMLPPolicy,
        ensemble: DynamicsEnsemble,
        family: Any,
        asked_by: str,
    ):
        if not isinstance(family, Point2D):
            raise UserError(f"{asked_by} draws the plane of @Point2D(), not of {getattr(family, 'name', repr(family))}")
        self.settings = settings
        self._extent, self._grid = settings.extent(family), settings.grid(family)

        def compute(
            weights: Weights, adapted: Mapping[str, tf.Tensor], effective: Any, o: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            num_tasks = adapted["log_std"].shape[0]
            before = policy.logits(weights, o[tf.newaxis])
            after = policy.logits(adapted, tf.repeat(o[tf.newaxis], num_tasks, axis=0))
            divergence = tf.reduce_mean(distributions.kl_divergence(before, after), axis=0)
            return divergence, ensemble.disagreement(effective, o, _ACTION * o)

        self._compute = Compiled(compute)

    def empty(self) -> Maps:
        """No maps yet."""
        nothing = np.zeros((0, self.settings.resolution, self.settings.resolution), np.float32)
        return Maps(nothing, nothing.copy(), self._extent)

    def extended(self, maps: Maps, weights: Weights, adapted: Weights, effective: Any) -> Maps:
        """The maps with those of a policy before and after adaptation to real data as the latest.

        Args:
            maps: of the iterations before.
            weights: before.
            adapted: after, [M, ...].
            effective: the ensemble's, after the fit.
        """
        shape = (1, self.settings.resolution, self.settings.resolution)
        kl, std = (x.numpy().reshape(shape) for x in self._compute(weights, adapted, effective, self._grid))
        return maps._replace(kl=np.concatenate([maps.kl, kl]), std=np.concatenate([maps.std, std]))


def map_metrics(maps: Maps) -> Metrics:
    """Means of both latest maps, and their correlation over the grid; None where a map is constant."""
    kl, std = (np.asarray(values[-1], np.float64).ravel() for values in (maps.kl, maps.std))
    varied = kl.std() > 0.0 and std.std() > 0.0
    return {
        "plasticity/kl_mean": float(kl.mean()),
        "plasticity/std_mean": float(std.mean()),
        "plasticity/correlation": float(np.corrcoef(kl, std)[0, 1]) if varied else None,
    }
