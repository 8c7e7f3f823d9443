"""The Gymnasium ids of the task families.

Nothing heavy is imported before an environment is made.
"""

from typing import Any

import gymnasium

from metarl.simulation import registration

# Control periods of 0.05 s; 10 s in all (TESP specification, section 5.1).
HORIZON = 200

FAMILY_OF_ID = {
    "TESP/Wheeled-v0": "Wheeled",
    "TESP/Ant-v0": "Ant",
    "TESP/Reacher2Link-v0": "Reacher2Link",
    "TESP/Reacher4Link-v0": "Reacher4Link",
    "TESP/Point-v0": "Point",
}


def register() -> None:
    """Registers every id once; `gymnasium.make(id, ctrl_cost_coeff=1e-3)` passes options to the family."""
    horizons = dict.fromkeys(FAMILY_OF_ID, HORIZON)
    registration.register("tesp.environments:make_environment", FAMILY_OF_ID, horizons)


def make_environment(family: str, render_mode: str | None = None, **options: Any) -> "gymnasium.Env[Any, Any]":
    """Returns the Gymnasium face of a family; arguments and errors as in `metarl.simulation.registration`."""
    return registration.make_environment("tesp.families", family, render_mode, options)
