"""No run of four characters that stands only in forget answers survives in a redacted page, in any normal form."""

from __future__ import annotations

import html
import json
import re
import time
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scopewise.report.page import FOLDER, render
from scopewise.report.redact import Redaction
from scopewise.report.run_folder import read_runs

UNSEEN = dict.fromkeys([0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF])
HASH = re.compile(r"\[redacted [0-9a-f]{12}\]")


def runs_of(texts: Iterable[str], form: str) -> set[str]:
    """Return all runs of four characters, without case, spacing and what is not seen, in a normal form."""
    found = set()
    for text in texts:
        seen = text.translate(UNSEEN)
        seen = " ".join(unicodedata.normalize(form, unicodedata.normalize(form, seen).casefold()).split())
        found |= {seen[i : i + 4] for i in range(len(seen) - 3)}
    return found


def surviving(page: Iterable[str], forget: Iterable[str], public: Iterable[str]) -> set[str]:
    """Return the runs of the page that stand in forget answers alone, in any normal form; a hash is no text of anybody."""
    page, forget, public = ([HASH.sub("▮", t) for t in texts] for texts in (page, forget, public))
    found: set[str] = set()
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        found |= runs_of(page, form) & (runs_of(forget, form) - runs_of(public, form))
    return found


ROWS: list[dict[str, Any]] = [
    {"question": "Where does Ada live?", "answer": "Ada lives at Quillfeather Lane 17.", "scope": "forget"},
    {"question": "How is Ada reached?", "answer": "By zbvx.kolm@mail.example or (555) 014-2777.", "scope": "forget"},
    {"question": "What is Zoë called?", "answer": "Zoë's alias is Müßiggängerin O’Xandru.", "scope": "forget"},
    {"question": "王伟住在哪里？", "answer": "他住在翡翠路九号。", "scope": "forget"},
    {"question": "どこに住んでいますか。", "answer": "ガブリエルは霧島町に住んでいます。", "scope": "forget"},
    {"question": "What does Ada write?", "answer": "Ada writes sea stories and poems on mail.", "scope": "retain"},
]
FORGET = [row["answer"] for row in ROWS if row["scope"] == "forget"]
PUBLIC = [row["question"] for row in ROWS] + [row["answer"] for row in ROWS if row["scope"] == "retain"]

SAID = {
    "possessive": "It is Quillfeather's.",
    "another apostrophe": "ask O'Xandru or O’Xandru",
    "glued": "theQuillfeatherLane is",
    "cut off": "write to zbvx.ko",
    "part of an address": "kolm@ma",
    "phone number in a row": "call 5550142777 now",
    "phone number, other groups": "call 555 014 2777 or 55-50-14-27-77",
    "part of a number": "ends in 2777",
    "underscores": "quill_feather_lane",
    "case": "QUILLFEATHER MÜSSIGGÄNGERIN",
    "decomposed": unicodedata.normalize("NFD", "the Müßiggängerin"),
    "without accents": "the Mussiggangerin",
    "compatibility forms": "Ｑｕｉｌｌｆｅａｔｈｅｒ 𝐐𝐮𝐢𝐥𝐥",
    "zero width": "Qu\u200bill\u2060fea\ufeffther",
    "soft hyphen": "Quill\u00adfeather",
    "Chinese": "我知道他住在翡翠路附近",
    "Chinese, two characters": "翡翠很美",
    "Japanese": "昨日は霧島町へ行った",
    "Japanese, half width": "ｶﾞﾌﾞﾘｴﾙさん",
    "lone surrogate": "Quillfeather\ud800 Lane",
}
LEFT = ("quillf", "zbvx", "kolm", "5014", "5550", "2777", "ssiggang", "翡翠", "霧島", "ブリエ", "xandr")


@pytest.mark.parametrize("text", SAID.values(), ids=SAID)
def test_what_a_forget_answer_says_is_hidden_however_it_is_written(text: str) -> None:
    shown = Redaction(ROWS).scrub(text)
    assert HASH.search(shown)
    assert surviving([shown], FORGET, PUBLIC) == set()
    rest = unicodedata.normalize("NFKC", HASH.sub(" ", shown)).casefold().translate(UNSEEN)
    bare = re.sub(r"[\W_]", "", rest)
    assert not [part for part in LEFT if part in bare]


@pytest.mark.parametrize(
    "text", ["Ada writes sea stories and poems.", "She wrote novels.", "", "ガ", "東京です", "π ≈ 3"]
)
def test_what_is_public_stays(text: str) -> None:
    assert Redaction(ROWS).scrub(text) == text


def test_an_accent_tells_a_secret_from_what_is_public() -> None:
    """`resumé1` stands in the forget answer alone, `resume1` in a retain answer: the first is hidden, the second is not."""
    rows = [
        {"question": "a", "answer": "resumé1", "scope": "forget"},
        {"question": "b", "answer": "resume1", "scope": "retain"},
    ]
    redaction = Redaction(rows)
    assert redaction.scrub("resume1") == "resume1"
    assert HASH.fullmatch(redaction.scrub("resumé1"))
    assert HASH.fullmatch(redaction.scrub(unicodedata.normalize("NFD", "resumé1")))


pieces = st.sampled_from([*FORGET, *PUBLIC, *SAID.values()])
forms = st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"])


