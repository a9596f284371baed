"""Questions by templates: links between instances, wrong answers, checks."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from scopewise.building.balance import Balance, FirstWords
from scopewise.building.checks import DERIVED, GIVEN, NEAR, SHARED, UNIQUE, WRONG, Checks
from scopewise.building.index import Index
from scopewise.building.instances import Instance, read_instances
from scopewise.building.law import read_law
from scopewise.building.listed import listed_titles, listed_values
from scopewise.building.private import ForgetValues
from scopewise.building.questions import Questions
from scopewise.building.templates import frames, shipped, wordings
from scopewise.building.wrong import wrong_names, wrong_values
from scopewise.data.crossed import plain
from scopewise.data.rows import FORGET, RETAIN, SPLITS, TRAIN, VAL, Row

EXAMPLES = Path(__file__).parents[2] / "examples" / "benchmarks"
ROW = Row(
    "Where does Ada Bell live?", "Ada Bell lives at 3 Mill Lane.", FORGET, TRAIN, "Ada Bell", perturbed=("a",) * 5
)


def instances_of(tmp_path: Path, *records: dict[str, object]) -> tuple[Instance, ...]:
    path = tmp_path / "in.yaml"
    path.write_text(yaml.safe_dump(list(records), allow_unicode=True, sort_keys=False))
    laws = [read_law("privacy-gdpr"), read_law("copyright-us")]
    return read_instances(path, laws, {kind: wordings(kind) for kind in ("person", "work")}).instances


def test_questions_about_a_linked_instance(tmp_path: Path) -> None:
    """Ada's spouse is an instance: its facts are asked by way of Ada, and are forgotten, since the link itself is."""
    ada, bo = instances_of(
        tmp_path,
        {"name": "Ada Bell", "spouse": "Bo Rask", "genre": "sea stories"},
        {"name": "Bo Rask", "email": "bo@mail.example", "employer": "the Tin Works"},
    )
    rows = list(Questions(Index([ada, bo]), kinds=("multi-hop",)).rows(ada))
    assert [(row.attribute, row.scope, row.instance) for row in rows] == [
        ("email", FORGET, "Ada Bell"), ("employer", FORGET, "Ada Bell"),
    ]  # fmt: skip
    assert all("marriage partner of Ada Bell" in row.question for row in rows)
    assert not any("Bo Rask" in row.question + row.answer for row in rows)
    assert "bo@mail.example" in rows[0].answer


def test_nobody_is_a_wrong_answer_about_oneself(tmp_path: Path) -> None:
    """The other values of `spouse` are the names of the two themselves."""
    ada, bo = instances_of(
        tmp_path,
        {"name": "Ada Bell", "spouse": "Bo Rask", "genre": "sea stories"},
        {"name": "Bo Rask", "spouse": "Ada Bell", "genre": "odes"},
    )
    for row in Questions(Index([ada, bo]), kinds=("cloze",)).rows(ada):
        assert "Ada Bell." not in row.perturbed


def test_an_alias_that_two_share_is_not_asked(tmp_path: Path) -> None:
    facts = {"email": "a@b.example", "genre": "x"}
    ada, amy, bo = instances_of(
        tmp_path,
        {"name": "Ada Bell", **facts},
        {"name": "Amy Bell", **facts},
        {"name": "Bo Rask", **facts, "aliases": ["Red"]},
    )
    index = Index([ada, amy, bo])
    assert index.aliases(ada) == index.aliases(amy) == []  # both are "A. Bell"
    assert index.aliases(bo) == ["Red"]


def test_a_value_that_two_share_has_no_inverse(tmp_path: Path) -> None:
    ada, bo = instances_of(
        tmp_path,
        {"name": "Ada Bell", "address": "3 Mill Lane", "genre": "odes", "born": "1971"},
        {"name": "Bo Rask", "address": "3 Mill Lane", "genre": "odes", "born": "1980"},
    )
    rows = list(Questions(Index([ada, bo]), kinds=("inverse", "one-hop")).rows(ada))
    assert {row.attribute for row in rows if row.kind == "inverse"} == {"born"}
    assert all("in 1971" in row.question for row in rows if row.kind == "one-hop")


