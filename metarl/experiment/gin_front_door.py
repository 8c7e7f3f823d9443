"""Reads gin files and bindings, builds the experiment, and turns every mistake into one line.

gin by itself is silent about misspelt scopes and macros and about bindings that nothing reads, and says other
mistakes over several lines. Here every binding is looked up when it is read, the experiment is built at once, and a
binding that building did not consume is a mistake. A gin file is code: its `import` runs modules.
"""

import dataclasses
import importlib
import importlib.machinery
import importlib.util  # gin's file reader uses it without importing it
import pkgutil
import re
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gin
from absl import logging
from gin import config_parser

from metarl.experiment import experiment as _experiment  # noqa: F401  registers what every config names
from metarl.experiment import gin_bindings, project
from metarl.experiment import optional_parts as _optional_parts  # noqa: F401
from metarl.experiment import runtime as _runtime  # noqa: F401
from metarl.experiment.errors import UserError, did_you_mean, nearest
from metarl.experiment.gin_bindings import MACRO, Key, Reference

EXPERIMENT = "metarl.Experiment"
RUNTIME = "metarl.runtime"
OPTIONAL = "metarl.optional"


@dataclasses.dataclass
class Config:
    """The bindings in force after all files and command-line bindings were read.

    Attributes:
        bindings: values by key, in the order they were bound; references are `Reference`.
        where: the file and line, or the flag, that each key was last bound by.
        shadowed: values that were replaced by a later binding.
        files: the gin files as given, without their includes.
    """

    bindings: dict[Key, Any] = dataclasses.field(default_factory=dict)
    where: dict[Key, str] = dataclasses.field(default_factory=dict)
    shadowed: list[Any] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)

    def macro(self, name: str, default: Any = None) -> Any:
        """Returns what a macro is bound to, or `default`."""
        return self.bindings.get(Key(name, MACRO, "value"), default)


def parse(gin_files: Sequence[str], gin_params: Sequence[str] = (), seed: int | None = None) -> Config:
    """Replaces gin's configuration by the given files, then bindings, then the seed; the last binding wins.

    Args:
        gin_files: paths, looked up in the working directory and then in the project.
        gin_params: gin statements, such as "ITERATIONS = 50".
        seed: becomes the macro SEED, if given.

    Raises:
        UserError: one line that names the mistake, where it is, and the nearest valid name.
    """
    gin.clear_config()
    reader = _Reader(Config(files=list(gin_files)))
    for name in gin_files:
        reader.file(name, "--gin_file", ())
    for statement in gin_params:
        reader.text(statement, f"--gin_param={statement.strip()!r}", ())
    if seed is not None:
        reader.text(f"SEED = {seed}", f"--seed={seed}", ())
    _check_macros(reader.config)
    return reader.config  # gin.finalize() would keep modules imported later from registering


def build(config: Config, *, all_used: bool = True) -> Any:
    """Builds the experiment that `parse` configured, and all it consists of.

    Args:
        config: as parsed.
        all_used: refuse bindings that nothing uses. An operative configuration may have some: gin lists a macro that it
            looked up for a parameter whose value then came from the caller.

    Returns:
        The `Experiment`. Nothing has been stepped, and nothing on disk has changed.

    Raises:
        UserError: a value has a wrong type or range, a required one is missing, or a binding was never used.
    """
    call(RUNTIME)
    if any(key.selector == OPTIONAL for key in config.bindings):
        call(OPTIONAL)
    experiment = call(EXPERIMENT)
    if all_used:
        _check_all_used(config)
    return experiment


def call(selector: str) -> Any:
    """Calls a configurable; a user's mistake met on the way becomes a UserError of one line."""
    try:
        return gin.get_configurable(selector)()
    except UserError as error:
        raise UserError(_first_line(error) + _inside(error)) from error
    except RecursionError as error:
        raise UserError(
            "the configuration refers to itself without end: an @reference() leads back to itself"
        ) from error
    except (RuntimeError, TypeError) as error:
        missing = re.search(
            r"Required bindings for `(.+?)` not provided in config: \[(.*?)\]", str(error)
        ) or re.search(r"No values supplied by Gin or caller for arguments: ()\[(.*?)\]", str(error))
        if not missing and isinstance(error, RuntimeError):
            raise
        if not missing:
            raise _unchecked(error) from error
        owner = missing[1] or _configurable(error)
        names = ", ".join(f"{owner}.{name}" for name in re.findall(r"'(\w+)'", missing[2]))
        raise UserError(f"a value is required for {names}, and no gin file or --gin_param gives one") from error
    except (ValueError, OverflowError) as error:
        raise _unchecked(error) from error


