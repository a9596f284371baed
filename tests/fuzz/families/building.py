"""Instances, law tables, documents and review files, changed so that `build` and `review` cannot take them."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from ..ground import LAW, PERSONS
from ..inputs import Content, Family, Folder, Gone, Input
from ..text import any_of, broken_bytes, broken_json, broken_yaml, to_json
from .run_file import to_yaml

_BUILD = ("build", "persons.yaml", "--out", "new")
_LAW = (*_BUILD, "--law", "house.yaml")
_SECOND = (*_BUILD, "--check-against", "second.yaml")
_FIND = ("build", "--from-documents", "letter.txt", "--instances", "names.txt", "--out", "new")
_MERGE = ("review", "built", "--merge")

Change = tuple[str, Callable[[Any], Any]]


def _instances(ground: Path, random: Random) -> Iterator[Input]:
    text = to_yaml(PERSONS)
    for _ in range(1000):
        for what, change in _wrong_instances(random):
            document = change(copy.deepcopy(PERSONS))
            yield Input(f"instances: {what}", _BUILD, {"persons.yaml": to_yaml(document)})
            if isinstance(document, dict) and isinstance(document.get("instances"), list):
                only = document.keys() <= {"licence", "instances"}  # JSON lines have the instances alone
                name = random.choice(["persons.json", "persons.jsonl" if only else "persons.json"])
                lines = b"\n".join(json.dumps(one).encode() for one in document["instances"])
                content = lines if name.endswith("l") else to_json(document)
                if content.strip():
                    yield Input(f"instances: {what}", ("build", name, "--out", "new"), {name: content})
        for what, damaged in any_of(broken_yaml)(text, random)[:8]:
            yield Input(f"instances: {what}", _BUILD, {"persons.yaml": damaged})
        for path in ("gone.yaml", "runs", "persons.yaml/x"):
            yield Input(f"instances from {path}", ("build", path, "--out", "new"))
        yield Input("--out is a file", ("build", "persons.yaml", "--out", "rows.jsonl"))
        yield Input("--out has a benchmark", ("build", "persons.yaml", "--out", "built"))
        option, wrong = random.choice(
            [
                ("--kinds", "direkt"), ("--layout", "tofuu"), ("--law", "privacy-gpdr"), ("--request", "Nobody"),
                ("--generator", "openai:x"), ("--generator", "modell:x"), ("--base", "model"), ("--wrong", "4"),
                ("--check-against", "gone.txt"), ("--check-model", "./gone"),
            ]
        )  # fmt: skip
        begins = option in ("--check-model",)  # the rows are written before a model reads them
        yield Input(f"{option} {wrong}", (*_BUILD, option, wrong), begins=begins)


def _wrong_instances(random: Random) -> list[Change]:
    at = random.randrange(2)

    def put(key: str, value: Any) -> Callable[[Any], Any]:
        def change(document: Any) -> Any:
            document["instances"][at][key] = value
            return document

        return change

    def without(*keys: str) -> Callable[[Any], Any]:
        def change(document: Any) -> Any:
            for key in keys:
                document["instances"][at].pop(key, None)
            return document

        return change

    return [
        ("no instances", lambda document: {**document, "instances": random.choice([[], {}, "Ada", 3])}),
        ("an instance that is none", lambda document: {**document, "instances": [random.choice([3, "Ada", [], None])]}),
        ("a key that there is not", lambda document: {**document, "license": "MIT"}),
        ("no name", without("name")),
        (
            "a name that is none",
            put("name", random.choice([3, "", "  ", ["a"], None, "a\u202eb", "a\x07b", "n" * 300])),
        ),
        ("the name of the other one", put("name", str(PERSONS["instances"][1 - at]["name"]).upper())),  # type: ignore[index]
        ("an alias that is the other one", put("aliases", [str(PERSONS["instances"][1 - at]["name"])])),  # type: ignore[index]
        ("aliases that are none", put("aliases", random.choice([3, [3], [""], {"a": 1}]))),
        ("an attribute without a scope", put(random.choice(["shoe_size", "e-mail", "{name}"]), "x")),
        ("nothing to forget", without("parents", "email", "address")),
        ("nothing to keep", without("genre", "born")),
        ("an e-mail address that is none", put("email", random.choice(["x", "a@", "a@b", "a b@c.de", "@b.example"]))),
        ("a phone number that is none", put("phone", random.choice(["12", "none", "+1"]))),
        ("a value that is none", put("genre", random.choice([True, {}, {"a": "b"}, [], [[]], [None], "", " "]))),
        ("a birth that is none", put("born", random.choice([{}, {"day": "3"}, {"date": {}}, {"date": ["1"]}]))),
        ("a control character", put("genre", random.choice(["a\x1b[31mb", "a\u200bb", "a\u202eb"]))),
        ("a text for a fact", put("genre", "word " * 200)),
        ("a kind that there is not", put("kind", random.choice(["persons", "book"]))),
        ("a law that is not given", put("law", "copyright-us")),
        ("attributes that are none", put("attributes", random.choice([3, "x", ["a"]]))),
    ]


def _laws(ground: Path, random: Random) -> Iterator[Input]:
    text = to_yaml(LAW)

    def put(value: Any, *path: str) -> Any:
        document: Any = copy.deepcopy(LAW)
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return document

    rule = ("attributes", "shoe_size")
    for _ in range(1000):
        wrong = [
            ("no scope", put({"article": "1", "sentence": "x"}, *rule)),
            ("a scope that there is not", put(random.choice(["Forget", "keep", None, 3]), *rule, "scope")),
            ("no article", put({"scope": "forget", "sentence": "x"}, *rule)),
            ("a rule that is none", put(random.choice([3, "forget", None, []]), *rule)),
            ("a domain that there is not", put(random.choice(["Privacy", "tax", None]), "domain")),
            ("another domain than it extends", put("copyright", "domain")),
            ("it extends nothing that there is", put(random.choice(["gdpr", "gone.yaml", ""]), "extends")),
            ("it extends itself", put("house.yaml", "extends")),
            ("no name", {key: value for key, value in LAW.items() if key != "name"}),
            ("a key that there is not", {**LAW, "atributes": {}}),
            ("another kind of document", random.choice([[], 3, "text", [LAW]])),
        ]
        for what, document in wrong:
            yield Input(f"law: {what}", _LAW, {"house.yaml": to_yaml(document)})
        for what, damaged in any_of(broken_yaml)(text, random)[:6]:
            yield Input(f"law: {what}", _LAW, {"house.yaml": damaged})
        yield Input("law: a folder", _LAW, {"house.yaml": Folder()})


def _documents(ground: Path, random: Random) -> Iterator[Input]:
    letter = (ground / "letter.txt").read_bytes()
    for _ in range(1000):
        for file in ("names.txt", "letter.txt"):
            for what, damaged in any_of(broken_bytes)((ground / file).read_bytes(), random)[:2]:
                yield Input(f"{file}: {what}", _FIND, {file: damaged})
        wrong: list[tuple[str, dict[str, Content]]] = [
            ("no name", {"names.txt": b"\n \n"}),
            ("a name twice", {"names.txt": b"Ada Bell\nBo Rask\nAda Bell\n"}),
            (
                "an alias of two",
                {
                    "names.txt": b"Ada Bell; Red\nAda Bella; Red\n",
                    "letter.txt": letter + b"\n" + letter.replace(b"Bell", b"Bella"),
                },
            ),
            ("names in a folder", {"names.txt": Folder()}),
            ("nothing about anybody", {"letter.txt": b"Ada Bell is not here.\n"}),
            ("one scope only", {"letter.txt": b"Ada Bell, ada@mail.example\n"}),
            ("two values", {"letter.txt": letter + b"\nAda Bell, born on 4 May 1971.\n"}),
            ("no document", {"letter.txt": Gone()}),
        ]
        for what, files in wrong:
            yield Input(f"documents: {what}", _FIND, files)
        second: list[tuple[str, bytes]] = [
            ("nothing", b""),
            ("nobody it knows", b"[{name: Cy Dee, genre: odes}]"),
            ("no names", b"[{person: Ada Bell}]"),
            ("attributes that are none", b"[{name: Ada Bell, attributes: 3}]"),
            ("aliases that are none", b"[{name: Ada Bell, aliases: 3, genre: odes}]"),
            ("a value that is none", b"[{name: Ada Bell, genre: {a: b}}]"),
            *any_of(broken_yaml)(b"instances: []\n", random)[:4],
        ]
        for what, text in second:
            yield Input(f"second source: {what}", _SECOND, {"second.yaml": text})


def _review(ground: Path, random: Random) -> Iterator[Input]:
    built = ground / "built"
    text = (built / "review.csv").read_text()
    header, *rows = list(csv.reader(io.StringIO(text)))
    column = {name: at for at, name in enumerate(header)}
    sheet, checks = ((built / name).read_bytes() for name in ("datasheet.json", "checks.jsonl"))

    def cell(name: str, value: str) -> bytes:
        changed = copy.deepcopy(rows)
        changed[random.randrange(len(rows))][column[name]] = value
        return written(changed)

    def written(cells: list[list[str]]) -> bytes:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([header, *cells])
        return file.getvalue().encode()

    def judged(*verdicts: tuple[int, dict[str, str]]) -> bytes:
        changed = copy.deepcopy(rows)
        for at, cells in verdicts:
            for name, value in cells.items():
                changed[at][column[name]] = value
        return written(changed)

    def other_part(random: Random) -> bytes:
        document = json.loads(sheet)
        document[random.choice(["counts", "laws", "generators", "checks"])] = random.choice([3.5, "x", [3], None])
        return json.dumps(document).encode()

    owner = [(row[column["instance"]], row[column["scope"]], row[column["split"]]) for row in rows]
    for _ in range(1000):
        at = random.randrange(len(rows) - 1)
        lost = [(n, {"verdict": "no"}) for n, own in enumerate(owner) if own == (owner[0][0], owner[0][1], "train")]
        wrong: list[tuple[str, dict[str, Content]]] = [
            (
                "a verdict that there is not",
                {"built/review.csv": cell("verdict", random.choice(["maybe", "0", "yes no"]))},
            ),
            ("an edit of nothing", {"built/review.csv": cell("verdict", "edit")}),
            (
                "a row that is no number",
                {"built/review.csv": cell("row", random.choice(["x", "-1", "1.5", "", "\u0661x"]))},
            ),
            ("a row that there is not", {"built/review.csv": cell("row", "99999")}),
            ("another hash", {"built/review.csv": cell("hash", "0" * 16)}),
            (
                "a note with a control character",
                {"built/review.csv": cell("note", random.choice(["a\x07b", "a\u202eb"]))},
            ),
            ("a note too long", {"built/review.csv": cell("note", "n" * 3000)}),
            (
                "a column less",
                {"built/review.csv": "\n".join(line.rpartition(",")[0] for line in text.splitlines()).encode()},
            ),
            ("a cell more", {"built/review.csv": text.rstrip("\n").encode() + b",more\n"}),
            ("no header", {"built/review.csv": text.partition("\n")[2].encode()}),
            ("nothing", {"built/review.csv": b""}),
            (
                "another question's text",
                {
                    "built/review.csv": judged(
                        (at, {"verdict": "edit", "new_question": rows[at + 1][column["question"]]})
                    )
                },
            ),
            ("all of a scope refused", {"built/review.csv": judged(*lost)}),
            ("not there", {"built/review.csv": Gone()}),
            ("a folder", {"built/review.csv": Folder()}),
            ("no datasheet", {"built/datasheet.json": Gone()}),
            ("a datasheet of another format", {"built/datasheet.json": sheet.replace(b'"format": 1', b'"format": 99')}),
            ("a datasheet with a part of another kind", {"built/datasheet.json": other_part(random)}),
            ("no rows", {"built/rows.jsonl": Gone()}),
            ("no checks", {"built/checks.jsonl": Gone()}),
            ("checks of fewer rows", {"built/checks.jsonl": b"\n".join(checks.splitlines()[:-1]) + b"\n"}),
            ("checks of more rows", {"built/checks.jsonl": checks + checks.splitlines()[0] + b"\n"}),
            ("checks that are none", {"built/checks.jsonl": checks.replace(b'{"row": 1,', b'["row", 1,', 1)}),
            (
                "lines that were not left out",
                {"built/left_out.jsonl": random.choice([b"[]\n", b"3\n", b"{}\n", b'{"failed": 3}\n'])},
            ),
            ("a request that is none", {"built/requests/1.jsonl": random.choice([b"[]\n", b"3\n", b"{}\n", b"{\n"])}),
        ]
        for what, files in wrong:
            yield Input(f"review: {what}", _MERGE, files)
        for what, damaged in any_of(broken_bytes)(text.encode(), random)[:2]:
            yield Input(f"review: {what}", _MERGE, {"built/review.csv": damaged})
        for what, damaged in any_of(broken_json)(sheet, random)[:4]:
            yield Input(f"datasheet: {what}", _MERGE, {"built/datasheet.json": damaged})
        yield Input("review of no benchmark", ("review", random.choice(["runs", "gone", "rows.jsonl"]), "--no-page"))


FAMILIES = (
    Family("instances", _instances, (_BUILD,)),
    Family("laws", _laws, (_LAW,)),
    Family("documents of persons", _documents, (_FIND,)),
    Family("review", _review, (_MERGE,)),
)
