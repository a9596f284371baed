"""What is left of forget answers in a redacted page, looked for by a checker that shares nothing with the redaction."""

from __future__ import annotations

import copy
import json
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scopewise.cli.report import report
from scopewise.data.load import load_benchmark
from scopewise.report.page import FOLDER, render
from scopewise.report.redact import Redaction
from scopewise.report.run_folder import Model, Run, read_runs

REAL = Path(__file__).parents[3] / "shared" / "data" / "knowundo_privacy"
LABEL = "[redacted "


def normal_forms(text: str) -> Iterator[str]:
    """A text as Unicode's four normal forms have it, in one case, with and without what has no width."""
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        for shown in (text, "".join(c for c in text if unicodedata.category(c) != "Cf")):
            yield " ".join(unicodedata.normalize(form, unicodedata.normalize(form, shown).casefold()).split())


def runs_of_four(texts: Iterable[str]) -> list[set[str]]:
    found: list[set[str]] = [set() for _ in range(8)]
    for text in set(texts):
        for runs, shown in zip(found, normal_forms(text), strict=True):
            runs.update(shown[i : i + 4] for i in range(len(shown) - 3))
    return found


class Page(HTMLParser):
    """Every text of a page that is no style and no program: elements, attributes, and what the program is given."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._inside: Mapping[str, str | None] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        shown = ("title", "content", "aria-label", "data-value", "value", "href", "id")
        about = dict(attrs)
        if about.get("http-equiv") != "Content-Security-Policy":
            self.texts += [value for key, value in attrs if key in shown and value]
        self._inside = about if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self.texts.append(data)
        elif self._inside.get("id") == "data":
            document = json.loads(data)
            for cell in document["questions"]["cells"]:
                del cell["words"]  # probabilities
            self.texts += strings(document)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from strings(inner)


def rows_of(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    return [row for run in runs for model in run.models for row in model.answers]


def survivors(html: str, rows: Iterable[Mapping[str, Any]], runs: Sequence[Run]) -> set[str]:
    """Runs of four that forget answers have and nothing public has, and the page has: questions, other answers, and what a
    page of this run says when no row is in it."""
    rows = list(rows)
    without = render([replace(run, attacks=None, models=[replace(m, answers=()) for m in run.models]) for run in runs])
    public = [LABEL, (FOLDER / "page.html").read_text(), *Page(without).texts, *(row["question"] for row in rows)]
    public += [row["answer"] for row in rows if row["scope"] != "forget"]
    secret = runs_of_four(row["answer"] for row in rows if row["scope"] == "forget")
    found = zip(secret, runs_of_four(public), runs_of_four(Page(html).texts), strict=True)
    return {run for mine, theirs, page in found for run in (mine - theirs) & page}


def written_to_retain_rows(runs: Sequence[Run], texts: Sequence[str]) -> list[Run]:
    """The runs with these texts as what models wrote to questions of the retain scope, one after the other."""
    left = list(texts)
    changed = []
    for run in runs:
        models = []
        for model in run.models:
            answers = copy.deepcopy(list(model.answers))
            for answer in answers:
                if answer["scope"] == "retain" and left:
                    answer["generated"] = " | ".join(left[:40])
                    del left[:40]
            models.append(replace(model, answers=answers))
        changed.append(replace(run, models=models))
    assert not left
    return changed


def variants(answer: str) -> list[str]:
    """What a model may make of an answer."""
    words = answer.split()
    found = [answer, answer.upper(), answer.swapcase(), answer[:-3], answer[3:], answer[len(answer) // 3 :]]
    found += ["".join(words), "_".join(words), "-".join(words), "x".join(words), answer.replace("'", "’")]
    found += [unicodedata.normalize(form, answer) for form in ("NFD", "NFKD", "NFKC")]
    found += [
        "\u200b".join(answer),
        "\u00ad".join(answer),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in answer),
    ]
    for word in words:
        found += [f"{word}'s", f"{word}’s", f"the{word}s", f"_{word}_", word[:-2], word[2:], f"{word}\u0301"]
    return found


def test_no_run_that_only_forget_answers_have_is_in_the_page(made_run: Path) -> None:
    runs = read_runs([made_run])
    assert survivors(render(runs), rows_of(runs), runs)  # the checker finds what is there
    assert survivors(render(runs, redact=True), rows_of(runs), runs) == set()


def test_nor_in_any_form_that_a_model_may_give_it(made_run: Path) -> None:
    runs = read_runs([made_run])
    answers = {row["answer"] for row in rows_of(runs) if row["scope"] == "forget"}
    hostile = written_to_retain_rows(runs, [text for answer in sorted(answers) for text in variants(answer)])
    html = render(hostile, redact=True)
    assert survivors(html, rows_of(runs), runs) == set()
    assert "sea stories" in html


ROWS: list[dict[str, Any]] = [
    {"scope": "forget", "question": "Where does Ada live?", "answer": "Ada lives at 17 Quillfeather Lane, Zürich."},
    {
        "scope": "forget",
        "question": "How is Ada reached?",
        "answer": "jane_doe.77@quux-mail.example or +1 (555) 013-9922",
    },
    {"scope": "forget", "question": "What is Ada's other name?", "answer": "Zoë d’Arcy-O'Neill, aged 43; Straße; ﬁnch"},
    {
        "scope": "forget",
        "question": "她住在哪里?",
        "answer": "李小龙住在上海市静安区。電話番号はひみつです。서울특별시",
    },
    {"scope": "forget", "question": "When?", "answer": "1987"},
    {"scope": "forget", "question": "How many?", "answer": "31"},
    {"scope": "retain", "question": "What does Ada write?", "answer": "Ada writes sea stories, at sea, in a lane."},
    {"scope": "retain", "question": "她是谁?", "answer": "她住在海边。"},
]


def left_of(text: str) -> set[str]:
    """Runs of four of forget answers alone in what is left of a text."""
    public = [LABEL, *(r["question"] for r in ROWS), *(r["answer"] for r in ROWS if r["scope"] == "retain")]
    secret = runs_of_four(r["answer"] for r in ROWS if r["scope"] == "forget")
    found = zip(secret, runs_of_four(public), runs_of_four([Redaction(ROWS, "salt").scrub(text)]), strict=True)
    return {run for mine, theirs, page in found for run in (mine - theirs) & page}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Quillfeather's pen", " pen"),
        ("Quillfeather’s pen", " pen"),
        ("the MyQuillfeathery pen", "the  pen"),
        ("Quillf", ""),
        ("uillfe", ""),
        ("my_quillfeather_home sea", " sea"),
        ("Qu\u200bill\u00adfeat\u2060her sea", " sea"),
        ("Zu\u0308rich sea", " sea"),
        ("Zurich sea", " sea"),
        ("zoe writes", " writes"),
        ("ZOE\u0308 writes", " writes"),
        ("D'ARCY writes", " writes"),
        ("jane_do", ""),
        ("write to doe.77@quux", "write to "),
        ("call 013-99 and 0139922", "call  and "),
        ("5550139922", ""),
        ("strasse finch", ""),
        ("我叫李小龙。", "我叫。"),
        ("海在上海", "海"),
        ("31 stories of 1987 and 19", " stories of  and 19"),
        ("131 stories", "131 stories"),  # a number of two digits is hidden as a word alone
        ("Ada writes sea stories", "Ada writes sea stories"),
        ("a lane at sea", "a lane at sea"),
        ("", ""),
    ],
)
def test_what_is_hidden_and_what_stays(text: str, left: str) -> None:
    """By hand, from the rows above; the hashes themselves are left out."""
    assert re.sub(r"\[redacted [0-9a-f]{12}\]", "", Redaction(ROWS, "salt").scrub(text)) == left


ANSWERS = [row["answer"] for row in ROWS if row["scope"] == "forget"]
PUBLIC = [row["answer"] for row in ROWS if row["scope"] == "retain"]
NOTHING = ["", "\u200b", "\u00ad", "\ufeff", "\u2060", "\u200d"]


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """A part of an answer: cut anywhere, glued to other text, in another case and form, with what has no width in it."""
    answer = draw(st.sampled_from(ANSWERS))
    start = draw(st.integers(0, len(answer)))
    part = answer[start : draw(st.integers(start, len(answer)))]
    part = draw(st.sampled_from([str.upper, str.lower, str.title, str.swapcase, str]))(part)
    part = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"])), part)
    part = part.replace("'", draw(st.sampled_from("'’")))
    between = draw(st.lists(st.sampled_from(NOTHING), min_size=len(part), max_size=len(part)))
    part = "".join(c + nothing for c, nothing in zip(part, between, strict=True))
    around = st.sampled_from(["", " ", "x", "_", "the", "'s", "’s", "17", "-", "@", "。", "她", *PUBLIC])
    return draw(around) + part + draw(around)


@settings(max_examples=400, deadline=None)
@given(st.lists(disguised(), min_size=1, max_size=4))
def test_no_disguise_lets_a_run_through(parts: list[str]) -> None:
    assert left_of("".join(parts)) == set()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), disguised())
def test_other_text_does_not_help_it(other: str, part: str) -> None:
    assert left_of(other + part) == set()
    assert left_of(part + other) == set()


def test_a_hash_holds_no_run_of_an_answer() -> None:
    """Answers that have every run of four digits leave no hash with four digits in a row."""
    every = "".join(f"{n:04d} " for n in range(10_000))
    redaction = Redaction([{"scope": "forget", "question": "Which?", "answer": every}], "salt")
    hashes = [redaction.hide(f"text {n}") for n in range(300)]
    assert len(set(hashes)) == 300
    assert not [found for found in hashes if re.search(r"[0-9]{4}", found)]
    assert redaction.hide("text 1") == redaction.hide("  TEXT\u00a0 1 ") == hashes[1]


def test_words_of_train_answers_are_hidden_where_val_alone_was_measured(made_run: Path, tmp_path: Path) -> None:
    """The same run over rows of which one train answer was never asked for."""
    folder, data = tmp_path / "run", tmp_path / "rows.jsonl"
    shutil.copytree(made_run, folder, ignore=shutil.ignore_patterns("*.safetensors", "cache", "attacks.json"))
    unmeasured = {
        "scope": "forget",
        "question": "Which pet has Ada?",
        "answer": "A zorilla, Mephitica.",
        "split": "train",
    }
    data.write_text((made_run.parent / "rows.jsonl").read_text() + json.dumps(unmeasured) + "\n")
    results = json.loads((folder / "results.json").read_text())
    results["config"]["data"]["path"] = str(data)
    results["manifest"]["data_hash"] = load_benchmark("jsonl", str(data)).content_hash()
    (folder / "results.json").write_text(json.dumps(results))
    runs = written_to_retain_rows(read_runs([folder]), ["It likes the Mephitica's den."])
    assert "mephitica" not in render(runs, redact=True).lower()
    assert "It likes the [redacted " in render(runs, redact=True)
    assert "benchmark" not in note_of(render(runs, redact=True))
    # Rows of another state are still kept, and the page says that it cannot know the others.
    data.write_text(data.read_text() + json.dumps({**unmeasured, "question": "And now?", "answer": "None."}) + "\n")
    assert "mephitica" not in render(runs, redact=True).lower()
    assert "have changed since the run" in note_of(render(runs, redact=True))
    data.unlink()
    assert "could not be read again" in note_of(render(runs, redact=True))


def note_of(html: str) -> str:
    return html.partition('<p class="note">Redacted')[2].partition("</p>")[0]


def test_no_local_path_is_in_the_page(made_run: Path, second_run: Path) -> None:
    runs = []
    for run in read_runs([made_run, second_run]):
        results = copy.deepcopy(dict(run.results))
        results["config"]["model"] |= {"path": "/srv/models/private-base", "target": "~eve/checkpoints/target"}
        results["config"]["data"]["general"] = "C:\\Users\\eve\\wiki.txt"
        results["config"].setdefault("bench", {})["cluster"] = {"account": "eve-lab"}
        attacks = {"results": [dict(r) for r in (run.attacks or {}).get("results", [])]}
        for result in attacks["results"]:
            result["notes"] = ["prompts of /home/eve/prompts.yaml, rows of data/eve.jsonl:3"]
        models = [
            replace(model, row={**model.row, "skipped": {"rouge/val": ["2 rows of /home/eve/rows.jsonl"]}})
            for model in run.models
        ]
        runs.append(replace(run, results=results, models=models, attacks=attacks if run.attacks else None))
    for shown in ([runs[0]], runs):
        html = render(shown, redact=True)
        assert "eve" in render(shown)
        texts = "\n".join(Page(html).texts)
        for local in (
            str(made_run),
            made_run.parent.name,
            "eve-lab",
            "/eve",
            "eve.",
            "private-base",
            "checkpoints",
            "wiki.txt",
            "rows.jsonl",
            str(Path.home()) + "/",
        ):
            assert local not in texts, local


@pytest.mark.skipif(not REAL.is_dir(), reason="the released rows are never copied into the project")
def test_real_rows_in_what_made_up_models_wrote(made_run: Path) -> None:
    """KnowUnDo's privacy rows, val measured: models write parts of forget answers of both splits to retain questions."""
    benchmark = load_benchmark("knowundo", str(REAL))
    first = read_runs([made_run])[0]
    config = {**first.results["config"], "data": {"benchmark": "knowundo", "path": str(REAL)}}
    manifest = {**first.results["manifest"], "data_hash": benchmark.content_hash()}
    secret = [row.answer for row in benchmark.select("forget")]
    texts = [text for i, answer in enumerate(secret[::3]) for text in variants(answer)[i % 7 :: 7]]
    models = []
    for number, model in enumerate(first.models[:3]):
        answers = []
        for i, row in enumerate(benchmark.select(split="val")):
            tokens = re.findall(r"\s*\S+", row.answer)
            about = {key: asdict(row)[key] for key in ("question", "answer", "scope", "split", "instance", "attribute")}
            written = row.answer if number == 0 else " ".join(texts[(i * 7 + k) % len(texts)] for k in range(7))
            answers.append({**about, "tokens": tokens, "probabilities": [0.5] * len(tokens), "generated": written})
        models.append(Model(model.row, {}, answers))
    runs = [Run("real", made_run, {**first.results, "config": config, "manifest": manifest}, models, {}, None)]
    rows = [asdict(row) for row in benchmark.rows]
    html = render(runs, redact=True)
    assert note_of(html)
    assert "benchmark" not in note_of(html)
    assert len(survivors(render(runs), rows, runs)) > 1000
    assert survivors(html, rows, runs) == set()
    # What models wrote that says nothing of it is left as it is.
    assert all(row.answer in Page(html).texts for row in benchmark.select("retain", "val"))


