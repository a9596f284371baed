"""Nothing that is printed is a command to the terminal, and nothing shares a line with a progress bar."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from forks import python
from scopewise import terminal
from scopewise.bars import bar
from scopewise.region import Entry, Region

SOURCE = Path(terminal.__file__).parent

# What a terminal obeys, from the standards (C0, DEL, C1 of ECMA-48; bidi and zero width of Unicode), not from categories.
OBEYED = [
    *range(0x09),
    *range(0x0B, 0x20),
    *range(0x7F, 0xA0),
    0x61C,
    0x200B,
    0x200C,
    0x200D,
    0x200E,
    0x200F,
    0x2028,
    0x2029,
]
OBEYED += [*range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF, 0xD800, 0xDFFF]
HOSTILE = "a\x1b[2Jb\x1b]52;c;Zm9v\x07c\x9b31md\u202ee\u200bf\x7fg\u2028h"
"""Clears the screen, writes the clipboard, C1 colour, right-to-left override, zero width, DEL, line separator."""


def raw(text: str) -> list[str]:
    """Return what of a text a terminal obeys; newline is our own layout."""
    return [hex(ord(c)) for c in text if ord(c) in OBEYED]


def scopewise(*words: str, program: str = "", **options: object) -> subprocess.CompletedProcess[str]:
    command = [program or python(), "-m", "scopewise", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("code", OBEYED, ids=hex)
def test_what_a_terminal_obeys_is_shown(code: int) -> None:
    c = chr(code)
    shown = terminal.escaped(f"a{c}b", keep="")
    assert c not in shown
    assert shown.startswith("a\\")
    assert shown.endswith("b")
    named = {"\t": "\\t", "\r": "\\r"}.get(c)
    assert shown[1:-1] == named if named else int(shown[3:-1], 16) == code


def test_text_stays_text() -> None:
    text = "σ ± 1, naïve, 東京, العربية, emoji 🙂, a\\b"
    assert terminal.escaped(text) == text
    assert terminal.escaped("a\n\tb") == "a\n\tb"
    assert terminal.escaped("a\n\tb", keep="") == "a\\n\\tb"


def test_nothing_prints_by_itself() -> None:
    """`print`, `typer.echo`, a rich console, `sys.stdout.write`: none stands in the package but in its printer."""
    found = []
    for path in SOURCE.rglob("*.py"):
        if path.name == "terminal.py" and path.parent == SOURCE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ""
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id if node.func.id in ("print", "secho", "Console", "pprint") else ""
            elif isinstance(node, ast.Attribute):
                whole = ast.unparse(node)
                printers = ("typer.echo", "typer.secho", "click.echo", "rich.print")
                streams = ("sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer", "sys.stderr.buffer")
                name = whole if whole in printers + streams or whole.startswith("sys.__std") else ""
            elif isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                name = "rich.console"
            if name:
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {name}")  # type: ignore[attr-defined]
    assert found == []


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.echo_json({HOSTILE: ["\ud800", HOSTILE]})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert raw(printed) == []
    assert json.loads(printed) == {HOSTILE: ["\ud800", HOSTILE]}


def test_a_narrow_encoding() -> None:
    """What standard output cannot encode is shown as an escape; nothing raises."""
    done = scopewise(
        "list", "methods", program=sys.executable, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    refused = scopewise(
        "check",
        f"--ü{HOSTILE}",
        program=sys.executable,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert refused.returncode == 2
    assert refused.stderr.isascii()
    assert raw(refused.stderr) == []


def hostile_files(folder: Path) -> dict[str, list[str]]:
    """Return command lines whose input is hostile wherever text can stand, by what they try."""
    (folder / "results.json").write_text(json.dumps({"rows": [], HOSTILE: 1}))
    region = Region(HOSTILE, {}, (Entry(f"model.layers.0.{HOSTILE}.weight", 4, True, f"model.layers.0.{HOSTILE}"),))
    region.save(folder / "region.json")
    (folder / "run.yaml").write_text(json.dumps({"data": {HOSTILE: 1}}))
    row = {"question": HOSTILE, "answer": HOSTILE, "scope": HOSTILE}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    named = folder / "a\x1b[2J\u202e\n.yaml"
    named.write_text("data: {benchmark: nothing}")
    data = ["--set", "data.benchmark=jsonl", "--set"]
    return {
        "results": ["show", str(folder / "results.json")],
        "region": ["show", str(folder / "region.json")],
        "run file": ["show", str(folder / "run.yaml")],
        "name of a file": ["show", str(named)],
        "a file that is not there": ["show", f"{folder}/{HOSTILE}"],
        "rows": ["check", *data, f"data.path={folder / 'rows.jsonl'}"],
        "path of rows": ["check", *data, f"data.path={folder}/x\x1b[2J.jsonl"],
        "setting": ["check", "--set", f"{HOSTILE}=1"],
        "value": ["check", "--set", f"unlearn.method={HOSTILE}"],
        "option": ["check", f"--{HOSTILE}"],
        "argument": ["list", HOSTILE],
        "command": [HOSTILE],
        "too many": ["check", "a", HOSTILE],
    }


def test_hostile_input_is_shown(tmp_path: Path) -> None:
    """Thirteen places where a user's or a data set's text reaches the terminal; none does anything there."""
    for what, words in hostile_files(tmp_path).items():
        done = scopewise(*words, cwd=tmp_path)
        assert raw(done.stdout + done.stderr) == [], what
        assert "Traceback" not in done.stderr, what
        if done.returncode:
            assert done.returncode == 2, (what, done.stderr)
            if done.stderr.startswith("scopewise: "):
                assert len(done.stderr.strip().splitlines()) == 1, (what, done.stderr)
        if what == "region":
            assert done.returncode == 0, done.stderr
            assert "\\x1b]52" in done.stdout


LIBRARY = """
import logging, sys, warnings
from scopewise import terminal
terminal.escape_streams()
text = {text!r}
logging.getLogger("scopewise").warning(text)
logging.getLogger("elsewhere").error(text)
warnings.warn(text)
print(text)
print(text, file=sys.stderr)
raise RuntimeError(text)
"""


def test_a_library_s_text_is_shown() -> None:
    """Log records, warnings, prints and the traceback of a fault pass the same printer."""
    code = LIBRARY.format(text=HOSTILE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 1
    assert raw(done.stdout + done.stderr) == []
    assert done.stdout.count("\\x1b]52") == 1
    assert done.stderr.count("\\x1b]52") == 5  # two records, a warning, a print, a traceback


BARS = """
import logging, sys, time
from scopewise import terminal
from scopewise.bars import bar
terminal.escape_streams()
outer = bar(10, "outer \\x1b[2J", "step")
inner = bar(5, "inner")
outer.update(3); inner.update(1)
terminal.echo("SENTENCE-1", err=True)
print("SENTENCE-2", file=sys.stderr)
logging.getLogger("scopewise").warning("SENTENCE-3")
terminal.echo("SENTENCE-4")
sys.stdout.flush()
terminal.close_bars()
terminal.echo("SENTENCE-5", err=True)
"""


def screen(output: str, width: int = 200) -> list[str]:
    r"""Return the lines a terminal shows: `\r` goes to the begin of a line, ESC [ A up, text overwrites what was there."""
    lines, row, column = [""], 0, 0
    i = 0
    while i < len(output):
        if output.startswith("\x1b[A", i):
            row, i = row - 1, i + 3
            continue
        c = output[i]
        i += 1
        assert c != "\x1b", output[i : i + 20]
        if c == "\r":
            column = 0
        elif c == "\n":  # the pty writes \r\n
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + c + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def on_a_terminal(code: str) -> str:
    """Return what a program writes to a terminal of its own."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 120))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=follower, stderr=follower, stdin=follower)
    os.close(follower)
    output = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # Linux: the other side is closed
            break
        if not block:
            break
        output += block
    assert process.wait(60) == 0, output
    os.close(leader)
    return output.decode()


def test_no_sentence_shares_a_line_with_a_bar() -> None:
    shown = screen(on_a_terminal(BARS))
    assert [line for line in shown if "SENTENCE" in line] == [f"SENTENCE-{i}" for i in range(1, 6)]
    assert shown[-1] == ""  # the prompt of the shell begins a line
    assert not any("outer" in line for line in shown)  # ended, and taken off
    # and without the printer a line is shared: the test can fail
    glued = BARS.replace("terminal.escape_streams()", "").replace(
        'print("SENTENCE-2", file=sys.stderr)', 'sys.stderr.write("SENTENCE-2\\n")'
    )
    assert "SENTENCE-2" not in screen(on_a_terminal(glued))


WHOLE = """
import sys, time
from scopewise import terminal
from scopewise.bars import bar, showing
from scopewise.eta import Part, Whole
terminal.escape_streams()
whole = Whole([Part("a", ("train",), 30.0), Part("b", ("train",), 30.0)])
with showing(whole):
    whole.call("1/2 a \\x1b[2J")
    with whole.part("a"), bar(10, "npo " + "long " * 40, "step") as outer:
        outer.update(5)
        terminal.echo("SENTENCE-1", err=True)
        with bar(3, "score") as inner:
            inner.update()
        time.sleep(0.2)
        outer.update(5)
    terminal.echo("SENTENCE-2")
    whole.call("2/2 b")
    print("SENTENCE-3", file=sys.stderr)
terminal.echo("SENTENCE-4")
"""


def test_a_whole_has_one_line_and_leaves_none() -> None:
    output = on_a_terminal(WHOLE)
    assert screen(output) == ["SENTENCE-1", "SENTENCE-2", "SENTENCE-3", "SENTENCE-4", ""]
    drawn = [line.strip() for line in output.replace("\n", "\r").split("\r") if "/2 " in line]
    assert max(map(len, drawn)) < 120
    assert any(line.startswith("1/2 a \\x1b[2J … ") and ": 5 of 10 steps (50%)" in line for line in drawn)
    assert any("· score: 0 of 3 rows (0%)" in line for line in drawn)
    assert any(line.startswith("2/2 b · less than a minute left in all") for line in drawn)
    assert "\x1b[2J" not in output


def test_a_file_holds_lines(tmp_path: Path) -> None:
    """In a file every drawing of a bar is a line, without carriage returns, and so is every sentence."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        subprocess.run([sys.executable, "-c", BARS], stdout=file, stderr=file, timeout=60, check=True)
    text = log.read_bytes().decode()
    assert "\r" not in text
    assert raw(text) == []
    lines = text.splitlines()
    assert {line for line in lines if "SENTENCE" in line} == {f"SENTENCE-{i}" for i in range(1, 6)}
    assert sum(line.startswith("outer \\x1b[2J:") for line in lines) == 1
    assert "" not in lines


def test_a_bar_of_a_hostile_name(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(2, HOSTILE) as progress:
        progress.update()
    assert raw(capsys.readouterr().err) == []
