"""The files of an earlier build in the same folder, which a new build replaces."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from scopewise.building.datasheet import FILE, read_datasheet
from scopewise.errors import DataError
from scopewise.files import writing


def files_of(folder: Path) -> list[str]:
    """Return the files that the datasheet of a folder lists, relative to the folder; none without such a datasheet."""
    if not (folder / FILE).is_file():
        return []
    try:
        listed = read_datasheet(folder).get("files")
    except DataError:
        return []
    return [name for name in listed if isinstance(name, str) and "\0" not in name] if isinstance(listed, list) else []


def remove(folder: Path, names: Collection[str]) -> None:
    """Remove files of a folder, and the folders that are empty after that; what lies outside the folder stays.

    Raises:
        ResultError: a file cannot be removed.
    """
    inside = folder.resolve()
    for name in names:
        path = folder / name
        with writing(path):
            above = path.parent.resolve()
            if (
                ".." in Path(name).parts
                or not above.is_relative_to(inside)
                or not (path.is_file() or path.is_symlink())
            ):
                continue
            path.unlink()
        with suppress(OSError):  # a folder with something in it stays
            while above != inside:
                above.rmdir()
                above = above.parent
