"""The sweep lines of a config's header, as a sweep launcher reads them.

    # sweep: INNER_LR=[0.01, 0.005, 0.001, 0.0]
    # sweep: (HORIZON, META_BATCH_SIZE)=[(200, 20), (500, 8)]

Left a macro or a binding, or several in parentheses that change together; right a gin list of values, or of tuples.
Several lines of one file span the grid of their products.
"""

import re
from typing import NamedTuple

from gin import config_parser

from metarl.experiment import gin_bindings


class Sweep(NamedTuple):
    names: tuple[str, ...]
    values: tuple  # each a tuple as long as `names`

    def bindings(self, index):
        """The gin statements of one value."""
        return tuple(f"{name} = {value!r}" for name, value in zip(self.names, self.values[index], strict=True))


def parse(line):
    """What stands after '# sweep: '; ValueError for anything else."""
    found = re.fullmatch(r"([\w./]+|\([\w./]+(?:, [\w./]+)+\))=(\[.+\])", line)
    if not found:
        raise ValueError(f"not a sweep line: {line!r}")
    names = tuple(name.strip() for name in found[1].strip("()").split(","))
    [statement] = config_parser.ConfigParser(f"X = {found[2]}", gin_bindings.ReferenceRecorder())
    values = statement.value
    if found[1].startswith("("):
        if not all(isinstance(value, tuple) and len(value) == len(names) for value in values):
            raise ValueError(f"every value must be a tuple of {len(names)}: {line!r}")
    else:
        values = [(value,) for value in values]
    return Sweep(names, tuple(values))


def of_file(path):
    """All sweeps of a gin file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [parse(line.removeprefix("# sweep: ")) for line in lines if line.startswith("# sweep")]


def seeds(path):
    """The seeds of a gin file's header, or ()."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# seeds: "):
            return tuple(int(seed) for seed in line.removeprefix("# seeds: ").split(", "))
    return ()
