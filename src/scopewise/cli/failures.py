"""Turn the operating system's errors about a user's path into one sentence, wherever the path is first used."""

from __future__ import annotations

import errno

_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EROFS)
_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def path_sentence(error: OSError) -> str | None:
    """Return the sentence for a path that cannot be used or a full disk; None for any other error."""
    if error.errno in _ROOM:
        return f"{error.filename or 'disk'}: {error.strerror}; make room, or write to another place"
    if error.errno in _PATHS and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give a path that can be read and written"
    return None


def link_sentence(error: RuntimeError) -> str | None:
    """Return the sentence for a symlink loop, a RuntimeError of `Path.resolve` before Python 3.13; None for others."""
    text = str(error)
    return f"{text}; give a path that can be read and written" if text.startswith("Symlink loop") else None


def argument_sentence(argument: str) -> str | None:
    """Return the sentence for an argument that is not valid UTF-8; None if it is."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return f"{argument}: an argument that is not UTF-8; rename the file, or set the terminal's locale to UTF-8"
    return None
