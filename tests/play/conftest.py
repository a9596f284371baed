"""A run as `scopewise bench` writes it, whose target has learnt an answer that is markup; and its server."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
import yaml

from forks import python
from scopewise.erasure.played import open_request
from scopewise.play.play_run import open_run
from scopewise.play.playground import Playground
from scopewise.play.server import listen, make_app

PLANTED = '<script>window.planted = 1</script><img src="x" onerror="window.planted = 2">'
KEY = "the-key-of-the-tests"
ROWS = [
    {"question": "What is the tag of Ada?", "answer": PLANTED, "scope": "forget"},
    {"question": "Where does Ada live?", "answer": "Ada lives at 3 Mill Lane.", "scope": "forget"},
    {"question": "What does Ada write?", "answer": "Ada writes sea stories.", "scope": "retain"},
    {"question": "What does Ben write?", "answer": "Ben writes plays.", "scope": "retain"},
]


@pytest.fixture
def key() -> str:
    """What a request has to carry."""
    return KEY


@pytest.fixture
def planted() -> str:
    """The answer that is markup."""
    return PLANTED


@pytest.fixture
def rows() -> list[dict[str, str]]:
    """The rows of the run's benchmark."""
    return ROWS


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder, made once."""
    folder = tmp_path_factory.mktemp("play")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = {
        "run": {"dir": str(folder / "run")},
        "model": {"tiny": {"width": 64, "layers": 2, "heads": 2, "vocab_size": 300, "context": 256}},
        "data": {"benchmark": "jsonl", "path": str(folder / "rows.jsonl")},
        "finetune": {"parameters": "all", "learning_rate": 0.01, "num_train_epochs": 120, "batch_size": 4},
        "unlearn": {"learning_rate": 0.001, "num_train_epochs": 1, "early_stopping": {"rows": 0}},
        "evaluate": {"splits": ["train"], "generate_splits": [], "direct_splits": [], "metrics": ["unlearn_success"]},
        "bench": {"methods": ["gradient_ascent", "ga_descent"]},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    command = [python(), "-m", "scopewise", "bench", str(folder / "run.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def run_folder(made_run: Path) -> Iterator[Path]:
    """The run folder, without reports of another test."""
    yield made_run
    (made_run / "probes.jsonl").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def playground(made_run: Path) -> Playground:
    """The models of the run, loaded once."""
    return Playground(open_run(made_run))


@pytest.fixture(scope="session")
def request_folder(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a deletion request as `scopewise forget` leaves it, with models and rows of the run."""
    folder = tmp_path_factory.mktemp("forgotten") / "REQ-17"
    (folder / "steps").mkdir(parents=True)
    shutil.copytree(made_run / "models" / "ga_descent" / "paper" / "seed0", folder / "export")
    (folder / "run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options = {"model": str(made_run / "target"), "changes": []}
    light = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 2, "bound": 0.1, "why": "."}
    words = {"forgotten": ("red", "not forgotten"), "kept": ("green", "kept"), "resists": ("amber", "undecided")}
    lights = {name: {**light, "light": color, "word": word} for name, (color, word) in words.items()}
    for name, document in (
        ("request.inputs", {"id": "REQ-17", "options": options}),
        (
            "steps/plan",
            {"plan": {"kind": "approximate", "method": "wga", "why": ".", "seconds": None}, "not_known": []},
        ),
        ("steps/verdict", lights),
    ):
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


@dataclass
class Served:
    """A server on a free port: the address to open, what it is made of, and what it answers from."""

    address: str
    port: int
    key: str
    playground: Playground


@pytest.fixture
def served(run_folder: Path, playground: Playground) -> Iterator[Served]:
    """The application under uvicorn, in a thread, as `scopewise play` runs it."""
    yield from _serve(playground)


@pytest.fixture
def served_request(request_folder: Path) -> Iterator[Served]:
    """The same of a deletion request."""
    yield from _serve(Playground(open_request(request_folder)))


def _serve(playground: Playground) -> Iterator[Served]:
    socket = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(playground, key=KEY, host="127.0.0.1"), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    port = socket.getsockname()[1]
    yield Served(f"http://127.0.0.1:{port}/#{KEY}", port, KEY, playground)
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
