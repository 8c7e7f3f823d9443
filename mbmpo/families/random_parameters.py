"""Tasks that differ in the physical parameters of the model (specification, section 7.1).

Shapes: `n` copies, `G` multipliers of a task.
"""

import dataclasses
import math
from typing import NamedTuple

import gin
import mujoco
import numpy as np
from mujoco import batch as mujoco_batch

from metarl.experiment import checks
from metarl.seeding import keyed_generator

# What a draw u ~ U(-limit, limit) scales a number by: base ** u.
BASES = {"body_mass": 1.5, "dof_damping": 1.3, "body_inertia": 1.5, "geom_friction": 1.5}
# Constants of the compiled model that regularise contacts and limits.
_INVERSE_WEIGHTS = ("body_invweight0", "dof_invweight0", "tendon_invweight0")


@gin.configurable(module="mbmpo")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomParameters:
    """Which physical parameters a family's tasks change, and how far.

    A task is the vector of multipliers of the model's nominal numbers, every mass, every one of the three principal
    inertias of a body, every joint's damping and all three frictions of a geom by itself, in the order of `BASES`:
    base^u with u ~ U(-log_scale_limit, log_scale_limit), base 1.5, for damping 1.3.

    Attributes:
        log_scale_limit: half-width of u, at least 0; 0 leaves one task, the nominal model, described by no number. The
            original's class default is 2, its benchmark scripts say 0.
        rand_params: which of "body_mass", "dof_damping", "body_inertia" and "geom_friction".
        fix_params: every task is the same draw, made with `seed` (O-19).
        seed: of that draw, at least 0.

    Raises:
        UserError: a value of the wrong type or range.
    """

    log_scale_limit: float = 2.0
    rand_params: tuple[str, ...] = tuple(BASES)
    fix_params: bool = False
    seed: int = 0

    def __post_init__(self):
        checks.real("RandomParameters.log_scale_limit", self.log_scale_limit, minimum=0.0)
        checks.choices("RandomParameters.rand_params", self.rand_params, BASES)
        checks.flag("RandomParameters.fix_params", self.fix_params)
        checks.integer("RandomParameters.seed", self.seed, minimum=0)


class _Part(NamedTuple):
    field: str
    columns: slice
    nominal: np.ndarray


class ModelScaling:
    """Draws tasks for one model and applies them; the nominal numbers are the compiled model's, kept apart (O-19).

    Attributes:
        task_dim: G.
    """

    def __init__(self, parameters: RandomParameters, model: mujoco.MjModel):
        """Notes the nominal numbers of the chosen parameters."""
        self._parameters = parameters
        self._parts: list[_Part] = []
        self._inverse_weights = {name: getattr(model, name).copy() for name in _INVERSE_WEIGHTS}
        self.task_dim = 0
        for field in BASES:
            if field in parameters.rand_params and parameters.log_scale_limit > 0:
                nominal = getattr(model, field).copy()
                self._parts.append(_Part(field, slice(self.task_dim, self.task_dim + nominal.size), nominal))
                self.task_dim += nominal.size

    def draw(self, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
        """Returns the multipliers of one task, [G] float64."""
        if self._parameters.fix_params:
            rng = keyed_generator(self._parameters.seed, 0, "fixed_parameters")
        limit = self._parameters.log_scale_limit
        task = rng.uniform(-limit, limit, self.task_dim)
        for part in self._parts:
            task[part.columns] = np.exp(math.log(BASES[part.field]) * task[part.columns])
        return task

    def apply(self, batch: mujoco_batch.Batch, tasks: np.ndarray) -> None:
        """Gives every copy the parameters of its task ([n, G]).

        The original overwrites the arrays of the running model and nothing else. Constants that only repeat masses
        (those of subtrees, of bodies with a simple inertia matrix) are brought up to date all the same, so that centres
        of mass are true; the inverse weights that soften contacts and limits stay nominal, as they did.
        """
        for part in self._parts:
            multipliers = tasks[:, part.columns].reshape(-1, *part.nominal.shape)
            np.multiply(part.nominal, multipliers, out=batch.expand(part.field))
        batch.set_const()
        for name, nominal in self._inverse_weights.items():
            if nominal.size:
                batch.expand(name)[...] = nominal
