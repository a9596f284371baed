"""Put an input's files into the ground."""

from __future__ import annotations

import shutil
from pathlib import Path

from .inputs import Folder, Gone, Input, Link


def put(given: Input, ground: Path) -> None:
    """Write the files, folders and links of an input over those of the ground."""
    for name, content in given.files.items():
        path = ground / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir() and not isinstance(content, Folder):
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.to)
        elif isinstance(content, Folder):
            path.mkdir(exist_ok=True)
            path.chmod(content.mode)
        elif not isinstance(content, Gone):
            path.write_bytes(content)
    if given.as_nobody:
        ground.chmod(0o777)


def undo(given: Input, ground: Path) -> None:
    """Give back the permissions that keep a folder from being removed."""
    for name, content in given.files.items():
        if isinstance(content, Folder) and not (ground / name).is_symlink() and (ground / name).is_dir():
            (ground / name).chmod(0o755)
