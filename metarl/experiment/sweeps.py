"""Which runs a sweep consists of: planned here, known by `sweep_index`, run by `sweep_runner`."""

import dataclasses
import hashlib
import itertools
import json
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gin import config_parser

from metarl.experiment import gin_bindings, project
from metarl.experiment.errors import UserError, did_you_mean
from metarl.experiment.gin_bindings import MACRO, Key
from metarl.experiment.run_directory import default_path
from metarl.experiment.sweep_lines import Axis

PENDING, RUNNING, FINISHED, FAILED, INTERRUPTED = "pending", "running", "finished", "failed", "interrupted"
_LONGEST_LABEL = 80
_LENGTH = "Experiment.iterations"
LENGTHENS = re.compile(r"\s*ITERATIONS\s*=")


@dataclasses.dataclass
class SweepRun:
    """One run of a sweep.

    Attributes:
        folder: relative to the sweep's, made of letters that no value can choose freely.
        values: the swept names with their gin text.
        seed: of the run.
        state: one of the five words above.
        exit_code: of its process; negative for a signal that ended it, None before its end.
        started: when its latest process was, as ISO 8601 with the time zone; "" before.
        finished: when that process ended.
        message: the last line that a failed run said.
    """

    folder: str
    values: dict[str, str]
    seed: int
    state: str = PENDING
    exit_code: int | None = None
    started: str = ""
    finished: str = ""
    message: str = ""

    @property
    def bindings(self) -> list[str]:
        """The gin statements of the values."""
        return [f"{name} = {text}" for name, text in self.values.items()]

    @property
    def label(self) -> str:
        """The values and the seed, for a line of the log."""
        return " ".join([f"{name}={text}" for name, text in self.values.items()] + [f"seed={self.seed}"])


def bound_keys(gin_files: Sequence[str], gin_params: Sequence[str] = ()) -> dict[Key, Any]:
    """Returns what gin files with their includes and bindings bind, without importing what they configure.

    Raises:
        UserError: a file is missing or not gin.
    """
    bound: dict[Key, Any] = {}

    def read(text: str, source: str, including: tuple[Path, ...]) -> None:
        try:
            for statement in config_parser.ConfigParser(text, gin_bindings.ReferenceRecorder()):
                if isinstance(statement, config_parser.BindingStatement):
                    bound[gin_bindings.key_of(statement)] = statement.value
                elif isinstance(statement, config_parser.IncludeStatement):
                    path = project.find_gin_file(statement.filename, source)
                    if path in including:
                        raise UserError(f"{source}: the gin file {statement.filename!r} includes itself")
                    read(project.gin_text(path, statement.filename, source), statement.filename, (*including, path))
        except (SyntaxError, ValueError, StopIteration, RuntimeError, tokenize.TokenError) as error:
            what = error.args[0] if isinstance(error, tokenize.TokenError) else error
            raise UserError(f"{source}: not valid gin: {' '.join(str(what).split())}") from error

    for name in gin_files:
        path = project.find_gin_file(name, "--gin_file")
        read(project.gin_text(path, name, "--gin_file"), name, (path,))
    for statement in gin_params:
        read(statement, f"--gin_param={statement.strip()!r}", ())
    return bound


class Configuration(NamedTuple):
    """What all runs of a sweep have in common.

    Attributes:
        digest: of all that is bound, but for the swept names, the seed and the number of meta-updates.
        iterations: meta-updates of every run; None if they are swept or not told by a plain number.
    """

    digest: str
    iterations: int | None


