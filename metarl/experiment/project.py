"""Where configs are found: in the working directory, then in the project. Imports nothing heavy."""

from pathlib import Path

from metarl.experiment.errors import UserError, did_you_mean


def project_root() -> Path | None:
    """Returns the checkout that this package runs from, or None when it was installed without its configs."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "configs").is_dir() else None


def search_folders() -> list[Path]:
    """Returns the folders that relative gin files are looked up in, first match wins."""
    root = project_root()
    return [Path.cwd()] + ([root] if root else [])


def find_gin_file(name: str, asked_by: str) -> Path:
    """Returns the resolved path of a gin file or include.

    Args:
        name: as the user wrote it; a relative name is looked up in `search_folders()`.
        asked_by: what names the file, for the message.

    Raises:
        UserError: there is no such file; names the nearest gin file.
    """
    for folder in search_folders():
        path = folder / name
        if path.is_file():
            return path.resolve()
    raise UserError(f"{asked_by}: no gin file {name!r}{did_you_mean(name, _known_gin_files(name))}")


def gin_text(path: Path, name: str, asked_by: str) -> str:
    """Returns what a gin file says.

    Args:
        path: of the file.
        name: as the user wrote it.
        asked_by: what names the file, for the message.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{asked_by}: cannot read the gin file {name!r}: {why}") from error


def configs() -> dict[str, str]:
    """Returns the experiments' and studies' config files, 'configs/x.gin', with the first sentence of their headers."""
    found: dict[str, str] = {}
    for folder in search_folders():
        for path in [*(folder / "configs").glob("*.gin"), *(folder / "configs" / "studies").glob("*.gin")]:
            name = path.relative_to(folder).as_posix()
            found.setdefault(name, _headline(path))
    return dict(sorted(found.items()))


def _headline(path: Path) -> str:
    """Returns the first sentence of the file's header, which may go over several lines."""
    words = ""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                text = line.lstrip("#").strip()
                if not line.startswith("#") or text.startswith(("seeds:", "sweep:")) or words.endswith("."):
                    break
                words = f"{words} {text}".strip()
    except OSError as error:
        return f"(cannot be read: {error.strerror})"
    return words.split(". ")[0].rstrip(".") + "." if words else ""


def _known_gin_files(name: str) -> list[str]:
    """Returns gin files written the way `name` is: beside an absolute name, else relative to the search folders."""
    if Path(name).is_absolute():
        return [path.as_posix() for path in sorted(Path(name).parent.glob("*.gin"))]
    known: dict[str, None] = {}
    for folder in search_folders():
        for path in sorted(folder.glob("*.gin")) + sorted((folder / "configs").rglob("*.gin")):
            known.setdefault(path.relative_to(folder).as_posix())
    return list(known)
