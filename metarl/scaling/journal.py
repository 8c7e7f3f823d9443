"""The calls that a shard's state comes from: what a replacement of a lost worker repeats."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

Call = TypeVar("Call")


class Journal(Generic[Call]):
    """The latest call of each method that leaves something behind in a shard.

    Args:
        methods: their names, in the order in which one builds on the other: a call of one makes what later ones left
            behind meaningless. See `Shard.remembered`.
    """

    def __init__(self, methods: Sequence[str]):
        self._methods = tuple(methods)
        self._calls: dict[str, Call] = {}

    def begin(self, method: str, arguments: Mapping[str, Any]) -> None:
        """Forgets what a call of `method` is going to make meaningless."""
        if self._leaves_something(method, arguments):
            for later in self._methods[self._methods.index(method) :]:
                self._calls.pop(later, None)

    def done(self, method: str, arguments: Mapping[str, Any], call: Call) -> None:
        """Remembers a call that every shard has answered."""
        if self._leaves_something(method, arguments):
            self._calls[method] = call

    def calls(self) -> list[Call]:
        """What a replacement repeats, in order."""
        return [self._calls[method] for method in self._methods if method in self._calls]

    def _leaves_something(self, method: str, arguments: Mapping[str, Any]) -> bool:
        return method in self._methods and bool(arguments.get("keep", True))
