"""Gin text as a set of bindings with complete names, so that configurations can be compared and accounted for.

Only gin's parser is used here, never its global configuration: the text may belong to another run.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import gin
from gin import config_parser

from metarl.experiment.errors import UserError

MACRO = "gin.macro"


class Key(NamedTuple):
    """What a binding sets: 'scope/selector.parameter', the selector complete; a macro is ('NAME', MACRO, 'value')."""

    scope: str
    selector: str
    parameter: str

    def __str__(self) -> str:
        if self.selector == MACRO:
            return self.scope
        return f"{self.scope}/{self.owner}" if self.scope else self.owner

    @property
    def owner(self) -> str:
        """'Configurable.parameter' without modules, the way users mostly write it."""
        return f"{self.selector.rsplit('.', 1)[-1]}.{self.parameter}"


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@scope/name`, `@scope/name()` or `%macro` inside a value; `selector` is MACRO for a macro."""

    scope: str
    selector: str
    evaluate: bool = True

    def __repr__(self) -> str:
        if self.selector == MACRO:
            return f"%{self.scope}"
        return f"@{self.scope + '/' if self.scope else ''}{self.selector}{'()' if self.evaluate else ''}"


class ReferenceRecorder(config_parser.ParserDelegate):
    """Lets gin's parser build `Reference` values instead of looking names up."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        """Called by the parser at an '@'."""
        scope, _, name = scoped_configurable_name.rpartition("/")
        return Reference(scope, complete_selector(name), evaluate)

    def macro(self, macro_name: str) -> Reference:
        """Called by the parser at a '%'."""
        return Reference(macro_name, MACRO)


def registered() -> list[str]:
    """Returns the complete names of all configurables that are imported."""
    return [selector for selector, _ in gin.config._REGISTRY.items()]


def matches(name: str) -> list[str]:
    """Returns the complete names that `name` may stand for: itself, or those that end with it after a dot."""
    names = registered()
    return [name] if name in names else [full for full in names if full.endswith("." + name)]


def complete_selector(name: str) -> str:
    """Returns the complete name of a configurable if exactly one fits, else `name` itself."""
    found = matches(name)
    return found[0] if len(found) == 1 else name


def parameters(selector: str) -> list[str]:
    """Returns the parameters that a configurable names in its signature."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(gin.config._REGISTRY[selector].wrapped)
    return [name for name, parameter in signature.parameters.items() if parameter.kind in kinds and name != "self"]


def read(text: str) -> dict[Key, Any]:
    """Returns the bindings of gin text such as an operative configuration; imports and block headers are skipped."""
    bindings = {}
    for statement in config_parser.ConfigParser(text, ReferenceRecorder()):
        if isinstance(statement, config_parser.BindingStatement):
            bindings[key_of(statement)] = statement.value
    return bindings


def key_of(statement: config_parser.BindingStatement) -> Key:
    """Returns what a statement binds; a name without parameter is a macro's."""
    if not statement.arg_name:
        name = f"{statement.scope}/{statement.selector}" if statement.scope else statement.selector
        return Key(name, MACRO, "value")
    return Key(statement.scope, complete_selector(statement.selector), statement.arg_name)


def references(value: Any) -> Iterator[Reference]:
    """Yields the references in a value, however deep."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from references(pair)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)


def without_macros(bindings: Mapping[Key, Any]) -> dict[Key, str]:
    """Returns the bindings that are not macros, values as text with every macro replaced by what it stands for.

    Raises:
        UserError: a macro is defined by itself.
    """
    macros = {key.scope: value for key, value in bindings.items() if key.selector == MACRO}

    def resolve(value: Any, inside: tuple[str, ...] = ()) -> Any:
        if isinstance(value, Reference) and value.selector == MACRO and value.scope in macros:
            if value.scope in inside:
                raise UserError(f"the macro {value.scope} is defined by itself")
            return resolve(macros[value.scope], (*inside, value.scope))
        if isinstance(value, Mapping):
            return {key: resolve(item, inside) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(resolve(item, inside) for item in value)
        return value

    return {key: repr(resolve(value)) for key, value in bindings.items() if key.selector != MACRO}


def differences(
    stored: Mapping[Key, Any], current: Mapping[Key, Any], bound: Iterable[Key], ignored: Callable[[Key], bool]
) -> list[str]:
    """Compares two operative configurations by what they mean.

    Args:
        stored: the bindings of an earlier run.
        current: the bindings of this one.
        bound: what this one's user bound. A parameter unknown to a stored configurable is no difference unless it
            is bound to something else than its default: newer code has an option more.
        ignored: tells which keys may differ.

    Returns:
        One phrase per difference; what both have first, because what only one has mostly follows from it.
    """
    old, new = without_macros(stored), without_macros(current)
    bound, known = set(bound), {(key.scope, key.selector) for key in old}
    found = []
    for key in sorted(old.keys() | new.keys(), key=lambda key: (key not in old or key not in new, key)):
        if ignored(key) or old.get(key) == new.get(key):
            continue
        is_option_more = key not in old and (key.scope, key.selector) in known
        if is_option_more and (key not in bound or new[key] == _default(key)):
            continue
        found.append(f"{key} is {old.get(key, 'absent')} there and {new.get(key, 'absent')} here")
    return found


def _default(key: Key) -> str | None:
    """Returns the default of a configurable's parameter, as text; None if it has none or is not imported."""
    if key.selector not in registered():
        return None
    parameter = inspect.signature(gin.config._REGISTRY[key.selector].wrapped).parameters.get(key.parameter)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else repr(parameter.default)


def never_used(bound: Mapping[Key, Any], shadowed: Iterable[Any], operative: Iterable[Key]) -> list[Key]:
    """Returns the bindings that had no effect on what was built, apart from those a later binding made idle.

    Args:
        bound: all bindings in force.
        shadowed: values that a later binding of the same key replaced. What only they refer to is idle by the
            user's wish: a macro whose one use was overridden, the parameters of an environment that was exchanged.
        operative: what was consumed while the experiment was built.

    Returns:
        The keys, in the order they were bound.
    """
    consumed: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for key in operative:
        consumed.setdefault((key.selector, key.parameter), []).append(_parts(key.scope))
    idle = _reachable(shadowed, bound)

    def applies_to(key: Key, scopes: Iterable[tuple[str, ...]]) -> bool:
        scope = _parts(key.scope)
        return any(other[: len(scope)] == scope for other in scopes)

    return [
        key
        for key in bound
        if not applies_to(key, consumed.get((key.selector, key.parameter), ()))
        and not applies_to(key, idle.get(key.selector, ()))
    ]


def _parts(scope: str) -> tuple[str, ...]:
    return tuple(scope.split("/")) if scope else ()


def _reachable(values: Iterable[Any], bound: Mapping[Key, Any]) -> dict[str, set[tuple[str, ...]]]:
    """Returns what the values refer to, directly or not: the scopes that each selector would be called in."""
    reached: dict[str, set[tuple[str, ...]]] = {}
    waiting = [(reference, "") for value in values for reference in references(value)]
    while waiting:
        reference, scope = waiting.pop()
        scope = reference.scope or scope  # a reference without scope is called in the scope of what holds it
        scopes = reached.setdefault(reference.selector, set())
        if _parts(scope) in scopes:
            continue
        scopes.add(_parts(scope))
        for key, value in bound.items():
            if key.selector == reference.selector and _parts(scope)[: len(_parts(key.scope))] == _parts(key.scope):
                waiting.extend((inner, scope) for inner in references(value))
    return reached
