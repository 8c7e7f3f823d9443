"""The profiles reach every configurable that has what they set."""

from pathlib import Path

import pytest

import mbmpo.families
import mbmpo.methods  # noqa: F401  (registers the configurables)
from metarl.experiment import gin_bindings

PROFILES = Path(__file__).resolve().parents[2] / "configs" / "profiles"
ACCIDENTS = ("clip_action_in_model_reward", "scale_action_in_model_reward", "reshuffle_batch_order")


@pytest.mark.parametrize(
    ("profile", "value", "parameters"), [("clean", True, ACCIDENTS), ("repo_head", False, ACCIDENTS[2:])]
)
def test_every_class_with_an_option_has_it_set(profile, value, parameters):
    bound = gin_bindings.read((PROFILES / f"{profile}.gin").read_text(encoding="utf-8"))
    having = {
        (selector, parameter)
        for selector in gin_bindings.registered()
        if selector.startswith("mbmpo.")
        for parameter in set(gin_bindings.parameters(selector)) & set(parameters)
    }
    assert len(having) >= len(parameters)
    assert having == {(key.selector, key.parameter) for key in bound if key.parameter in parameters}
    assert all(bound[key] is value for key in bound if key.parameter in parameters)
