"""What is made from a record, its published schema, and the script of docs/record.md."""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from changes import flips
from recorded import LIGHT, ROWS, House, make_house, values
from scopewise.erasure import evidence, handouts, keys, words

ROOT = Path(__file__).parents[2]
HOSTILE = '<script>alert(1)</script> | `x` [y](javascript:z) "quoted"'
NAMES = {"forgotten", "kept", "resists"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("house"))


def signed(house: House, **changed: Any) -> dict[str, Any]:
    envelope = evidence.sign(evidence.make_record(**values(house.rows, **changed)), house.signing)
    return evidence.read_record(evidence.canonical(envelope) + b"\n", "record")


def test_the_published_schema_fits(house: House) -> None:
    schema = json.loads((ROOT / "docs" / "record.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(house.statement, schema)
    for change in (
        lambda s: s["predicate"].pop("limits"),
        lambda s: s["predicate"]["request"].update(name="Ada Quill"),
        lambda s: s["subject"].clear(),
        lambda s: s["predicate"]["evidence"]["verdict"]["kept"].update(light="blue"),
    ):
        wrong = copy.deepcopy(house.statement)
        change(wrong)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_summary_follows_the_lights(house: House) -> None:
    def of(kind: str, known: int, **lights: str) -> str:
        verdict = {name: {**LIGHT, "light": lights.get(name, "green")} for name in NAMES} if lights else None
        found = {"known": {"facts": 2, "known": known}, "verdict": verdict}
        return handouts.summary(signed(house, action={"kind": kind}, evidence=found))

    assert "did not show" in of("nothing", 0)
    assert "did not show" in of("nothing", 1)  # one answer may rank first by chance
    assert of("exact", 2, kept="green").startswith("Passed. ")
    assert of("exact", 2, kept="amber").startswith("Not decided. ")
    assert of("exact", 2, kept="amber").endswith("whether other knowledge is kept.")
    assert of("exact", 2, kept="amber", resists="red").startswith("Not passed. ")
    assert "attacks bring them back" in of("exact", 2, kept="amber", resists="red")
    assert of("exact", 2, forgotten="red", kept="red", resists="red").endswith(
        "The model still knows facts of this request, the model lost other knowledge, and attacks bring the facts back."
    )


class Page(HTMLParser):
    """Tags and text of a page; what loads or runs something is collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_what_the_record_says_and_loads_nothing(house: House) -> None:
    statement = signed(house, operator=HOSTILE, limits=[HOSTILE])
    page = Page(handouts.officer_page(statement))
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert not {"src", "href", "onclick", "style"} & page.attributes
    assert page.text.count(HOSTILE) == 2
    for text in (
        "REQ-17",
        "gdpr",
        "2026-12-20",
        "changed by an approximate method (npo)",
        "Resists",
        "undecided",
        "amber",
        "q4.gguf: open",
        "few persons",
    ):
        assert text in page.text
    assert house.statement["predicate"]["signer"]["keyid"] in page.text


@pytest.mark.parametrize(
    ("attack", "setting", "said"),
    [
        ("question", "as asked", ""),
        ("prompts", "role_play 2", "role play"),
        ("sampling", "best of 8", "best of 8 answers"),
        ("quantization", "int4", "rounded to 4 bits"),
        ("quantization", "GGUF Q4_0, as exported", "GGUF Q4_0, as exported"),
        (
            "relearning",
            "forget rows of others, rate 0.0002, 20 steps",
            "20 steps of training on removed facts of others, learning rate 0.0002",
        ),
        ("relearning", "anything else", "anything else"),
    ],
)
def test_the_page_says_in_words_how_it_was_attacked(attack: str, setting: str, said: str) -> None:
    assert words.setting(attack, setting) == said


def test_the_section_for_the_model_card(house: House) -> None:
    section = handouts.model_card_section(signed(house, limits=[HOSTILE]))
    assert "| Forgotten | green | 0.1 | 0 to 0.2 | 12 | 0.25 | - |" in section
    assert "| Attack relearning | green | 0.1 | - | - | 0.2 | - |" in section
    assert "2 rows of scope forget, 1 rows of scope retain" in section
    assert "<script>" not in section
    assert r"\<script\>alert(1)\</script\> \| \`x\` \[y\](javascript:z)" in section


def test_green_by_retraining_is_explained_where_a_figure_is_above_its_bound(house: House) -> None:
    """The card, which is published, must not show a green light and a figure above the bound without a word."""
    lights = {name: {**LIGHT, "light": "green", "word": ""} for name in ("forgotten", "kept", "resists")}
    attacks = [{"name": "prompts: role", "value": 0.4, "low": -0.1, "high": 0.9, "n": 3, "bound": 0.25, "p": 0.0002}]
    found = {"known": {"facts": 2, "known": 2, "p": 0.01}, "verdict": lights, "attacks": attacks}
    exact = signed(house, action={"kind": "exact", "method": "retrain"}, evidence=found)
    section = handouts.model_card_section(exact)
    assert words.BY_CONSTRUCTION in section
    assert r"| Attack prompts: role | above, as by chance | 0.4 | -0.1 to 0.9 | 3 | 0.25 | \< 0.001 |" in section
    other = handouts.model_card_section(signed(house, action={"kind": "approximate", "method": "wga"}, evidence=found))
    assert words.BY_CONSTRUCTION not in other


def test_the_bill_of_materials(house: House) -> None:
    """The form of CycloneDX 1.6: the model with its card, its files by digest, what it was made from."""
    bom = handouts.ml_bom(house.statement)
    assert bom == handouts.ml_bom(house.statement)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bom["serialNumber"])
    (model,) = bom["components"]
    files = {file["name"]: file["hashes"][0]["content"] for file in model["components"]}
    assert files == evidence.digest_folder(house.export)
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    interval = {"lowerBound": "90", "upperBound": "100"}
    assert metrics[0] == {"type": "unlearn_success/val", "value": "97.5", "confidenceInterval": interval}
    assert metrics[1] == {"type": "attack relearning", "value": "0.1"}
    assert model["pedigree"]["ancestors"][0]["name"] == "target"
    assert {p["name"]: p["value"] for p in model["properties"]}["scopewise:verdict-resists"] == "amber"


def test_what_is_written_is_private_and_says_evidence(house: House, tmp_path: Path) -> None:
    written = handouts.write_handouts(tmp_path, house.statement)
    assert [path.name for path in written] == ["record.html", "model-card-section.md", "bom.cdx.json"]
    for path in written:
        text = path.read_text().lower()
        assert path.stat().st_mode & 0o777 == 0o600
        assert not re.search(r"\bproo?[fv]", text)
        assert not any(row.answer.lower() in text or row.question.lower() in text for row in ROWS)
    assert "evidence" in written[0].read_text()
    assert "evidence" in written[1].read_text()


SCRIPT = re.search(
    r'```python title="verify_record.py"\n(.*?)```', (ROOT / "docs" / "record.md").read_text(), re.DOTALL
)


def test_the_script_has_few_lines_and_needs_no_scopewise() -> None:
    assert SCRIPT is not None
    assert sum(bool(line.strip()) for line in SCRIPT[1].splitlines()) <= 45
    imported = re.findall(r"^(?:import|from) (.+?)(?: import.*)?$", SCRIPT[1], re.MULTILINE)
    assert {name.partition(".")[0] for names in imported for name in names.split(", ")} == {
        *("base64", "hashlib", "json", "sys", "pathlib", "cryptography")
    }


def test_the_script_verifies(house: House, tmp_path: Path) -> None:
    assert SCRIPT is not None
    script = tmp_path / "verify_record.py"
    script.write_text(SCRIPT[1])
    keyid = house.statement["predicate"]["signer"]["keyid"]
    arguments = [str(house.record), keyid, str(house.export), str(house.ledger.path)]

    def run(*given: str) -> tuple[int, str]:
        words = [sys.executable, "-I", str(script), *given]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert run(*arguments) == (0, "verified: the record, the model's files, the ledger\n")
    assert run(*arguments[:2]) == (0, "verified: the record\n")
    other = f"it is signed with the key {keyid}, not with {'0' * 64}"
    assert run(str(house.record), "0" * 64) == (1, f"NOT VERIFIED: {house.record}: {other}.\n")


def test_the_script_says_what_is_wrong_in_a_sentence(house: House, tmp_path: Path) -> None:
    """Whatever is missing or changed: one line, no traceback, and no name of an exception."""
    assert SCRIPT is not None
    script, keyid = tmp_path / "verify_record.py", house.statement["predicate"]["signer"]["keyid"]
    script.write_text(SCRIPT[1])
    copied = tmp_path / "model"
    copied.mkdir()
    (copied / "config.json").write_bytes(b"{}")
    (copied / "more.txt").write_bytes(b"")
    ledger, record, made = house.ledger.path.read_bytes(), house.record.read_bytes(), {}
    for name, content in {
        "cut line": ledger[:-40], "cut before": b"".join(ledger.splitlines(keepends=True)[:-1]), "none": b"",
        "changed": ledger.replace(b'"known"', b'"Known"', 1), "record": record.replace(b'"payload":"ey', b'"payload":"eY'),
        "no json": b"\x00", "no record": b"[]\n",
        "unsigned": record.replace(b'"sig":"', b'"sig":"AAAA'),
    }.items():  # fmt: skip
        made[name] = tmp_path / name
        made[name].write_bytes(content)
    usage = "give the record and the signer's fingerprint; then, if you have them, the model's folder and the ledger"
    changed, not_named = (
        "this is not a record, or it was changed",
        "it does not name this record; it is another ledger, or was",
    )
    cases: list[tuple[list[Any], str]] = [
        ([], usage),
        ([house.record], usage),
        ([tmp_path / "gone", keyid], f"{tmp_path / 'gone'}: there is no such file"),
        ([house.export, keyid], f"{house.export}: there is no such file, or it cannot be read"),
        *(([made[name], keyid], f"{made[name]}: {changed}") for name in ("record", "no json", "no record", "unsigned")),
        ([house.record, keyid, tmp_path / "gone"], "gone: missing, changed or added: config.json, model.safetensors"),
        ([house.record, keyid, copied], "model: missing, changed or added: config.json, model.safetensors, more.txt"),
        (
            [house.record, keyid, house.export, tmp_path / "gone"],
            "gone: there is no such file, or its last line was cut",
        ),
        (
            [house.record, keyid, house.export, made["cut line"]],
            "cut line: there is no such file, or its last line was cut off",
        ),
        ([house.record, keyid, house.export, made["changed"]], "changed: the chain is broken at line 2"),
        *(([house.record, keyid, house.export, made[name]], f"{name}: {not_named}") for name in ("cut before", "none")),
    ]
    for given, says in cases:
        words = [sys.executable, "-I", str(script), *map(str, given)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (1, "", 1), done
        assert done.stdout.startswith("NOT VERIFIED: ")
        assert says in done.stdout
        assert "Error" not in done.stdout


def test_the_documented_commands_print_the_fingerprint(house: House) -> None:
    """`docs/record.md` says how an officer computes it from the key, by openssl or by Python."""
    text = (ROOT / "docs" / "record.md").read_text()
    block = next(block for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) if "openssl" in block)
    found = re.search(r"\$ (openssl .*?)\n.*?python -c '(.*?)' signing\.pem", block, re.DOTALL)
    assert found is not None
    key, keyid = house.folder / "keys" / keys.SIGNING, house.statement["predicate"]["signer"]["keyid"]
    words = [sys.executable, "-I", "-c", found[2], str(key)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == f"{keyid}\n"
    if shutil.which("openssl"):
        shell = found[1].replace("~/.config/scopewise/keys/signing.pem", shlex.quote(str(key)))
        assert keyid in subprocess.run(shell, shell=True, capture_output=True, text=True, check=True).stdout


def test_the_script_finds_a_changed_byte(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SCRIPT is not None
    code = compile(SCRIPT[1], "verify_record.py", "exec")
    keyid = house.statement["predicate"]["signer"]["keyid"]
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    arguments = [house.record, keyid, house.export, house.ledger.path]

    def verified(place: int, path: Path) -> bool:
        given = [*map(str, arguments)]
        given[place] = str(path)
        monkeypatch.setattr(sys, "argv", ["verify_record.py", *given])
        try:
            exec(code, {"__name__": "__main__"})
        except Exception:
            return False
        return True

    copied = tmp_path / "model"
    copied.mkdir()
    for file in house.export.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    assert verified(2, copied)
    for place, path, changed in (
        (0, house.record, tmp_path / "record"),
        (3, house.ledger.path, tmp_path / "ledger"),
        (2, house.export / "config.json", copied / "config.json"),
    ):
        content = path.read_bytes()
        for wrong in (*list(flips(content))[::7], content[:-1], content + b"\n", b""):
            changed.write_bytes(wrong)
            assert not verified(place, copied if place == 2 else changed)
        changed.write_bytes(content)
        assert verified(place, copied if place == 2 else changed)
