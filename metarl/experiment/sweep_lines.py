"""What a sweep line says: `INNER_LR=[1e-3, 1e-2]`, or `(HORIZON, META_BATCH_SIZE)=[(200, 20), (500, 8)]`.

Left a macro or a binding, or several in parentheses that change together; right a gin list of values, or of tuples.
Several lines span the grid of their products. A config's header may hold such lines after `# sweep: `, and its seeds
after `# seeds: `.
"""

import dataclasses
import re
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gin import config_parser

from metarl.experiment import project
from metarl.experiment.errors import UserError
from metarl.experiment.gin_bindings import ReferenceRecorder

_LINE = re.compile(r"\s*(\(?[\w./,\s]+\)?)\s*=\s*(\[.*\])\s*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w./]*")
_MOST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Axis:
    """Names that change together, and the values they take.

    Attributes:
        names: macros or bindings.
        values: one tuple per value, as long as `names`; what stands in gin text after '@' or '%' is a `Reference`.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Any, ...], ...]


def parse(line: str, asked_by: str) -> Axis:
    """Reads one sweep line.

    Args:
        line: what stands behind `--sweep=` or '# sweep: '.
        asked_by: names the line in a message.

    Raises:
        UserError: it is no sweep line.
    """
    found = _LINE.fullmatch(line)
    if not found:
        raise UserError(f"{asked_by}: {line!r} is not NAME=[value, ...] or (NAME, NAME)=[(value, value), ...]")
    left, several = found[1].strip(), found[1].lstrip().startswith("(")
    names = tuple(name.strip() for name in left.removeprefix("(").removesuffix(")").split(","))
    if several != left.endswith(")") or (not several and len(names) > 1):
        raise UserError(f"{asked_by}: names that change together stand in parentheses, (A, B)=[(1, 2), ...]")
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(f"{asked_by}: {name!r} is not the name of a macro or of a binding such as TESP.inner_lr")
    values = _gin_list(found[2], asked_by)
    if not values:
        raise UserError(f"{asked_by}: {line!r} has no values")
    if not several:
        return Axis(names, tuple((value,) for value in values))
    for value in values:
        if not isinstance(value, tuple) or len(value) != len(names):
            raise UserError(f"{asked_by}: every value must be a tuple of {len(names)}, got {value!r}")
    return Axis(names, tuple(values))


def _gin_list(text: str, asked_by: str) -> list[Any]:
    try:
        statements = list(config_parser.ConfigParser(f"X = {text}", ReferenceRecorder()))
    except (SyntaxError, ValueError, StopIteration, RuntimeError, tokenize.TokenError) as error:
        raise UserError(f"{asked_by}: {text!r} is not a list of gin values; text stands in quotes") from error
    if len(statements) != 1 or not isinstance(statements[0].value, list):
        raise UserError(f"{asked_by}: {text!r} is not one list of gin values")
    return statements[0].value


def parse_seeds(text: str, asked_by: str) -> tuple[int, ...]:
    """Reads `1, 2, 3`.

    Raises:
        UserError: not a list of different integers from 0 to 2^32 - 1.
    """
    parts = [part.strip() for part in text.split(",")]
    wrong = next((part for part in parts if not re.fullmatch(r"[0-9]{1,10}", part) or int(part) > _MOST_SEED), None)
    if wrong is not None:
        raise UserError(f"{asked_by}: {wrong!r} is not a seed; seeds are integers such as 1,2,3")
    seeds = tuple(int(part) for part in parts)
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise UserError(f"{asked_by}: seed {twice} is there twice")
    return seeds


def of_header(paths: Iterable[Path]) -> tuple[list[Axis], tuple[int, ...] | None]:
    """Reads the lines '# sweep: ...' and '# seeds: ...' of gin files; the last seeds line wins.

    Returns:
        The axes, and the seeds or None.

    Raises:
        UserError: a line is malformed.
    """
    axes, seeds = [], None
    for path in paths:
        for number, line in enumerate(project.gin_text(path, str(path), "--gin_file").splitlines(), 1):
            where = f"{path}:{number}"
            if line.startswith("# sweep:"):
                axes.append(parse(line.removeprefix("# sweep:"), where))
            elif line.startswith("# seeds:"):
                seeds = parse_seeds(line.removeprefix("# seeds:"), where)
    return axes, seeds
