"""What is wrong with how a command answered a bad input; nothing, where it was refused as it should be."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from .command import Done
from .inputs import Input

FAULTS = ("accepted", "traceback", "control", "glued", "sentence", "code", "lost", "left", "slow")
SECONDS = 30.0
_LONGEST = 2000  # characters of a sentence that still can be read

# Of C0 all but the new line, and tabulators; C1; and what turns text around or cannot be seen.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\udc80-\udcff]")


_BAR = re.compile(r"\d+%\|.*\d+/\d+ \[[^\]]*\]$")


def faults(given: Input, done: Done, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the names of all that is wrong, of `FAULTS`; `before` and `after` are what `contents` finds."""
    found: list[str] = []
    out, err = (text.decode(errors="surrogateescape") for text in (done.out, done.err))
    # In a file each drawing of a bar stays, on a line of its own; a sentence after it on that line is glued to it.
    shown = [line for line in screen(err) if "scopewise" in line or not _BAR.search(line)]
    # A run that had begun may have warned of something before.
    said = [line for line in shown if "scopewise" in line] if given.begins else shown
    if done.code == 0:
        found.append("accepted")
    elif done.code != 2:
        found.append("code")
    if "Traceback (most recent call last)" in err + out or "Exception ignored" in err:
        found.append("traceback")
    if _CONTROL.search(out) or _CONTROL.search(_without_bars(err)):
        found.append("control")
    if done.code != 0 and "traceback" not in found:
        if len(shown) == 1 and not shown[0].startswith("scopewise") and "scopewise" in shown[0]:
            found.append("glued")
        elif len(said) != 1 or not re.match(r"scopewise[^:]*: .", said[0]) or len(said[0]) > _LONGEST:
            found.append("sentence")
    if any(after.get(path) != content for path, content in before.items()):
        found.append("lost")
    if not given.begins and any(path not in before for path in after):
        found.append("left")
    if done.late or done.seconds > SECONDS:
        found.append("slow")
    return found


def screen(text: str) -> list[str]:
    """Return the lines that a terminal would show in the end, without the empty ones: bars are overwritten in place."""
    lines: list[list[str]] = [[]]
    row = column = 0
    for part in re.findall("\x1b\\[[0-9;]*[A-Za-z]|.", text, re.DOTALL):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append([])
        elif part == "\x1b[A":
            row = max(0, row - 1)
        elif part in ("\x1b[K", "\x1b[2K"):
            del lines[row][column if part == "\x1b[K" else 0 :]
        else:
            lines[row] += " " * (column - len(lines[row]))
            lines[row][column : column + 1] = part
            column += 1
    return [line for characters in lines if (line := "".join(characters).strip())]


def contents(folder: Path) -> dict[str, str]:
    """Return what stands below a folder: path → kind and SHA-256 of the content. Locks are no content."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root) / name
            mode = path.lstat().st_mode
            if name.endswith(".lock"):
                continue
            content = ""
            if stat.S_ISLNK(mode):
                content = str(path.readlink())
            elif stat.S_ISREG(mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = f"{stat.S_IFMT(mode)} {content}"
    return found


def _without_bars(text: str) -> str:
    """Return a text without what draws progress bars: returns to the line's begin, moves up, and clearings of a line."""
    return re.sub("\r|\x1b\\[A|\x1b\\[2?K", "", text)
