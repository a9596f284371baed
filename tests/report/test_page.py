"""The page and the files as text: what is escaped, hidden, refused, and what a command prints."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from forks import python
from scopewise.errors import ConfigError, ResultError
from scopewise.lock import RunLock
from scopewise.report.export import as_csv, as_latex, as_markdown, latex
from scopewise.report.page import render
from scopewise.report.plots import PLOTS, plot
from scopewise.report.run_folder import read_runs

ROOT = Path(__file__).parents[2]


def scopewise(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [python(), "-m", "scopewise", "report", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


class Elements(HTMLParser):
    """Counts elements, and keeps attributes and what stands in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.inside:
            self.inside[self._open].append(data)


def test_a_page_has_no_markup_but_its_own(made_run: Path, planted: str) -> None:
    text = render(read_runs([made_run]))
    assert planted not in text
    found = Elements(text)
    assert [tag for tag, _ in found.tags].count("script") == 2
    assert not {"img", "iframe", "link", "object", "embed", "base"} & {tag for tag, _ in found.tags}
    # Nothing is fetched, and no element carries code or style of its own.
    for tag, attributes in found.tags:
        assert not {"src", "style"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
        assert (attributes.get("href") or "#").startswith("#"), tag


def test_policy_allows_this_script_and_style_alone(made_run: Path) -> None:
    found = Elements(render(read_runs([made_run])))
    policy = next(
        a["content"] for t, a in found.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for directive, text in (("style-src", found.inside["style"][0]), ("script-src", found.inside["script"][1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy


def test_redaction_hides_what_forget_answers_say(made_run: Path, secrets: list[str]) -> None:
    runs = read_runs([made_run])
    plain, redacted = render(runs), render(runs, redact=True)
    for secret in secrets:
        assert secret in plain
        for word in secret.split():
            if word not in ("Lane", "17"):
                assert word.lower() not in redacted.lower()
    # What is kept: questions, answers of the retain scope, and figures.
    assert "Where does Cleo live?" in redacted
    assert "sea stories" in redacted
    assert re.search(r"\[redacted [0-9a-f]{12}\]", redacted)
    # Of what leaked into a retain row, what forget answers alone say is hidden.
    assert "He lives at" in plain
    assert re.search(r"He \[redacted [0-9a-f]{12}\]", redacted)


def test_hashes_agree_where_the_salt_does(made_run: Path) -> None:
    def hashes(salt: str | None) -> list[str]:
        return re.findall(r"\[redacted ([0-9a-f]{12})\]", render(read_runs([made_run]), redact=True, salt=salt))

    assert hashes("a") == hashes("a") != hashes("b")
    assert hashes(None) != hashes(None)


def test_a_folder_of_stages_without_a_bench_is_shown(made_run: Path, tmp_path: Path) -> None:
    """What `finetune` and `unlearn` write: the same documents, no results.json."""
    folder = tmp_path / "stages"
    shutil.copytree(
        made_run, folder, ignore=shutil.ignore_patterns("*.safetensors", "cache", "results.json", "attacks.json")
    )
    run, same = read_runs([folder])[0], read_runs([made_run])[0]
    assert [m.row["method"] for m in run.models] == [m.row["method"] for m in same.models]
    assert [m.row["metrics"] for m in run.models] == [m.row["metrics"] for m in same.models]
    assert run.results["comparisons"][0]["success"] == same.results["comparisons"][0]["success"]
    assert 'id="questions"' in render([run])


def test_an_older_run_without_answers_is_shown_without_questions(made_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(made_run, folder, ignore=shutil.ignore_patterns("*.safetensors", "cache"))
    for path in folder.rglob("*.evaluation.json"):
        document = json.loads(path.read_text())
        del document["answers"]
        path.write_text(json.dumps(document))
    text = render(read_runs([folder]))
    assert 'id="questions"' not in text
    assert "--resume" in text
    assert 'id="table"' in text


def test_a_run_that_is_still_going_on_says_so(made_run: Path, tmp_path: Path) -> None:
    """A process of this host that works on the folder; one that was killed has left its mark, and is none."""
    run = tmp_path / "run"
    shutil.copytree(made_run, run)
    document = json.loads((run / "results.json").read_text())
    (run / "results.partial.json").write_text(json.dumps({**document, "complete": False}))
    (run / "models" / "npo" / "paper" / "seed0.partial").mkdir(parents=True)

    def page() -> str:
        return render(read_runs([run]))

    assert "the bench was stopped" in page()
    with RunLock(run):
        shown = page()
        assert "<b>This run is still going on:</b> stage: models/npo/paper/seed0; begun 20" in shown
        assert "the bench was stopped" not in shown
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mark = {"pid": ended.pid, "host": socket.gethostname(), "command": "scopewise bench", "since": "2026-01-01"}
    (run / ".holder.json").write_text(json.dumps(mark))
    assert "still going on" not in page()


def test_csv_has_a_line_per_method_with_its_interval(made_run: Path) -> None:
    run = read_runs([made_run])[0]
    found = list(csv.DictReader(io.StringIO(as_csv([run]))))
    assert [line["method"] for line in found] == ["target", "oracle", "gradient_ascent", "memflex", "memflex@random"]
    success = next(c for c in run.results["comparisons"] if c["method"] == "memflex")["success"]["unlearn_success"]
    for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
        assert float(found[3][f"unlearn_success/val{end}"]) == pytest.approx(success[key], abs=1e-5)


def test_latex_escapes_and_has_as_many_cells_as_columns(made_run: Path) -> None:
    assert latex(r"a_b & 5 % \{$#~^}") == (r"a\_b \& 5 \% \textbackslash{}\{\$\#\textasciitilde{}\textasciicircum{}\}")
    lines = as_latex(read_runs([made_run])).splitlines()
    columns = lines[1].count("r}") and lines[1].removeprefix(r"\begin{tabular}{l").rstrip("}").count("r")
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 11  # headings, and five methods with their intervals
    assert {row.count(" & ") for row in rows} == {columns}
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert any(line.startswith(r"gradient\_ascent & ") for line in lines)


def test_markdown_has_verdict_and_table(made_run: Path, second_run: Path) -> None:
    text = as_markdown(read_runs([made_run, second_run]))
    assert text.count("comes nearest to the oracle") == 2
    assert "## first" in text
    assert "| memflex@random " in text


@pytest.mark.parametrize("what", PLOTS)
@pytest.mark.parametrize(("file_format", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plots_are_files_of_their_format(what: str, file_format: str, magic: bytes, made_run: Path) -> None:
    runs = read_runs([made_run])
    content = plot(runs, what, file_format)
    assert content.startswith(magic)
    if file_format == "svg":
        assert plot(runs, what, file_format) == content
        assert {"scatter": b"memflex@random", "regions": b"gate_proj", "curves": b"target"}[what] in content


def test_without_matplotlib_plots_are_refused(made_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"png needs matplotlib.*pip install 'scopewise\[report\]'"):
        plot(read_runs([made_run]), "scatter", "png")


def test_command_writes_the_page_once_and_prints_where(made_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    done = scopewise(made_run, "-o", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{path}\n", "")
    before = path.read_bytes()
    again = scopewise(made_run, "-o", path, "--redact")
    assert again.returncode == 2
    assert "exists; add --overwrite" in again.stderr
    assert path.read_bytes() == before
    assert scopewise(made_run, "-o", path, "--redact", "--overwrite").returncode == 0
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{run}", "-o", "x.doc"], "its name ends in none of html"),
        (["{run}", "--salt", "x"], "--salt: given without --redact"),
        (["{run}", "{run}", "-o", "new.html"], "the same folder twice"),
        (["{run}", "{other}"], "name the file to write with -o"),
        (["/nowhere", "-o", "new.html"], "/nowhere: "),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str, made_run: Path, second_run: Path) -> None:
    done = scopewise(*(a.format(run=made_run, other=second_run) for a in arguments))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_broken_attacks_file_is_named(made_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(made_run, folder, ignore=shutil.ignore_patterns("*.safetensors", "cache"))
    (folder / "attacks.json").write_text('{"results": 5}')
    with pytest.raises(ResultError, match="attacks.json: results; "):
        read_runs([folder])


def test_a_report_imports_no_torch(made_run: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom scopewise.cli import main\n"
        f"sys.argv = ['scopewise', 'report', {str(made_run)!r}, '-o', {str(tmp_path / 'p.html')!r}]\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0


def test_intervals_of_a_run_can_be_computed_again_from_its_rows(made_run: Path) -> None:
    """`results.rows.json.gz` has no text, and gives every interval and lead of `results.json`."""
    import gzip

    from scopewise.report.comparison import compared
    from scopewise.report.row_values import FILE, read_row_values

    results = json.loads((made_run / "results.json").read_text())
    found = compared(read_row_values(made_run / FILE))
    assert json.loads(json.dumps(found)) == {key: results[key] for key in found}
    assert found["comparisons"][0]["instances"] == 4
    [lead] = found["leads"]
    assert (lead["reason"], lead["leads"]) == ("few instances", False)
    assert len(lead["rivals"]) == 2
    text = gzip.decompress((made_run / FILE).read_bytes()).decode()
    assert not any(word in text for word in ("Ada", "Cleo", "Quillfeather"))
    assert "at least 5 are needed" in (made_run / "table.md").read_text()


def test_a_run_of_an_earlier_version_gets_its_intervals_from_its_evaluations(made_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(made_run, folder, ignore=shutil.ignore_patterns("*.safetensors", "cache", "*.gz"))
    results = json.loads((folder / "results.json").read_text())
    older = {**results, "format": "scopewise-results/2", "comparisons": [{"method": "memflex"}]}
    (folder / "results.json").write_text(json.dumps(older))
    [run] = read_runs([folder])
    found = run.results
    assert found["comparisons"] == results["comparisons"]
    assert found["leads"] == results["leads"]
