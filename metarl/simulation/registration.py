"""Gymnasium ids for task families, without importing anything heavy before an environment is made."""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium


def register(entry_point: str, family_of_id: Mapping[str, str], horizon_of_id: Mapping[str, int]) -> None:
    """Registers every id once; `gymnasium.make(id, option=value)` passes options to the family.

    Args:
        entry_point: "module:function" that makes the environment of a family, given its class name as `family`.
        family_of_id: class names by id.
        horizon_of_id: control steps after which an episode is truncated.
    """
    for env_id, family in family_of_id.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                entry_point=entry_point,
                max_episode_steps=horizon_of_id[env_id],
                kwargs={"family": family},
            )


def make_environment(
    module: str, family: str, render_mode: str | None, options: Mapping[str, Any]
) -> "gymnasium.Env[Any, Any]":
    """Returns the Gymnasium face of a family.

    Args:
        module: where the family's class is.
        family: its name.
        render_mode: only None: these environments are not rendered.
        options: keyword arguments of the family's constructor.

    Raises:
        UserError: an option that the family does not have, or a bad value.
    """
    from metarl.experiment.errors import UserError, did_you_mean
    from metarl.simulation.gymnasium_env import GymnasiumEnv

    family_class = getattr(importlib.import_module(module), family)
    known = list(inspect.signature(family_class).parameters)
    for option in options:
        if option not in known:
            raise UserError(f"{family} has no option {option!r}{did_you_mean(option, known)}")
    return GymnasiumEnv(family_class(**options), render_mode=render_mode)
