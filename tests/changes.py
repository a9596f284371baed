"""Changed files, to test that a change is found."""

from __future__ import annotations

from collections.abc import Iterator


def flips(content: bytes) -> Iterator[bytes]:
    """Every byte changed once, by one bit: letters change their case, spaces and line ends become something else."""
    for place in range(len(content)):
        yield content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]
