"""The Gymnasium ids of the task families.

Nothing heavy is imported before an environment is made.
"""

from typing import Any

import gymnasium

from metarl.simulation import registration

# Control steps of the benchmark's episodes (MB-MPO specification, section 7.2), and those of the families whose scripts
# use others (section 8).
HORIZON = 200
_OTHER_HORIZONS = {
    "Point2D": 30,
    "PointNavigation": 100,
    "HalfCheetahDirection": 100,
    "HalfCheetahVelocity": 100,
    "AntDirection": 100,
    "SwimmerVelocity": 100,
}
_FAMILIES = (
    "HalfCheetah",
    "Ant",
    "Hopper",
    "Walker2D",
    "Swimmer",
    "PR2Reach",
    "Humanoid",
    "Snake",
    "Reacher",
    "Reacher5DoF",
    "Point2D",
    "InvertedPendulum",
    "PointNavigation",
    "HalfCheetahDirection",
    "HalfCheetahVelocity",
    "AntDirection",
    "AntGoal",
    "SwimmerVelocity",
)

FAMILY_OF_ID = {f"MBMPO/{family}-v0": family for family in _FAMILIES}
HORIZON_OF_ID = {env_id: _OTHER_HORIZONS.get(family, HORIZON) for env_id, family in FAMILY_OF_ID.items()}


def register() -> None:
    """Registers every id once; `gymnasium.make(id, target_velocity=1.0)` passes options to the family."""
    registration.register("mbmpo.environments:make_environment", FAMILY_OF_ID, HORIZON_OF_ID)


def make_environment(family: str, render_mode: str | None = None, **options: Any) -> "gymnasium.Env[Any, Any]":
    """Returns the Gymnasium face of a family; arguments and errors as in `metarl.simulation.registration`."""
    return registration.make_environment("mbmpo.families", family, render_mode, options)
