"""Checks of configured values: a wrong type or range is one clear line, before anything runs."""

import numbers
from collections.abc import Iterable
from typing import Any

from metarl.experiment.errors import UserError, did_you_mean


def integer(name: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """Returns `value` if it is an integer in [minimum, maximum]; raises UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise UserError(f"{name} must be an integer, got {value!r}")
    _in_range(name, value, minimum, maximum)
    return int(value)


def real(name: str, value: Any, minimum: float | None = None, maximum: float | None = None) -> float:
    """Returns `value` as a float if it is a finite number in [minimum, maximum]; raises UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise UserError(f"{name} must be a number, got {value!r}")
    if not float("-inf") < float(value) < float("inf"):
        raise UserError(f"{name} must be finite, got {value!r}")
    _in_range(name, value, minimum, maximum)
    return float(value)


def positive(name: str, value: Any) -> float:
    """Returns `value` as a float if it is a finite number above 0; raises UserError otherwise."""
    value = real(name, value)
    if value <= 0.0:
        raise UserError(f"{name} must be positive, got {value!r}")
    return value


def flag(name: str, value: Any) -> bool:
    """Returns `value` if it is True or False; raises UserError otherwise."""
    if not isinstance(value, bool):
        raise UserError(f"{name} must be True or False, got {value!r}")
    return value


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Returns `value` if it is one of `choices`; raises UserError naming the nearest one otherwise."""
    choices = list(choices)
    if value not in choices:
        raise UserError(f"{name} must be one of {', '.join(choices)}; got {value!r}{did_you_mean(str(value), choices)}")
    return value


def integers(name: str, value: Any, minimum: int | None = None) -> tuple[int, ...]:
    """Returns `value` as a tuple if it is a list of at least one integer >= minimum; raises UserError otherwise."""
    if not isinstance(value, list | tuple) or not value:
        raise UserError(f"{name} must be a list of integers, got {value!r}")
    return tuple(integer(f"{name}[{i}]", item, minimum) for i, item in enumerate(value))


def choices(name: str, value: Any, allowed: Iterable[str]) -> tuple[str, ...]:
    """Returns `value` as a tuple if it is a list of different names among `allowed`; raises UserError otherwise."""
    if not isinstance(value, list | tuple):
        raise UserError(f"{name} must be a list of names, got {value!r}")
    allowed = list(allowed)
    chosen = tuple(choice(name, item, allowed) for item in value)
    if len(set(chosen)) < len(chosen):
        raise UserError(f"{name} names one of {value!r} twice")
    return chosen


def instance(name: str, value: Any, kind: type | tuple[type, ...], hint: str) -> Any:
    """Returns `value` if it is an instance of `kind`; raises UserError saying `hint` otherwise."""
    if not isinstance(value, kind):
        raise UserError(f"{name} must be {hint}, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """Names a value as the user knows it: objects by their class, without an address."""
    if isinstance(value, type):
        return f"{value.__name__} without its parentheses"
    return f"a {type(value).__name__}" if type(value).__repr__ is object.__repr__ else repr(value)


def _in_range(name: str, value: Any, minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and value < minimum:
        raise UserError(f"{name} must be at least {minimum}, got {value!r}")
    if maximum is not None and value > maximum:
        raise UserError(f"{name} must be at most {maximum}, got {value!r}")
