"""What a gin file may set although not every experiment has it."""

from typing import Any

import gin

from metarl.experiment.errors import UserError


@gin.configurable(module="metarl")
def optional(parts: Any = ()) -> None:
    """Names parts whose bindings are no mistake in an experiment that lacks them; for files used as overlays.

    Args:
        parts: configurables and macros, such as [@Hopper, %BUFFER_CAPACITY].

    Raises:
        UserError: not a list.
    """
    if not isinstance(parts, list | tuple):
        raise UserError(f"optional.parts must be a list such as [@Name, %MACRO], got {parts!r}")
