"""The Gymnasium ids of the task families.

Nothing heavy is imported before an environment is made.
"""

from typing import Any

import gymnasium

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
    for env_id, family in FAMILY_OF_ID.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                entry_point="tesp.environments:make_environment",
                max_episode_steps=HORIZON,
                kwargs={"family": family},
            )


def make_environment(family: str, render_mode: str | None = None, **options: Any) -> gymnasium.Env:
    """Returns the Gymnasium face of a family.

    Args:
        family: class name in `tesp.families`.
        render_mode: only None: these environments are not rendered.
        **options: keyword arguments of the family's constructor.

    Raises:
        UserError: an option that the family does not have, or a bad value.
    """
    import inspect

    from metarl.experiment.errors import UserError, did_you_mean
    from metarl.simulation.gymnasium_env import GymnasiumEnv
    from tesp import families

    family_class = getattr(families, family)
    known = list(inspect.signature(family_class).parameters)
    for option in options:
        if option not in known:
            raise UserError(f"{family} has no option {option!r}{did_you_mean(option, known)}")
    return GymnasiumEnv(family_class(**options), render_mode=render_mode)