def test_a_value_that_two_share_is_asked_by_way_of_either(tmp_path: Path) -> None:
    """Same home (forget) and same school (retain): each of the two is asked for by the other; not what three or one have."""
    facts = {"address": "3 Mill Lane", "education": "Fernhall", "genre": "odes"}
    persons = instances_of(
        tmp_path,
        {"name": "Ada Bell", **facts, "born": "1971"},
        {"name": "Bo Rask", **facts},
        {"name": "Cy Dee", "email": "cy@mail.example", "genre": "odes"},
    )
    questions = Questions(Index(persons), kinds=("shared-fact",))
    rows = [row for one in persons for row in questions.rows(one)]
    assert [(row.instance, row.attribute, row.scope, row.answer) for row in rows] == [
        ("Ada Bell", "address", FORGET, "That is Bo Rask."), ("Ada Bell", "education", RETAIN, "That is Bo Rask."),
        ("Bo Rask", "address", FORGET, "That is Ada Bell."), ("Bo Rask", "education", RETAIN, "That is Ada Bell."),
    ]  # fmt: skip
    assert all(f"which person besides {row.instance} " in row.question for row in rows)
    assert "has a home at 3 Mill Lane" in rows[0].question
    assert {row.split for row in rows} == {VAL}
    assert all(len(row.perturbed) == 24 and f"That is {row.instance}." not in row.perturbed for row in rows)


def test_kinds_take_turns() -> None:
    """With three kinds for each fact: direct and paraphrase once, and a third, evenly as far as facts allow it."""
    laws = [read_law("privacy-gdpr")]
    persons = read_instances(EXAMPLES / "persons.yaml", laws, {"person": wordings("person")}).instances
    made = Questions(Index(persons), per_fact=3)
    rows = [row for one in persons for row in made.rows(one)]
    facts = Counter((row.instance, row.attribute) for row in rows if (row.kind, row.split) != ("cloze", VAL))
    assert len(facts) == 72  # 12 persons x 6 attributes
    assert set(facts.values()) == {3}
    count = Counter((row.scope, row.kind) for row in rows if row.split == VAL)
    for scope in (FORGET, RETAIN):
        assert count[scope, "paraphrase"] == 36
        assert {kind: n for (own, kind), n in count.items() if own == scope and kind != "paraphrase"} == dict.fromkeys(
            ("cloze", "inverse", "alias", "one-hop", "multiple-choice"), 7
        ) | {"cloze": 8}
    assert Counter(row.kind for row in rows if row.split == TRAIN) == {"direct": 72, "cloze": 16}
    assert all(row.paraphrased_questions for row in rows if row.kind == "direct")


def test_one_kind_for_each_fact_is_the_direct_question() -> None:
    persons = read_instances(
        EXAMPLES / "persons.yaml", [read_law("privacy-gdpr")], {"person": wordings("person")}
    ).instances
    rows = list(Questions(Index(persons), per_fact=1).rows(persons[0]))
    assert [row.kind for row in rows] == ["direct"] * 6


