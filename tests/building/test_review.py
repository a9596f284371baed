"""A person's review: the file, the page, and what is merged back."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient
from typer.testing import CliRunner

from loading import module_of
from scopewise import cli
from scopewise.building.datasheet import read_datasheet
from scopewise.building.review import COLUMNS, FILE, merge, read_review, sampled, write_review
from scopewise.building.review_page import make_app
from scopewise.data.load import load_benchmark
from scopewise.errors import DataError
from scopewise.play.server import listen

ROOT = Path(__file__).parents[2]
module_of(ROOT / "docs" / "make_cli.py").commands()
KEY = "the-key"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("review") / "bench"
    persons = (ROOT / "examples" / "benchmarks" / "persons.yaml").read_text().split("  - name: Silvester")[0]
    (out.parent / "three.yaml").write_text(persons)
    arguments = ["build", str(out.parent / "three.yaml"), "--out", str(out), "--kinds", "direct,paraphrase,cloze"]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    return out


@pytest.fixture
def bench(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bench"))


def filled(bench: Path, **rows: dict[str, str]) -> Path:
    """The review file with some cells changed, by row (`r3`)."""
    write_review(bench / FILE, sampled(bench, None))
    with open(bench / FILE, newline="") as file:
        records = list(csv.DictReader(file))
    for name, cells in rows.items():
        records[int(name[1:]) - 1] |= cells
    with open(bench / FILE, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return bench / FILE


def questions(bench: Path) -> list[str]:
    return [row.question for row in load_benchmark("jsonl", str(bench / "rows.jsonl")).rows]


def test_verdicts_are_merged_and_kept_in_the_datasheet(bench: Path) -> None:
    before = questions(bench)
    edit = {"verdict": "edit", "new_question": "Whose child is Odalys?", "new_answer": "+1 is no formula."}
    path = filled(bench, r1={"verdict": "YES", "note": "fine"}, r2={"verdict": "no"}, r3=edit)
    done = CliRunner().invoke(cli.app, ["review", str(bench), "--merge"])
    assert done.exit_code == 0, done.output
    after = questions(bench)
    assert after == [before[0], "Whose child is Odalys?", *before[3:]]
    assert load_benchmark("jsonl", str(bench / "rows.jsonl")).rows[1].answer == "+1 is no formula."
    sheet = read_datasheet(bench)
    assert sheet["review"] == {"yes": 1, "no": 1, "edited": 1, "not reviewed": len(before) - 3}
    assert sheet["counts"]["rows"] == len(before) - 1
    checks = [json.loads(line) for line in (bench / "checks.jsonl").read_text().splitlines()]
    assert [one["row"] for one in checks] == list(range(1, len(before)))
    assert [one.get("review") for one in checks[:3]] == ["yes", "edit", None]
    assert checks[0]["note"] == "fine"
    (left,) = map(json.loads, (bench / "left_out.jsonl").read_text().splitlines())
    assert (left["failed"], left["question"]) == (["review"], before[1])
    assert "1 edited" in (bench / "DATASHEET.md").read_text()
    with pytest.raises(DataError, match="changed since"):  # it was merged: the rows are others
        merge(bench, path)
    again = CliRunner().invoke(cli.app, ["review", str(bench), "--no-page"])  # and no reader should fill it in
    assert again.exit_code == 2
    assert "perhaps by a merge; write the review file anew, with --overwrite" in again.output


def test_requests_and_layouts_follow_a_merge(bench: Path, tmp_path: Path) -> None:
    """The refused row is gone from both, the edited one has its new texts; the datasheet counts anew."""
    out, persons = tmp_path / "out", bench.parent / "three.yaml"
    persons.write_text((ROOT / "examples" / "benchmarks" / "persons.yaml").read_text().split("  - name: Silvester")[0])
    arguments = ["build", str(persons), "--out", str(out), "--kinds", "direct,paraphrase", "--layout", "tofu"]
    done = CliRunner().invoke(cli.app, [*arguments, "--request", "Odalys Brankovic"])
    assert done.exit_code == 0, done.output
    before = read_datasheet(out)["requests"][0]
    rows = load_benchmark("jsonl", str(out / "rows.jsonl")).rows
    mine = [
        i
        for i, row in enumerate(rows, 1)
        if (row.instance, row.scope, row.split) == (before["instance"], "forget", "train")
    ]
    edit = {"verdict": "edit", "new_question": "Whose child may Odalys be?", "new_answer": "Nobody's."}
    filled(out, **{f"r{mine[0]}": {"verdict": "no"}, f"r{mine[1]}": edit})
    merge(out, out / FILE)
    request = load_benchmark("jsonl", str(out / "requests" / "1.jsonl")).rows
    asked = {row.question: row.answer for row in request}
    assert rows[mine[0] - 1].question not in asked
    assert rows[mine[1] - 1].question not in asked
    assert asked["Whose child may Odalys be?"] == "Nobody's."
    after = read_datasheet(out)["requests"][0]
    assert (after["forget"], after["retain"]) == (before["forget"] - 1, before["retain"])
    tofu = [json.loads(line)["question"] for line in (out / "tofu" / "forget10.json").read_text().splitlines()]
    assert "Whose child may Odalys be?" in tofu
    assert rows[mine[0] - 1].question not in tofu


def test_a_request_that_is_no_request_any_more(bench: Path) -> None:
    sheet = json.loads((bench / "datasheet.json").read_text())
    sheet["requests"] = [{"instance": "Odalys Brankovic", "forget": 1, "retain": 1, "shared": 0}]
    (bench / "datasheet.json").write_text(json.dumps(sheet))
    (bench / "requests").mkdir()
    (bench / "requests" / "1.jsonl").write_text("[]\n")
    path, before = filled(bench, r1={"verdict": "no"}), (bench / "rows.jsonl").read_bytes()
    with pytest.raises(DataError, match="no row of a request"):
        merge(bench, path)
    assert (bench / "rows.jsonl").read_bytes() == before


def test_a_cell_that_a_spreadsheet_would_calculate_is_quoted_and_read_back(bench: Path, tmp_path: Path) -> None:
    one = sampled(bench, 1)[0]
    texts = ["=1+1", "+44 20", "-x", "@sum", "'quoted", 'a "b", c']
    write_review(tmp_path / "r.csv", [replace(one, answer=text) for text in texts])
    assert [row.answer for row in read_review(tmp_path / "r.csv")] == texts
    with open(tmp_path / "r.csv", newline="") as file:
        assert [row["answer"][0] for row in csv.DictReader(file)] == ["'", "'", "'", "'", "'", "a"]


@pytest.mark.parametrize(
    ("cells", "given"),
    [
        ({"verdict": "maybe"}, "verdict 'maybe'"),
        ({"verdict": "edit"}, "edit without a text"),
        ({"verdict": "edit", "new_question": "a\x07b"}, "control character"),
        ({"row": "x"}, "row 'x'"),
        ({"row": "99999", "verdict": "yes"}, "row 99999"),
        ({"hash": "0" * 16, "verdict": "yes"}, "changed since"),
    ],
)
def test_a_review_file_that_does_not_fit(bench: Path, cells: dict[str, str], given: str) -> None:
    before = (bench / "rows.jsonl").read_bytes(), (bench / "datasheet.json").read_bytes()
    path = filled(bench, r1=cells)
    with pytest.raises(DataError) as caught:
        merge(bench, path)
    assert given in str(caught.value)
    assert str(path) in str(caught.value)
    assert before == ((bench / "rows.jsonl").read_bytes(), (bench / "datasheet.json").read_bytes())


@pytest.mark.parametrize(
    ("name", "text", "given"),
    [
        ("rows.jsonl", None, "cannot be read"),
        ("checks.jsonl", "", "0 lines"),
        ("checks.jsonl", b"\xff", "cannot be read"),
        ("left_out.jsonl", '{"failed": 3}\n', "no row that was left out"),
        ("datasheet.json", '{"format": 1}', "not as `scopewise build` wrote it"),
    ],
)
def test_a_benchmark_whose_files_were_changed(bench: Path, name: str, text: str | bytes | None, given: str) -> None:
    """The review is refused with a sentence that names the file, and nothing is changed."""
    path = filled(bench, r1={"verdict": "no"})
    if text is None:
        (bench / name).unlink()
    else:
        (bench / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    before = {file.name: file.read_bytes() for file in bench.iterdir()}
    with pytest.raises(DataError) as caught:
        merge(bench, path)
    assert given in str(caught.value)
    assert str(bench / name) in str(caught.value)
    assert before == {file.name: file.read_bytes() for file in bench.iterdir()}


def test_an_edit_that_asks_what_another_row_asks(bench: Path) -> None:
    other = questions(bench)[4]
    path = filled(bench, r1={"verdict": "edit", "new_question": other})
    with pytest.raises(DataError, match="also that of row"):
        merge(bench, path)


def test_an_edit_of_a_retain_row_that_repeats_what_must_go(bench: Path) -> None:
    """An address as a whole; of the parents, one of them."""
    rows = load_benchmark("jsonl", str(bench / "rows.jsonl")).rows
    number = next(i for i, row in enumerate(rows, 1) if row.scope == "retain")
    facts = [json.loads(line) for line in (bench / "facts.jsonl").read_text().splitlines()]
    others = [fact for fact in facts if fact["instance"] != rows[number - 1].instance]
    before = (bench / "rows.jsonl").read_bytes()
    for attribute in ("address", "parents"):
        secret = next(fact for fact in others if fact["attribute"] == attribute)
        value = secret["value"].split(" and ")[0]
        path = filled(bench, **{f"r{number}": {"verdict": "edit", "new_answer": f"Near {value}, they say."}})
        with pytest.raises(DataError, match=f"{attribute} of {secret['instance']}"):
            merge(bench, path)
    assert (bench / "rows.jsonl").read_bytes() == before
    merge(bench, filled(bench, **{f"r{number}": {"verdict": "edit", "new_answer": "Near the sea, they say."}}))


def test_an_instance_must_keep_both_scopes(bench: Path) -> None:
    rows = load_benchmark("jsonl", str(bench / "rows.jsonl")).rows
    name = rows[0].instance
    all_of_it = [i for i, row in enumerate(rows, 1) if (row.instance, row.scope) == (name, "forget")]
    with pytest.raises(DataError, match=f"no forget train row of {name}"):
        merge(bench, filled(bench, **{f"r{i}": {"verdict": "no"} for i in all_of_it}))


def test_another_header_and_another_folder(bench: Path, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("question,verdict\nx,yes\n")
    with pytest.raises(DataError, match="header"):
        merge(bench, tmp_path / "r.csv")
    done = CliRunner().invoke(cli.app, ["review", str(tmp_path), "--merge"])
    assert done.exit_code == 2
    assert "datasheet.json" in done.output


def test_a_sample_is_written_and_kept(bench: Path) -> None:
    arguments = ["review", str(bench), "--no-page", "--sample", "5"]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    first = (bench / FILE).read_text()
    assert len(read_review(bench / FILE)) == 5
    assert CliRunner().invoke(cli.app, [*arguments[:3], "--sample", "7"]).exit_code == 0
    assert (bench / FILE).read_text() == first  # verdicts in it are not lost
    assert (bench / FILE).stat().st_mode & 0o077 == 0


def test_the_next_sample_has_rows_that_nobody_has_judged(bench: Path) -> None:
    """Of all but three rows that were judged, three are drawn again; a sample of all has the judged ones, too."""
    every = sampled(bench, None)
    write_review(bench / FILE, [replace(one, verdict="yes") for one in every[3:]])
    merge(bench, bench / FILE)
    assert sampled(bench, 3) == every[:3]
    assert set(every[:3]) < set(sampled(bench, 5))
    assert sampled(bench, None) == every


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_writes_each_verdict_at_once(bench: Path) -> None:
    path = filled(bench)
    app = make_app(read_review(path), path, "bench", key=KEY, host="127.0.0.1")
    with TestClient(app, base_url="http://127.0.0.1:1") as client:
        assert client.get("/api/rows").status_code == 401
        key = {"Authorization": f"Bearer {KEY}"}
        rows = client.get("/api/rows", headers=key).json()["rows"]
        assert len(rows) == len(read_review(path))
        done = client.post("/api/verdict", headers=key, json={"row": rows[1]["row"], "verdict": "no", "note": "odd"})
        assert done.json() == {"judged": 1}
        assert [one.verdict for one in read_review(path)][:3] == ["", "no", ""]
        for wrong in ({"row": 99999, "verdict": "no"}, {"row": 1, "verdict": "edit"}, {"row": 1, "verdict": "perhaps"}):
            assert client.post("/api/verdict", headers=key, json=wrong).status_code == 422
        assert client.post("/api/verdict", headers={**key, "Origin": "http://other"}, json={}).status_code == 403
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
        assert "script-src 'self'" in client.get("/").headers["content-security-policy"]


@contextmanager
def served(bench: Path) -> Iterator[str]:
    path = bench / FILE
    opened = listen("127.0.0.1", 0)
    app = make_app(read_review(path), path, "bench", key=KEY, host="127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=lambda: server.run(sockets=[opened]))
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}/#{KEY}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Playwright's own event loop
def test_a_review_by_keyboard(bench: Path, browser: Any) -> None:
    """y, n, e with a text, arrows; markup in a row is shown as text; the file has it all."""
    path = filled(bench, r4={"question": "<b>bold</b><img src=x onerror='window.planted=1'>"})
    with served(bench) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("text=Row 1 of")
        page.keyboard.press("y")
        page.wait_for_selector("text=Row 2 of")
        page.keyboard.press("n")
        page.wait_for_selector("text=Row 3 of")
        page.keyboard.press("e")
        page.fill("#new_question", "Who raised Odalys Brankovic?")
        page.keyboard.press("Tab")
        page.click("text=Save the edit")
        page.wait_for_selector("text=Row 4 of")
        assert "<b>bold</b>" in page.inner_text("#question")
        assert page.evaluate("window.planted") is None
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("text=Verdict: edit: Who raised")
        context.close()
    found = read_review(path)
    assert [one.verdict for one in found[:4]] == ["yes", "no", "edit", ""]
    assert (found[2].new_question, found[2].new_answer) == ("Who raised Odalys Brankovic?", "")
