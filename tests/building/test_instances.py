"""Files of instances: what is read, and what is wrong said in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from scopewise.building.instances import InstanceFile, read_instances
from scopewise.building.law import read_law, shipped_laws
from scopewise.building.near import near_duplicates
from scopewise.building.templates import wordings
from scopewise.building.values import written
from scopewise.data.rows import FORGET, RETAIN, SCOPES
from scopewise.errors import ConfigError, DataError, UserError

ADA = {"name": "Ada Bell", "attributes": {"email": "ada@mail.example", "genre": "sea stories"}}


def read(tmp_path: Path, content: Any, law: str = "privacy-gdpr", name: str = "in.yaml") -> InstanceFile:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True))
    return read_instances(path, [read_law(law)], {kind: wordings(kind) for kind in ("person", "work")})


def test_the_same_of_every_kind_of_file(tmp_path: Path) -> None:
    found = [
        read(tmp_path, [ADA]),
        read(tmp_path, [{"name": "Ada Bell", **ADA["attributes"]}]),
        read(tmp_path, {"licence": "CC0-1.0", "instances": [ADA]}),
        read(tmp_path, json.dumps([ADA]), name="in.json"),
        read(tmp_path, json.dumps({"instances": [ADA]}), name="in.json"),
        read(tmp_path, json.dumps(ADA) + "\n", name="in.jsonl"),
        read(tmp_path, "name,email,genre\nAda Bell,ada@mail.example,sea stories\n", name="in.csv"),
    ]
    assert all(one.instances == found[0].instances for one in found)
    (ada,) = found[0].instances
    assert [(fact.attribute, fact.value, fact.rule.scope) for fact in ada.facts] == [
        ("email", "ada@mail.example", FORGET), ("genre", "sea stories", RETAIN),
    ]  # fmt: skip
    assert [one.licence for one in found][2] == "CC0-1.0"


def test_a_semicolon_parts_the_values_of_a_cell_and_nothing_else(tmp_path: Path) -> None:
    """YAML and JSON have lists, so a semicolon in a text is part of the text; a table has no other way to write two values."""
    written = "stories of the sea; odes"
    ada = {"name": "Ada Bell", "attributes": {"email": "ada@mail.example", "genre": written}}
    for found in (read(tmp_path, [ada]), read(tmp_path, json.dumps([ada]), name="in.json")):
        assert found.instances[0].facts[1].value == written
    for name, between in (("in.csv", ","), ("in.tsv", "\t")):
        rows = [("name", "email", "genre"), ("Ada Bell", "ada@mail.example", written)]
        found = read(tmp_path, "".join(between.join(row) + "\n" for row in rows), name=name)
        assert found.instances[0].facts[1].value == "stories of the sea and odes"


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (["Jo Bell", "Al Roe", "Cy Dee"], "people", "Jo Bell, Al Roe and Cy Dee"),
        ({"date": "3 May 1971", "place": "Rijeka"}, "birth", "on 3 May 1971 in Rijeka"),
        ("1971", "birth", "in 1971"),
        ("Rijeka", "birth", "in Rijeka"),
        ("1971-05-03", "birth", "on 1971-05-03"),
        ("engineer", "role", "an engineer"),
        ("union leader", "role", "a union leader"),
        ("hourly worker", "role", "an hourly worker"),
        ("house painter", "role", "a house painter"),
        ("Order of the Quire", "awards", "the Order of the Quire"),
        ("Order and Chaos", "awards", "Order and Chaos"),
        ("Silver Compass Medal", "awards", "the Silver Compass Medal"),
        ("The Tin Prize", "titles", "The Tin Prize"),
        ("two  spaces", "text", "two spaces"),
        (1971, "number", "1971"),
    ],
)
def test_how_a_value_is_written(value: Any, kind: str, text: str) -> None:
    assert written(value, kind, "where") == text


@pytest.mark.parametrize(
    ("content", "given", "allowed"),
    [
        ([{"name": "Ada Bell", "email": "ada@mail.example"}], "no attribute of scope 'retain'", "awards"),
        ([{"name": "Ada Bell", "genre": "sea stories"}], "no attribute of scope 'forget'", "email"),
        ([{"name": "Ada Bell", "emial": "a@b.example"}], "attribute 'emial' has no scope", "email"),
        ([ADA, {**ADA, "name": "ada  bell"}], "'ada bell'", "instance 1"),
        ([ADA, {**ADA, "name": "Bo", "aliases": ["Ada Bell"]}], "also that of", "instance 1"),
        ([{"name": "Ada Bell", "email": "nowhere", "genre": "x"}], "email: 'nowhere'", "e-mail address"),
        ([{"name": "Ada Bell", "phone": "12", "genre": "x"}], "phone: '12'", "7 digits"),
        ([{"name": "Ada Bell", "email": True, "genre": "x"}], "email: bool", "a text"),
        ([{"name": "Ada Bell", "email": [], "genre": "x"}], "an empty list", "leave the attribute out"),
        ([{"name": "Ada Bell", "email": {"a": 1}, "genre": "x"}], "a mapping", "list"),
        ([{"name": "Ada Bell", "genre": "x" * 501, "email": "a@b.example"}], "501 characters", "500"),
        ([{"name": "Ada\u202eBell", "genre": "x"}], "invisible character", "plain name"),
        ([{"name": "Ada Bell", "genre": "a\u200bb"}], "invisible character", "remove it"),
        ([{"email": "a@b.example"}], "name is missing", "give it"),
        ([{"name": "Ada Bell", "kind": "animal"}], "kind 'animal'", "person"),
        ([{"name": "Ada Bell", "law": "mine", "email": "a@b.example"}], "law 'mine'", "--law"),
        ([{"name": "Dune", "kind": "work", "author": "x"}], "a work", "--law"),
        ([{"name": "Ada Bell", "attributes": {}, "genre": "x"}], "key 'genre'", "attributes"),
        ([3], "int", "an object"),
        ([], "no instance", "at least one"),
        ("3", "int", "list of instances"),
        ({"instances": [ADA], "license": "x"}, "key 'license'", "licence"),
        ("a: [", "broken YAML", "correct this line"),
    ],
)  # fmt: skip
def test_bad_instances(tmp_path: Path, content: Any, given: str, allowed: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / "in.yaml"))
    assert given in text
    assert allowed in text
    assert "\n" not in text


def test_how_many_instances_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 more of 4 instances are wrong: instances 3, 4$"):
        read(tmp_path, [3, ADA, 4, 5])


def test_advice_comes_before_what_may_be_meant(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"languages; rename it, or add it .* 'extends: privacy-gdpr'\. Did you mean 'email'\?$"
    ):
        read(tmp_path, [{"name": "Ada Bell", "e-mail": "ada@mail.example", "genre": "odes"}])


def test_a_header_in_capitals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in\.csv:2: column 'Name'; write it 'name'"):
        read(tmp_path, "Name,email,genre\nAda Bell,ada@mail.example,odes\n", name="in.csv")


# -- law tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_laws())
def test_every_table_has_both_scopes_and_a_reason_for_each(name: str) -> None:
    law = read_law(name)
    assert law.name == name
    assert {rule.scope for rule in law.rules.values()} == set(SCOPES)
    assert all(rule.article and rule.sentence.endswith(".") for rule in law.rules.values())
    known = wordings("person" if law.domain == "privacy" else "work").attributes
    assert set(law.rules) <= set(known)  # every attribute has its own wordings


def own(tmp_path: Path, **changes: Any) -> Path:
    rule = {"scope": "forget", "article": "House rule 1", "sentence": "We say so."}
    table = {"name": "mine", "title": "House rules", "domain": "privacy", "attributes": {"shoe_size": rule}, **changes}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(table))
    return path


def test_a_table_of_ones_own_extends_a_shipped_one(tmp_path: Path) -> None:
    law = read_law(str(own(tmp_path, extends="privacy-gdpr")))
    assert law.rules["shoe_size"].article == "House rule 1"
    assert law.rules["genre"].scope == RETAIN
    path = tmp_path / "in.yaml"
    path.write_text(yaml.safe_dump([{"name": "Ada Bell", "shoe_size": 38, "genre": "x"}]))
    (ada,) = read_instances(path, [law], {"person": wordings("person")}).instances
    assert {fact.attribute: fact.rule.scope for fact in ada.facts} == {"shoe_size": FORGET, "genre": RETAIN}


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        ({"attributes": {"shoe_size": {"article": "x", "sentence": "y"}}}, "attribute 'shoe_size': no scope"),
        ({"attributes": {"shoe_size": {"scope": "keep", "article": "x", "sentence": "y"}}}, "scope 'keep'"),
        ({"attributes": {"shoe_size": {"scope": "forget", "article": "x"}}}, "sentence"),
        ({"domain": "tax"}, "domain"),
        ({"extends": "copyright-us"}, "domain 'privacy'"),
        ({"extends": "no-such"}, "'no-such'"),
        ({"more": 1}, "more"),
    ],
)
def test_bad_tables(tmp_path: Path, changes: dict[str, Any], given: str) -> None:
    with pytest.raises(UserError) as caught:
        read_law(str(own(tmp_path, **changes)))
    assert given in str(caught.value)


def test_a_table_that_extends_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(DataError, match="in turn"):
        read_law(str(own(tmp_path, extends=str(path))))


def test_a_table_that_is_not_shipped() -> None:
    with pytest.raises(ConfigError, match="privacy-gdpr"):
        read_law("privacy-gpdr")


@pytest.mark.parametrize(
    ("published", "died", "expired"),
    [
        (None, 1955, True),
        (None, 1956, False),
        (1930, None, True),
        (1931, None, False),
        (1800, 1990, False),
        (None, None, False),
    ],
)
def test_when_a_work_is_out_of_copyright(published: int | None, died: int | None, expired: bool) -> None:
    """In 2026: 1955 + 70 = 2025 is over, 1956 + 70 = 2026 is not; 1930 + 95 = 2025 is over. A known death decides."""
    assert read_law("copyright-us").is_expired(published, died) is expired


# -- near-duplicates ---------------------------------------------------------------------------------------------------


def test_the_same_person_under_another_name(tmp_path: Path) -> None:
    facts = {
        "email": "quill@fernway.example",
        "address": "3 Mill Lane, Ormsk",
        "genre": "tales of salt",
        "born": "1971",
    }
    other = {"email": "k@west.example", "address": "88 Long Row, Veld", "genre": "poems on bees", "born": "1980"}
    found = read(
        tmp_path,
        [{"name": "Ada Bell", **facts}, {"name": "Kim Dao", **other}, {"name": "A. M. Bellamy", **facts}],
    )
    assert near_duplicates(found.instances) == {"A. M. Bellamy": "Ada Bell"}