def _unchecked(error: Exception) -> UserError:
    """Returns the message for a wrong value that no check foresaw; the traceback is for those who ask."""
    logging.debug("the experiment cannot be built", exc_info=True)
    text = f"{type(error).__name__}: {_first_line(error)}"
    return UserError(f"the experiment cannot be built{_inside(error)}: {text}; --verbosity=1 shows where")


class _Reader:
    """Reads gin statements in order, binding them in gin and recording them in a `Config`."""

    def __init__(self, config: Config):
        self.config = config

    def file(self, name: str, asked_by: str, including: tuple[Path, ...]) -> None:
        path = project.find_gin_file(name, asked_by)
        if path in including:
            raise UserError(f"{asked_by}: the gin file {name!r} includes itself")
        self.text(project.gin_text(path, name, asked_by), name, (*including, path))

    def text(self, text: str, source: str, including: tuple[Path, ...]) -> None:
        for statement in _statements(text, source):
            where = f"{source}:{statement.location.line_num}" if including else source
            if isinstance(statement, config_parser.BindingStatement):
                self._bind(statement, where)
            elif isinstance(statement, config_parser.BlockDeclaration):
                _known_selector(statement.selector, where)
            elif isinstance(statement, config_parser.ImportStatement):
                _import(statement, where)
            elif isinstance(statement, config_parser.IncludeStatement):
                self.file(statement.filename, where, including)

    def _bind(self, statement: config_parser.BindingStatement, where: str) -> None:
        key = gin_bindings.key_of(statement)
        if key.selector != MACRO:
            key = key._replace(selector=_known_selector(statement.selector, where))
            names = gin_bindings.parameters(key.selector)
            if key.parameter not in names:
                owner = statement.selector
                hint = did_you_mean(key.parameter, names) or f"; it has {', '.join(names) or 'none'}"
                raise UserError(f"{where}: {owner!r} has no parameter {key.parameter!r}{hint}")
        value = _with_gin_references(statement.value, where)
        try:
            gin.bind_parameter(tuple(key), value)
        except (ValueError, KeyError) as error:
            raise UserError(f"{where}: {_first_line(error)}") from error
        if key in self.config.bindings:
            self.config.shadowed.append(self.config.bindings.pop(key))
        self.config.bindings[key] = statement.value
        self.config.where[key] = where


def _statements(text: str, source: str) -> Iterable[Any]:
    """Yields the statements of gin text one at a time, so that an import acts before what follows it is read."""
    try:
        yield from config_parser.ConfigParser(text, gin_bindings.ReferenceRecorder())
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno and not source.startswith("--") else ""
        word = re.search(r"Failed to parse token '(.*)'", error.msg)
        if word:
            raise UserError(f"{source}{line}: {word[1]} is not a gin value; text stands in quotes") from error
        shown = f" in {error.text.strip()!r}" if error.text and error.text.strip() else ""
        raise UserError(f"{source}{line}: not a valid gin statement{shown}: {_squeezed(error.msg)}") from error
    except tokenize.TokenError as error:
        raise UserError(f"{source}: not a valid gin statement: {error.args[0]}") from error
    except (ValueError, StopIteration, RuntimeError) as error:
        raise UserError(f"{source}: not a valid gin statement: {_first_line(error)}") from error


def _known_selector(name: str, where: str) -> str:
    """Returns the complete name of a configurable; raises UserError if there is none, or more than one."""
    found = gin_bindings.matches(name)
    if len(found) > 1:
        raise UserError(f"{where}: {name!r} may be any of {', '.join(sorted(found))}; write more of the name")
    if not found:
        depth = name.count(".") + 1
        known = {".".join(full.split(".")[-depth:]) for full in gin_bindings.registered()}
        known |= {full.rsplit(".", 1)[-1] for full in gin_bindings.registered()} if depth == 1 else set()
        raise UserError(f"{where}: nothing configurable is named {name!r}{did_you_mean(name, sorted(known))}")
    return found[0]


