"""What a family makes: an input that is known to be bad, and how it is given."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Link:
    """A symbolic link in the place of a file."""

    to: str


@dataclass(frozen=True)
class Folder:
    """A folder in the place of a file; `mode` is its permissions."""

    mode: int = 0o755


@dataclass(frozen=True)
class Gone:
    """A file or folder of the ground that is taken away."""


Content = bytes | Link | Folder | Gone


@dataclass(frozen=True)
class Input:
    """One bad input.

    Attributes:
        wrong: What is wrong with it, in words.
        arguments: What is typed after `scopewise`.
        files: Path in the ground → what stands there instead.
        begins: It can be found out only after a run has begun: what was made until then may stay.
        as_nobody: Run without root's rights.
        largest_file: Bytes after which writing a file fails as on a full disk; None for no limit.
    """

    wrong: str
    arguments: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)
    begins: bool = False
    as_nobody: bool = False
    largest_file: int | None = None


@dataclass(frozen=True)
class Family:
    """A kind of bad input.

    Attributes:
        name: As `--family` takes it.
        make: (ground, random) → bad inputs, in an order that depends on `random` alone.
        good: Commands that the inputs are made from; on the ground as it is each of them succeeds.
    """

    name: str
    make: Callable[[Path, Random], Iterator[Input]]
    good: tuple[tuple[str, ...], ...]

    def inputs(self, ground: Path, seed: int, count: int) -> list[Input]:
        """Return the first `count` different inputs of a seed; fewer where the family has no more."""
        found: dict[object, Input] = {}
        for made in itertools.islice(self.make(ground, Random(f"{seed}:{self.name}")), 20 * count):
            found.setdefault((made.arguments, tuple(made.files.items()), made.largest_file, made.as_nobody), made)
            if len(found) == count:
                break
        return list(found.values())


def shuffled(random: Random, inputs: Iterator[Input] | list[Input]) -> Iterator[Input]:
    """Return inputs in a random order."""
    every = list(inputs)
    random.shuffle(every)
    return iter(every)
