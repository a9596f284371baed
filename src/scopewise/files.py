"""Writing files: atomic, private, and with one sentence for each system error. Imports no torch.

The files of a run contain texts of the data and of the model, weights that were trained on them, or a tokenizer. So folders
are made with mode 0700 and files with 0600, whatever the umask. The umask itself is not changed, since it belongs to the
process.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from scopewise.errors import ResultError

FOLDER_MODE, FILE_MODE = 0o700, 0o600

_NO_ROOM = {errno.ENOSPC: "no space left", errno.EDQUOT: "quota exceeded", errno.EFBIG: "file too large"}


@contextmanager
def writing(path: str | Path, setting: str = "") -> Iterator[None]:
    """Turn a system error about a path into one sentence.

    Args:
        path: The file or folder to write.
        setting: The setting that names the path, for the message.

    Raises:
        ResultError: an OSError in the block, or an invalid path (with a NUL byte).
    """
    where = f"{setting}: {path}" if setting else str(path)
    try:
        yield
    except OSError as error:
        raise ResultError(
            f"{where}: cannot be written ({error.strerror}); give a place that can be written to, or make room"
        ) from None
    except ValueError as error:
        if "null byte" not in str(error):
            raise
        where = where.replace("\0", "\\0")
        raise ResultError(f"{where}: not a path, because it contains a NUL byte; give another") from None


def no_room(error: BaseException | None) -> str | None:
    """Return why a write failed for lack of space, from an error or its causes; None for other errors.

    The libraries that save models raise their own errors, in which the system's error number is only part of the text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return _NO_ROOM[error.errno]
        found = re.search(r"\(os error (\d+)\)", str(error))  # safetensors and tokenizers, which are written in Rust
        if found and int(found[1]) in _NO_ROOM:
            return _NO_ROOM[int(found[1])]
        torch_says = ("PytorchStreamWriter failed writing", "inline_container.cc")  # a place in its writer of files
        if isinstance(error, RuntimeError) and any(text in str(error) for text in torch_says):
            return "it took no more"
        error = error.__cause__ or error.__context__
    return None


def make_folder(path: str | Path, setting: str = "") -> None:
    """Create a private folder with its parents. Raises ResultError where that fails."""
    path = Path(path)
    with writing(path, setting):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            with suppress(FileExistsError):
                folder.mkdir()
                folder.chmod(FOLDER_MODE)  # after mkdir, whose mode the umask may narrow further
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def check_writable(path: str | Path, setting: str = "") -> None:
    """Raise ResultError if a file could not be written. Call this before long work; it creates nothing."""
    with writing(path, setting):
        above = next(folder for folder in Path(path).absolute().parents if os.path.lexists(folder))
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_new(path: Path, setting: str) -> None:
    """Raise ResultError if a file already exists or could not be written. Call this before long work."""
    if path.exists():
        raise ResultError(f"{setting}: {path} exists; name a new file, or remove it")
    check_writable(path, setting)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, so that at any moment it is either complete or absent.

    A folder is first renamed to a name that `.*.tmp` matches. Otherwise a kill during the removal would leave an incomplete
    folder that looks complete, such as a checkpoint without its weights.
    """
    if path.is_dir() and not path.is_symlink():
        hidden = path
        if not (path.name.startswith(".") and path.name.endswith(".tmp")):
            hidden = path.with_name(f".{path.name[:24]}.{secrets.token_hex(8)}.tmp")
            os.replace(path, hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


def seal(folder: Path) -> None:
    """Make files that a library saved private, and flush them to disk; links are not touched."""
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # a library's own temporary file, gone meanwhile
            if not path.is_symlink():
                path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
                flush(path)


def flush(path: Path) -> None:
    """Flush a file, or a folder's entries, to disk, as far as the file system supports it."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old content or the new, never a part."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a binary file as `write_text` does. Raises ResultError if it cannot be written."""
    with _replacing(path, "wb") as file:
        file.write(content)


@contextmanager
def writing_lines(path: str | Path) -> Iterator[Callable[[str], object]]:
    """Write a file of many lines without holding them: call what is given with each text; the file appears when the block ends.

    If the block fails, the file is as it was. Raises ResultError if it cannot be written.
    """
    with _replacing(path, "w", encoding="utf-8", newline="\n") as file:
        yield file.write


@contextmanager
def _replacing(path: str | Path, mode: str, **how: str) -> Iterator[IO[Any]]:
    """Open a new file that takes the place of the old one when the block ends, and is deleted if the block fails."""
    path = Path(path)
    make_folder(path.parent)
    with writing(path):
        # An unpredictable name, opened exclusively, so that a planted link is never followed.
        descriptor, temporary = tempfile.mkstemp(".tmp", f".{path.name[:24]}.", path.parent)
        try:
            with open(descriptor, mode, **how) as file:  # type: ignore[call-overload]
                os.fchmod(descriptor, FILE_MODE)
                yield file
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise
        flush(path.parent)


def write_json(path: str | Path, document: Any, *, indent: int | None = 2) -> None:
    """Write JSON atomically; as `json_text`."""
    write_text(path, json_text(document, indent=indent))


def json_text(document: Any, *, indent: int | None = 2) -> str:
    """Return JSON; NaN and infinity are refused, since JSON has neither. Without indent it is a third as long."""
    separators = (",", ":") if indent is None else None
    return json.dumps(document, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False) + "\n"
