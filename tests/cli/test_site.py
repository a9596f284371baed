"""The documentation site builds strictly and loads nothing from elsewhere; its notebook runs; its picture is well formed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "first_steps.ipynb"


class Loads(HTMLParser):
    """Collects what a page loads by itself: scripts, styles, pictures, frames; not the links a reader follows."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video") and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev") and given.get("href"):
            self.found.append(str(given["href"]))


@pytest.mark.long
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.found
        for address in loads.found:
            assert not re.match(r"(https?:)?//", address), (page.name, address)
            if page.name != "404.html" and not address.startswith("data:"):
                assert (page.parent / address.partition("?")[0].partition("#")[0]).exists(), (page.name, address)
    assert not list((tmp_path / "site").rglob("*.py"))


@pytest.mark.long
def test_the_notebook_runs_and_is_kept_without_outputs(tmp_path: Path) -> None:
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    words = [
        sys.executable,
        "-c",
        "from nbclient.cli import main; main()",
        str(NOTEBOOK),
        f"--output={tmp_path / 'done.ipynb'}",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    outputs = json.dumps(json.loads((tmp_path / "done.ipynb").read_text(encoding="utf-8"))["cells"])
    assert "memflex@random" in outputs
    # What the page says of it is true: the target has learnt the address, the oracle never saw one.
    said = {
        line.split()[0]: re.sub(r"\(\d\.\d\d\)", "", line)
        for cell in json.loads((tmp_path / "done.ipynb").read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
        if output.get("name") == "stdout"
        for line in "".join(output["text"]).splitlines()
    }
    assert "3 Mill Lane" in said["target"]
    assert "Lane" not in said["oracle"]


def test_the_picture_of_the_architecture_is_well_formed_and_described() -> None:
    picture = ElementTree.parse(ROOT / "docs" / "images" / "architecture.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert picture.find(f"{space}title") is not None
    assert picture.find(f"{space}desc") is not None
    assert not [e for e in picture.iter() if e.tag in (f"{space}script", f"{space}image", f"{space}foreignObject")]