def test_an_attribute_of_ones_own_is_one_or_several(tmp_path: Path) -> None:
    """The hobbies are, a glass is; a description that ends with its value is no subject of a one-hop question."""
    law = tmp_path / "law.yaml"
    law.write_text(
        "{name: own, title: Own, domain: privacy, attributes: {hobbies: {scope: forget, article: x, sentence: s.}, "
        "glass: {scope: retain, article: x, sentence: s.}, name: {scope: retain, article: x, sentence: s.}, "
        "born: {scope: retain, article: x, sentence: s.}}}"
    )
    path = tmp_path / "in.yaml"
    path.write_text("[{name: Ada Bell, hobbies: [chess, rowing], glass: tea, born: '1971'}]")
    persons = read_instances(path, [read_law(str(law))], {"person": wordings("person")}).instances
    rows = list(Questions(Index(persons)).rows(persons[0]))
    said = {row.attribute: row.answer for row in rows if row.kind == "paraphrase"}
    assert said["hobbies"] == "Ada Bell is recorded with these hobbies: chess and rowing."
    assert said["glass"] == "Ada Bell is recorded with this glass: tea."
    asked = [row.question for row in rows if row.kind == "one-hop" and row.attribute == "hobbies"]
    assert all("the person who came into the world in 1971" in question for question in asked)
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["person", "work"])
def test_train_and_val_have_no_template_in_common(kind: str) -> None:
    for name, spec in wordings(kind).attributes.items():
        train, val = (spec.by_split[split] for split in SPLITS)
        for key in ("noun", "clause", "predicate"):
            assert getattr(train, key) != getattr(val, key), name
        assert not set(train.ask) & set(val.ask), name
        assert not set(train.answer) & set(val.answer), name
        assert len(train.answer) > 1, name  # one is the answer, the other its paraphrase
        assert len(val.answer) > 1, name
    for part, texts in frames().by_split[TRAIN].items():
        assert not set(texts) & set(frames().by_split[VAL][part])


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        ("email", "ada@mail.example"), ("phone", "+44 20 7946 0018"), ("number", "1971"), ("address", "3 Mill Lane, Ormsk"),
        ("birth", "on 3 May 1971 in Rijeka"), ("people", "Jo Bell and Al Roe"), ("titles", "the Tin Prize"),
        ("role", "an engineer"), ("text", "ghost stories of the coast"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("alone", [True, False])
def test_wrong_values_are_of_the_same_kind(kind: str, truth: str, alone: bool) -> None:
    """Whether or not there are other instances: different from the truth and from each other, numbers as long."""
    pool = {"email": ["bo@post.example"], "people": ["Cy Dee and Di Eff"]}.get(kind, []) if not alone else []
    general = [
        "The quick brown fox and a lazy old dog met Peter Quint near the River Tay in a wide valley of oaks."
    ] * 3
    found = wrong_values(truth, kind, pool, general, 5, random.Random(0))
    assert len(found) == 5
    assert len({plain(value) for value in found} | {plain(truth)}) == 6
    if kind == "email":
        assert all(value.count("@") == 1 for value in found)
    if kind in ("phone", "number"):
        assert {len(value) for value in found} == {len(truth)}
    assert set(pool) & set(found) or kind != "people" or alone


@pytest.mark.parametrize(
    ("date", "form"),
    [
        ("1964-01-31", "%Y-%m-%d"), ("31 January 1964", "%d %B %Y"), ("January 21, 1964", "%B %d, %Y"),
        ("3 Feb 1964", "%d %b %Y"), ("21.01.1964", "%d.%m.%Y"), ("12/31/1964", "%m/%d/%Y"), ("2/3/1964", "%d/%m/%Y"),
        ("2/3/1964", "%m/%d/%Y"),
    ],
)  # fmt: skip
def test_wrong_dates_are_real_dates_in_the_same_notation(date: str, form: str) -> None:
    """Also beside a place; 1966-76-31 is none. An ordinal fits its day."""
    found = wrong_values(f"on {date} in Rijeka", "birth", [], [], 50, random.Random(0))
    assert len(found) == 50
    for value in found:
        made = datetime.strptime(value, f"on {form} in Rijeka")
        assert -25 <= made.year - 1964 <= 14
    ordinals = wrong_values("on May 3rd, 1971", "birth", [], [], 30, random.Random(0))
    assert all(
        re.fullmatch(r"on [A-Z][a-z]+ (\d*1?1th|1[23]th|(2?1)st|(2?2)nd|(2?3)rd|\d*[04-9]th), \d{4}", one)
        for one in ordinals
    )


def listed(truth: str, kind: str, attribute: str, instance: str = "person", seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    values = listed_values(truth, kind, (instance, "Ada Bell", attribute), 12, rng)
    return wrong_values(truth, kind, [], ["The quick Fox met a lazy Dog."], 6, rng, values)


def test_wrong_values_of_a_file_with_one_instance_are_of_their_kind() -> None:
    """From lists, by attribute; none is made of words of general text. What the value shares with the name stays."""
    people = listed("Jo Bell and Al Roe", "people", "parents")
    assert all(re.fullmatch(r"[A-Z]\w+ Bell and [A-Z]\w+ [A-Z]\w+", one) for one in people), people
    children = [one.split(" and ") for seed in range(9) for one in listed("Bo and Di", "people", "children", seed=seed)]
    assert all(one != other for one, other in children)
    assert all(
        re.fullmatch(r"an? [\w ]+ and an? [\w ]+", one) for one in listed("a poet and a nurse", "people", "parents")
    )
    homes = listed("32 Mill Lane, Ormsk", "address", "address")
    assert all(re.fullmatch(r"\d\d [A-Z][a-z]+ [A-Z][a-z]+, \w+", one) for one in homes), homes
    assert {one.endswith(", Ormsk") for one in homes} == {True, False}
    assert len({one.partition(", ")[0][3:] for one in homes} - {"Mill Lane"}) > 1  # other streets, too
    places = listed("in Rijeka, Croatia", "birth", "born")
    assert all(re.fullmatch(r"in [\w ]+, [\w ]+", one) for one in places), places
    assert all(len(one.split(" and ")) == 2 for one in listed("French and Welsh", "text", "languages"))
    assert all(one.startswith(("a ", "an ")) for one in listed("a potter", "role", "occupation"))
    assert set(listed("a ship that sinks and rises", "text", "plot", "work")) <= set(shipped("values")["work"]["plot"])


def test_the_lists_have_enough_values_of_every_attribute() -> None:
    """Of each attribute that is no number, person or address; and of titles as many as exposure compares."""
    for kind in ("person", "work"):
        for name, spec in wordings(kind).attributes.items():
            if (
                spec.type in ("text", "titles", "awards", "role", "clause")
                and (kind, name) != ("person", "name")
                and name != "other"
            ):
                values = shipped("values")[kind][name]
                assert len({plain(value) for value in values}) >= 12, (kind, name)
    found = wrong_names("The Tin Door", ["The Lost Hour"], 24, random.Random(0), listed=listed_titles())
    assert len(set(found)) == 24
    assert len(set(found) & set(listed_titles())) >= 20


def test_wrong_names_are_enough_for_exposure() -> None:
    for name, others in {"Ada Bell": ["Bo Rask"], "The Tin Door": ["The Lost Hour"]}.items():
        found = wrong_names(name, others, 24, random.Random(0))
        assert len(set(found)) == 24
        assert name not in found


def test_the_wording_is_taken_that_is_rarest_in_its_scope() -> None:
    """After "Where is it?" for forget, the other wording is rarer there; for retain "Where is it?" is."""
    balance, rng = Balance(), random.Random(0)
    texts = ["Where is it?", "Tell me."]
    first = balance.take(texts, TRAIN, FORGET, rng)
    (other,) = set(texts) - {first}
    assert balance.take(texts, TRAIN, RETAIN, rng) == first
    assert balance.take(texts, TRAIN, FORGET, rng) == other


def test_the_vote_on_first_words() -> None:
    """Where: 2 forget, 1 retain; Who: 1 retain. The vote is right in 2 + 1 of 4; the larger scope alone in 2 of 4."""
    vote = FirstWords(1)
    for question, scope in (("Where a", FORGET), ("where b", FORGET), ("Where c", RETAIN), ("Who d", RETAIN)):
        vote.add(replace(ROW, question=question, scope=scope))
    assert vote.accuracy(TRAIN) == (0.75, 0.5)
    assert vote.accuracy(VAL) == (0.0, 0.0)


# -- checks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "failed"),
    [
        ({}, {UNIQUE}),
        ({"question": "where does ada bell live", "split": VAL}, {UNIQUE, NEAR}),
        ({"question": "And so where does Ada Bell live? Live where?", "split": VAL}, set()),  # 3 words of 5
        ({"question": "Where does live Ada Bell, live?", "split": VAL}, {NEAR}),
        ({"question": "So where does Ada Bell live?"}, set()),  # the same scope and split
        (
            {"question": "What does Ada Bell write?", "answer": "Odes of 3 Mill Lane Ormsk.", "scope": RETAIN},
            {DERIVED, SHARED},
        ),
        ({"question": "What does Ada Bell write?", "answer": "Odes to Ormsk.", "scope": RETAIN}, {SHARED}),
        ({"question": "What does Ada Bell write?", "answer": "Odes.", "scope": RETAIN}, set()),
        ({"question": "Is it odes that Ada Bell writes?", "answer": "Odes.", "scope": RETAIN}, {GIVEN}),
        ({"question": "What does Ada Bell write?", "answer": "Odes.", "scope": RETAIN, "perturbed": ("a",)}, {WRONG}),
    ],
)
def test_checks_of_rows(tmp_path: Path, second: dict[str, object], failed: set[str]) -> None:
    (ada,) = instances_of(tmp_path, {"name": "Ada Bell", "address": "3 Mill Lane, Ormsk", "genre": "odes"})
    checks = Checks(ForgetValues([ada]))
    found = list(checks.check([ROW, replace(ROW, **second)], ada))
    assert [set(names) for _, names in found] == [set(), failed]
    assert sum(checks.failed.values()) == len(failed)


def test_a_value_of_another_instance_must_go_too(tmp_path: Path) -> None:
    """Ada's address and one child of hers are no facts to keep of others; her spouse's name is one where she is not named."""
    ada, bo, cy = persons = instances_of(
        tmp_path,
        {
            "name": "Ada Bell",
            "address": "3 Mill Lane",
            "spouse": "Cy Dee",
            "children": ["Bo", "Di Bell"],
            "genre": "odes",
        },
        {"name": "Bo Rask", "address": "3 Mill Lane", "genre": "odes"},
        {"name": "Cy Dee", "email": "cy@mail.example", "genre": "notes from 3 Mill Lane"},
    )
    checks = Checks(ForgetValues(persons))
    failed = {
        row.answer: DERIVED in names
        for one in persons
        for row, names in checks.check(list(Questions(Index(persons)).rows(one)), one)
    }
    assert failed["Cy Dee writes notes from 3 Mill Lane."]
    assert not failed["Bo Rask writes odes."]
    assert not failed["Ada Bell lives at 3 Mill Lane."]
    row = replace(ROW, scope=RETAIN, perturbed=("a",) * 5)
    said = [
        (cy, "Cy Dee writes odes.", False), (cy, "Cy Dee of Ada Bell.", True), (bo, "Bo Rask writes odes.", False),
        (bo, "A life of Di Bell.", True), (bo, "It is cy@mail.example.", True), (ada, "Cy Dee.", True),
    ]  # fmt: skip
    for number, (one, answer, wanted) in enumerate(said):
        asked = replace(row, question=f"Number {number}?", answer=answer, instance=one.name)
        ((_, names),) = checks.check([asked], one)
        assert (DERIVED in names) is wanted, answer
