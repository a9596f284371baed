"""Text that moves the cursor, sets the title or turns words around, in whatever an error repeats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from ..ground import RUN_FILE, rows
from ..inputs import Family, Input
from ..schema import Bad, with_bad
from .rows import as_line
from .run_file import to_yaml

TEXTS = (
    "\x1b[2J\x1b[Hcleared",
    "\x1b]0;title\x07",
    "\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31mred",
    "back\x08\x08\x08",
    "over\rwritten",
    "\u202eturned\u202c",
    "\u2066isolated\u2069",
    "zero\u200bwidth\u2060",
    "two\nlines",
    "line\u2028separator",
    "\x00nul",
    "bell\x07",
    "del\x7f",
)


def _make(ground: Path, random: Random) -> Iterator[Input]:
    while True:
        for text in TEXTS:
            key = random.choice(["method", "localizer"])
            document = with_bad(RUN_FILE, Bad(("unlearn", key), text, ""))
            command = random.choice(
                [("check", "run.yaml", "--no-length"), ("show", "run.yaml"), ("unlearn", "run.yaml")]
            )
            yield Input(f"{key} is {text!a}", command, {"run.yaml": to_yaml(document)})
            unknown = with_bad(RUN_FILE, Bad((random.choice(["run", "data", "lora"]), text), 1, ""))
            yield Input(f"an unknown key {text!a}", command, {"run.yaml": to_yaml(unknown)})
            # a row is named by what is in it
            row = rows()[0]
            wrong = random.choice([{"scope": text}, {"split": text}, {"domain": "privacy", "scope": f"forget{text}"}])
            lines = [as_line(one) for one in (*rows(), {**row, **wrong})]
            yield Input(
                f"a row with {next(iter(wrong))} {text!a}", ("check", "run.yaml"), {"rows.jsonl": b"\n".join(lines)}
            )
            if "\0" not in text:
                name = text.replace("/", "_")
                command = random.choice(
                    [
                        ("show", name),
                        ("check", name),
                        ("report", name),
                        ("evaluate", f"./{name}"),
                        ("attack", name),
                        ("play", name),
                    ]
                    + [("check", "--set", name), ("list", name), ("unlearn", "run.yaml", "--method", name)]
                    + [("check", "run.yaml", "--set", f"data.path={name}"), (name,), ("check", f"--{name}")]
                )
                yield Input(f"an argument {name!a}", command)


FAMILIES = (Family("hostile", _make, (("check", "run.yaml", "--no-length"),)),)