def _with_gin_references(value: Any, where: str) -> Any:
    """Returns a value with each `Reference` replaced by gin's own, which calls or hands over the configurable."""
    if isinstance(value, Reference):
        if value.selector == MACRO:
            return gin.config.ParserDelegate().macro(value.scope)
        selector = _known_selector(value.selector, where)
        return gin.config.ConfigurableReference(
            f"{value.scope}/{selector}" if value.scope else selector, value.evaluate
        )
    if isinstance(value, dict):
        return {_with_gin_references(key, where): _with_gin_references(item, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_gin_references(item, where) for item in value)
    return value


def _import(statement: config_parser.ImportStatement, where: str) -> None:
    if statement.module.startswith("__gin__"):
        raise UserError(f"{where}: '{statement.format()}' is not supported; import the module that holds the names")
    try:
        importlib.import_module(statement.module)
    except ModuleNotFoundError as error:
        if error.name and (statement.module + ".").startswith(error.name + "."):
            hint = did_you_mean(statement.module, _modules_beside(statement.module))
            raise UserError(f"{where}: there is no module {statement.module!r}{hint}") from error
        raise UserError(f"{where}: {statement.module!r} needs {error.name!r}, which is not installed") from error
    gin.parse_config(statement.format())  # gin writes the import into the operative configuration


def _modules_beside(module: str) -> list[str]:
    """Returns the modules that `module` may have been meant to be: those of its nearest existing parent package."""
    parent = module.rpartition(".")[0]
    while parent:
        try:
            package = importlib.import_module(parent)
        except ImportError:
            parent = parent.rpartition(".")[0]
            continue
        return [info.name for info in pkgutil.walk_packages(getattr(package, "__path__", ()), parent + ".", _ignore)]
    return _nearest_existing(module.split("."))


def _nearest_existing(parts: Sequence[str]) -> list[str]:
    """Returns the module whose name is nearest part by part, found without importing any; [] if a part has none."""
    found: list[str] = []
    folders: Sequence[str] | None = None  # where top-level modules are
    for part in parts:
        names = [info.name for info in pkgutil.iter_modules(folders)]
        near = nearest(part, names)
        if near is None:
            return []
        found.append(near)
        if folders is None:
            spec = importlib.util.find_spec(near)
        else:
            spec = importlib.machinery.PathFinder.find_spec(".".join(found), folders)
        folders = list((spec and spec.submodule_search_locations) or ())
    return [".".join(found)]


def _ignore(package: str) -> None:
    """A package that cannot be imported only drops out of the suggestions."""


def _check_macros(config: Config) -> None:
    """Raises UserError for a macro that is used and not defined, or defined by itself."""
    names = [key.scope for key in config.bindings if key.selector == MACRO]
    for key, value in config.bindings.items():
        for reference in gin_bindings.references(value):
            if reference.selector != MACRO:
                continue
            if reference.scope in ("gin.REQUIRED", "REQUIRED"):
                raise UserError(f"{config.where[key]}: a value is required for {key}")
            if gin.config._CONSTANTS.matching_selectors(reference.scope):
                continue
            if reference.scope not in names:
                hint = did_you_mean(reference.scope, names) or f"; defined are {', '.join(sorted(names)) or 'none'}"
                raise UserError(f"{config.where[key]}: the macro %{reference.scope} is not defined{hint}")
    for key in config.bindings:
        if key.selector == MACRO and _leads_to(key.scope, key.scope, config, set()):
            raise UserError(f"{config.where[key]}: the macro {key.scope} is defined by itself")


def _leads_to(start: str, goal: str, config: Config, seen: set[str]) -> bool:
    for reference in gin_bindings.references(config.macro(start)):
        if reference.selector != MACRO or reference.scope in seen:
            continue
        if reference.scope == goal:
            return True
        seen.add(reference.scope)
        if _leads_to(reference.scope, goal, config, seen):
            return True
    return False


def _check_all_used(config: Config) -> None:
    operative = gin_bindings.read(gin.operative_config_str())
    optional = [value for key, value in config.bindings.items() if key.selector == OPTIONAL]
    unused = gin_bindings.never_used(config.bindings, [*config.shadowed, *optional], operative)
    if not unused:
        return
    key = unused[-1]  # what was bound last is nearest to the user: the command line
    others = [name for name in operative if (name.selector == MACRO) == (key.selector == MACRO)]
    hint = did_you_mean(str(key), map(str, others))
    more = f" (and {len(unused) - 1} more)" if len(unused) > 1 else ""
    raise UserError(f"{config.where[key]}: nothing in this experiment uses {key}{hint}{more}")


def _inside(error: Exception) -> str:
    """Returns ' (in Name)' for the configurable the error came out of, unless the message names it already."""
    name = _configurable(error)
    return f" (in {name})" if name not in ("", "macro") and name not in _first_line(error) else ""


def _configurable(error: Exception) -> str:
    found = re.search(r"\n  In call to configurable '(\w+)'", str(error))
    return found[1] if found else ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return _squeezed(text.splitlines()[0]) if text else type(error).__name__


def _squeezed(text: str) -> str:
    return " ".join(text.split())