def configuration(bound: Mapping[Key, Any], swept: Iterable[str] = ()) -> Configuration:
    """Returns what is left of the bindings when the swept names, whatever they were bound to, are taken away."""
    varied = {Key("SEED", MACRO, "value"), *gin_bindings.read("".join(f"{name} = 0\n" for name in swept))}
    kept = {key: value for key, value in bound.items() if key not in varied}
    lengths = [text for key, text in gin_bindings.without_macros(kept).items() if key.owner == _LENGTH]
    kept = {
        key: value for key, value in kept.items() if key.owner != _LENGTH and key != Key("ITERATIONS", MACRO, "value")
    }
    resolved = sorted((*key, text) for key, text in gin_bindings.without_macros(kept).items())
    digest = hashlib.sha256(json.dumps(resolved).encode()).hexdigest()
    return Configuration(digest, int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None)


def resolve_names(axes: Sequence[Axis], bound: dict[Key, Any]) -> list[Axis]:
    """Returns the axes with names that the configuration has; 'inner_lr' may stand for INNER_LR or TESP.inner_lr.

    A binding 'Name.parameter' passes as it stands: `sweep_check` tells, which imports what is configured.

    Raises:
        UserError: no macro has that name, a name is swept twice, or it is the seed.
    """
    macros = [key.scope for key in bound if key.selector == MACRO]
    resolved = [Axis(tuple(_resolved(name, macros, bound) for name in axis.names), axis.values) for axis in axes]
    names = [name for axis in resolved for name in axis.names]
    for name in names:
        if name == "SEED":
            raise UserError("--sweep: the seeds of a sweep are --seeds=1,2,3, not a sweep of SEED")
        if names.count(name) > 1:
            raise UserError(f"--sweep: {name} is swept twice; values that belong together are (A, B)=[(1, 2), ...]")
    return resolved


def _resolved(name: str, macros: list[str], bound: dict[Key, Any]) -> str:
    if "." in name or name in macros:
        return name
    alike = [macro for macro in macros if macro.lower() == name.lower()]
    alike = alike or sorted({str(key) for key in bound if key.selector != MACRO and key.parameter == name})
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise UserError(f"--sweep: {name!r} may be any of {', '.join(alike)}")
    parameters = [str(key) for key in bound if key.selector != MACRO]
    raise UserError(f"--sweep: the config has no macro {name!r}{did_you_mean(name, [*macros, *parameters])}")


def plan(axes: Sequence[Axis], seeds: Sequence[int]) -> list[SweepRun]:
    """Returns the runs of a grid: every combination of the axes' values with every seed, seeds innermost.

    Raises:
        UserError: two combinations are the same.
    """
    runs: dict[str, SweepRun] = {}
    for combination in itertools.product(*(axis.values for axis in axes)):
        values = {
            name: repr(value)
            for axis, chosen in zip(axes, combination, strict=True)
            for name, value in zip(axis.names, chosen, strict=True)
        }
        for seed in seeds:
            run = SweepRun("/".join([*_folder(values), f"seed_{seed}"]), values, seed)
            if run.folder in runs:
                raise UserError(f"--sweep: {run.label} is there twice")
            runs[run.folder] = run
    return list(runs.values())


def _folder(values: dict[str, str]) -> list[str]:
    """Returns the folder's name in a list, or [] without values: a readable part, and a hash of what it leaves out."""
    if not values:
        return []
    readable = "_".join(f"{name.rsplit('.', 1)[-1]}-{text}" for name, text in values.items())
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", readable)
    readable = re.sub(r"\.{2,}|_[._]+", "_", readable).strip("._-")[:_LONGEST_LABEL]
    text = json.dumps(sorted(values.items()))
    return [f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"]


def default_folder(gin_files: Sequence[str], gin_params: Sequence[str], axes: Sequence[Axis]) -> Path:
    """Returns `runs/<config>/sweep_<names>_<hash>`: the same for the same sweep, whatever its values and seeds."""
    names = [name for axis in axes for name in axis.names]
    fixed = [text for text in gin_params if not LENGTHENS.match(text)]
    digest = hashlib.sha256(json.dumps([list(gin_files), fixed, sorted(names)]).encode()).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(names) or "seeds").strip("_")[:40].strip("_")
    return default_path(gin_files, None) / f"sweep_{readable}_{digest}"
