"""README and docs as a reader types them: files are written, shell blocks and Python blocks run, in order.

A fence that says `title="FILE"` is that file (a second one of the same name goes on with it). A block that is not run has
`<!-- not run: why -->` on the line before it. What takes long with a real model is made small by the folder it runs in: a
tiny model under the hub's name, and a short `configs/demo.yaml`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from forks import programs
from often import often

ROOT = Path(__file__).parents[2]
HOWTO = ["own-data", "build-a-benchmark", "one-gpu", "several-gpus", "pick-a-method", "read-the-report", "export"]
DOCUMENTS = ["README.md", "docs/tutorial.md", "docs/ability.md", *(f"docs/howto/{name}.md" for name in HOWTO)]
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>.+?) -->\n+)?```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
RUN = {"bash", "console", "python"}
SMALL = {
    "model": {"tiny": {"width": 32, "layers": 2, "heads": 2, "vocab_size": 400}},
    "finetune": {"parameters": "all", "num_train_epochs": 0.2},
    "unlearn": {"num_train_epochs": 0.2},
    "evaluate": {"max_new_tokens": 4, "splits": ["val"], "direct_splits": []},
    "bench": {"methods": ["gradient_ascent", "memflex"]},
    "attack": {
        "attack_args": {
            "relearning": {"steps": 2},
            "sampling": {"samples": 2, "max_new_tokens": 4},
        },
        "rows": 16,
    },
}


@dataclass
class Block:
    """A fenced block of a document."""

    language: str
    title: str | None
    text: str
    why_not: str | None


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [Block(m["language"], m["title"], m["text"], m["why"]) for m in FENCE.finditer(text)]


def commands(block: Block) -> str:
    """The commands of a block: of a console block the lines after `$`, without their comments' alignment."""
    if block.language != "console":
        return block.text
    return "\n".join(line[2:] for line in block.text.splitlines() if line.startswith("$ "))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was run, made once; models lie under hubs' names."""
    made = tmp_path_factory.mktemp("documents")
    (made / "configs").mkdir()
    (made / "configs" / "demo.yaml").write_text(yaml.safe_dump(SMALL))
    done = run(
        ["scopewise", "bench", "configs/demo.yaml", "--set", "run.dir=runs/demo"],
        made,
    )
    assert done.returncode == 0, done.stderr
    for name in ("Qwen/Qwen3-0.6B", "meta-llama/Llama-3.2-1B", "path/to/model"):
        (made / name).parent.mkdir(parents=True)
        (made / name).symlink_to(made / "runs" / "demo" / "target")
    return made


@pytest.fixture
def folder(demo: Path, tmp_path: Path) -> Path:
    """A folder that looks like the reader's: a copy of what the demo left."""
    shutil.copytree(demo, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((programs(), str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment, timeout=500, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("document", often(DOCUMENTS, {"README.md"}))
def test_a_document_runs_from_top_to_bottom(document: str, folder: Path) -> None:
    code = ""
    for block in blocks(document):
        if block.title:
            with open(folder / block.title, "a", encoding="utf-8") as file:
                file.write(block.text)
        elif block.why_not or block.language not in RUN:
            continue
        elif block.language == "python":
            code += block.text + "\n"
        else:
            done = run(["bash", "-euo", "pipefail", "-c", commands(block)], folder)
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    if code:
        done = run(["python", "-c", code], folder)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("document", sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")))
def test_every_shell_block_is_run_or_says_why_not(document: str) -> None:
    shell = [b for b in blocks(document) if b.language in RUN]
    assert document in DOCUMENTS or all(b.why_not for b in shell)
    fences = re.findall(r"^```(\w+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == len(blocks(document))  # none escaped the pattern