def test_answers_of_worst_leaks_are_known_and_no_network_is_asked(
    made_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of a benchmark on the hub: its rows are not read again, and the page says so."""
    run = written_to_retain_rows(read_runs([made_run]), ["He keeps Zibelines and Okapis."])[0]
    leak = {"attack": "noise", "model": "a", "method": "memflex", "leakage": None, "worst": [{"answer": "A zibeline."}]}
    run = replace(run, results={**run.results, "config": {"data": {"benchmark": "tofu"}}}, attacks={"results": [leak]})
    monkeypatch.setattr("scopewise.report.redact.load_benchmark", None)  # to call it would raise TypeError
    html = render([run], redact=True)
    assert "ibeline" in render([run])
    assert "ibeline" not in html
    assert "Okapis" in html
    assert "could not be read again" in note_of(html)


@pytest.mark.parametrize("name", ["builtin", "builtin_full", "world_facts"])
def test_rows_of_the_package_are_read_again(made_run: Path, name: str) -> None:
    run = replace(
        read_runs([made_run])[0], results={**read_runs([made_run])[0].results, "config": {"data": {"benchmark": name}}}
    )
    html = render([run], redact=True)
    assert "could not be read again" not in note_of(html)
    assert "have changed since the run" in note_of(html)


def test_hashes_without_a_salt_do_not_stand_in_the_page(made_run: Path) -> None:
    """Whoever knows all rows but one could try that one out on a hash of them all."""
    run = read_runs([made_run])[0]
    for key in ("data_hash", "config_hash"):
        assert run.results["manifest"][key][:12] in render([run])
        assert run.results["manifest"][key][:12] not in render([run], redact=True)


def test_exports_name_no_folder_with_redaction(made_run: Path, second_run: Path, tmp_path: Path) -> None:
    for redact in (False, True):
        for name in ("table.md", "table.csv", "table.tex", "scatter.svg"):
            path = tmp_path / f"{redact}_{name}"
            report([made_run, second_run], output=path, redact=redact)
            assert bool(re.search(r"\bsecond\b", path.read_text())) is not redact
            assert ("run 2" in path.read_text()) is redact