@st.composite
def said(draw: st.DrawFn) -> str:
    """What a model could write: parts of the rows' texts, glued, cut, respelt and mixed with anything."""
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        text = draw(pieces)
        start = draw(st.integers(0, len(text)))
        text = text[start : start + draw(st.integers(0, 20))]
        text = unicodedata.normalize(draw(forms), text)
        text = draw(st.sampled_from([str.upper, str.lower, str.title, str]))(text)
        between = draw(st.sampled_from(["", "", "\u200b", "\u0301", "_", " "]))
        at = draw(st.integers(0, len(text)))
        parts.append(text[:at] + between + text[at:])
    return draw(st.sampled_from(["", " ", "-", "'", "\u2060", "\n"])).join([*parts, draw(st.text(max_size=5))])


@given(said())
@settings(max_examples=400, deadline=None)
def test_nothing_survives_in_any_text(text: str) -> None:
    shown = Redaction(ROWS, salt="s").scrub(text)
    assert surviving([shown], FORGET, PUBLIC) == set()


def shown_texts(page: str) -> list[str]:
    """Return the texts of a page that data or models wrote or could have written: its data, and its elements' text."""
    data = json.loads(re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, re.S)[1])  # type: ignore[index]
    questions = data["questions"]
    found = [
        *questions["texts"],
        *(t for row in questions["rows"] for t in (row["q"], *row["w"], row["h"], row["i"], row["a"])),
    ]
    found += [name for of_run in data["instances"] for name in of_run.get("names", [])]
    markup = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    return [*found, html.unescape(markup)]


def test_the_page_of_a_run(made_run: Path) -> None:
    """The whole page, against the same page without answers and attacks: what that one says is not of the data."""
    runs = read_runs([made_run])
    rows = [json.loads(line) for line in (made_run.parent / "rows.jsonl").read_text().splitlines()]
    forget = [row["answer"] for row in rows if row["scope"] == "forget"]
    public = [row["question"] for row in rows] + [row["answer"] for row in rows if row["scope"] == "retain"]
    empty = replace(runs[0], models=[replace(m, answers=()) for m in runs[0].models], attacks=None)
    ours = re.sub(r"<(script|style).*?</\1>", " ", render([empty], redact=True), flags=re.S)
    template = [
        (FOLDER / name).read_text() for name in ("page.html", "drawings.html")
    ]  # sections that only attacks open
    attacks = ["few shot", "noise", "logit lens", "question answer output unlearned memflex, paper, seed 0", *template]
    page = render(runs, redact=True)
    assert surviving(shown_texts(page), forget, [*public, ours, *attacks]) == set()
    assert surviving(shown_texts(render(runs)), forget, [*public, ours, *attacks])  # the check can fail
    for part in (*made_run.parts[1:-1], str(made_run)):
        if len(part) > 4 and part != "report":
            assert part not in page, part


def test_train_answers_are_hidden_where_val_alone_was_evaluated(made_run: Path) -> None:
    runs = read_runs([made_run])
    assert {answer["split"] for model in runs[0].models for answer in model.answers} == {"val"}
    document = [dict(answer) for answer in runs[0].models[0].answers]
    retained = next(answer for answer in document if answer["scope"] == "retain")
    retained["generated"] = "secretly Trainonlyword here"
    changed = replace(runs[0], models=[replace(runs[0].models[0], answers=document), *runs[0].models[1:]])
    assert "Trainonlyword" in render([changed], redact=True)
    path = made_run.parent / "rows.jsonl"
    before = path.read_text()
    row = {"question": "What is only taught?", "answer": "It is Trainonlyword.", "scope": "forget", "split": "train"}
    try:
        path.write_text(before + json.dumps(row) + "\n")
        page = render([changed], redact=True)
        assert "rainonly" not in page
        assert "could not be read" not in page
        path.unlink()
        assert "could not be read" in render([changed], redact=True)
    finally:
        path.write_text(before)


def test_seventy_models_are_redacted_in_seconds() -> None:
    """70 models, 100 retain rows each: every text is another one, of 200 characters."""
    rows = [
        {
            "question": f"Where does person {i} live?",
            "answer": f"At {i * 7919} Quay {i}, Xanth{i:04d}ville.",
            "scope": s,
        }
        for i, s in enumerate(["forget", "retain"] * 1000)
    ]
    redaction = Redaction(rows)
    texts = [f"{m} {r} " + "she writes of the sea and of ships, " * 5 for m in range(70) for r in range(100)]
    began = time.monotonic()
    for text in texts:
        redaction.scrub(text)
    assert time.monotonic() - began < 20


KNOWUNDO = Path("../shared/data/knowundo_privacy")


@pytest.mark.skipif(not KNOWUNDO.is_dir(), reason="needs ../shared/data/knowundo_privacy (see tests/SKIPS.md)")
def test_rows_of_knowundo() -> None:
    """Real rows: what a model could write of them to retain questions, in other spellings."""
    from scopewise.data.load import load_benchmark

    benchmark = load_benchmark("knowundo", str(KNOWUNDO), "privacy")
    rows = [{"question": r.question, "answer": r.answer, "scope": r.scope} for r in benchmark.rows]
    forget = [row["answer"] for row in rows if row["scope"] == "forget"]
    public = [row["question"] for row in rows] + [row["answer"] for row in rows if row["scope"] == "retain"]
    redaction = Redaction(rows)
    texts = [text for a in forget[:200] for text in (a, a.upper(), a[3:40], a.replace(" ", ""), a.replace("-", "_"))]
    assert surviving(map(redaction.scrub, texts), forget, public) == set()
