"""Shapes are checked while the tests run, nothing leaves the machine, and models are tiny."""

from __future__ import annotations

import copy
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["OMP_NUM_THREADS"] = "1"  # of the commands that tests start: two tests at a time share the cores

# Before the hook: what is imported while it runs a module of scopewise is compiled from its source, whatever is cached.
import beartype  # noqa: F401
import datasets  # noqa: F401
import optuna  # noqa: F401
import peft  # noqa: F401
import pydantic  # noqa: F401
import rouge_score.rouge_scorer  # noqa: F401
import starlette.applications  # noqa: F401
from jaxtyping import install_import_hook
from transformers import AutoModelForCausalLM, LlamaForCausalLM, Trainer  # noqa: F401

# Before anything of scopewise is imported. Only what names shapes is checked: mypy has seen the other types, and checking them
# at every call would make the suite half as slow again.
SOURCE = Path(__file__).parents[1] / "src"
SHAPED = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in sorted(SOURCE.rglob("*.py"))
    if "from jaxtyping" in path.read_text(encoding="utf-8")
]
install_import_hook(SHAPED, "beartype.beartype")

import pytest
import torch

from loading import module_of
from scopewise.attacks.base import make_attack
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import encode
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.testing.attacks import AttackWorld
from scopewise.testing.world import World, general_rows, short_rows, small_trainer, tiny_model
from scopewise.training.trainer import UnlearningTrainer

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """PEFT asks transformers for a property by its old name; nothing of ours can change that."""
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def pytest_collection_finish() -> None:
    """Leave out what is imported of every collection of garbage: a trainer collects whenever it begins and ends."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def benchmark_rows() -> list[Row]:
    """All rows of the built-in benchmark."""
    return list(load_benchmark("builtin").rows)


@pytest.fixture(scope="session")
def _tiny() -> tuple[Any, Any]:
    return tiny_model()


@pytest.fixture(scope="session")
def world(_tiny: tuple[Any, Any]) -> World:
    """The small world that properties are tested in."""
    return World(*_tiny)


@pytest.fixture(scope="session")
def attack_world() -> AttackWorld:
    """Two trained models: a target that knows eight persons, and an oracle that does not."""
    return AttackWorld.build(make_attack("question"))


@pytest.fixture(scope="session")
def attacked(attack_world: AttackWorld) -> tuple[Any, Any, Any, Any]:
    """The same as benchmark, tokenizer, target and oracle."""
    return attack_world.benchmark, attack_world.tokenizer, attack_world.target, attack_world.oracle


@pytest.fixture
def tiny(_tiny: tuple[Any, Any]) -> tuple[Any, Any]:
    """A fresh copy of an untrained Llama (width 32, 2 layers, 300 tokens), in evaluation mode, and its tokenizer."""
    model, tokenizer = _tiny
    return copy.deepcopy(model), copy.deepcopy(tokenizer)


@pytest.fixture(scope="session")
def forget(_tiny: tuple[Any, Any]) -> list[Row]:
    """The eight shortest train rows of the forget scope."""
    return short_rows(FORGET, _tiny[1])


@pytest.fixture(scope="session")
def retain(_tiny: tuple[Any, Any]) -> list[Row]:
    """The eight shortest train rows of the retain scope."""
    return short_rows(RETAIN, _tiny[1])


@pytest.fixture(scope="session")
def general() -> list[Row]:
    """Eight short pieces of general text."""
    return general_rows()


@pytest.fixture
def encoded(tiny: tuple[Any, Any], forget: list[Row], retain: list[Row]) -> tuple[list, list]:
    """Both scopes, tokenised."""
    return encode(forget, tiny[1]), encode(retain, tiny[1])


@pytest.fixture
def make_trainer(forget: list[Row], retain: list[Row], general: list[Row], tmp_path: Any) -> Callable[..., Any]:
    """Build an `UnlearningTrainer` on the small rows: SGD, no clipping, no warm-up, on the CPU, silent."""

    def make(
        model: Any, tokenizer: Any, method: Any, *, peft_config: Any = None, region: Any = "all", **args: Any
    ) -> UnlearningTrainer:
        data = {
            "forget_dataset": forget,
            "retain_dataset": retain,
            "general_dataset": general,
            "processing_class": tokenizer,
        }
        return small_trainer(model, method, data, str(tmp_path / "out"), peft_config=peft_config, region=region, **args)

    return make


@pytest.fixture
def trained_adapter(tiny: tuple[Any, Any]) -> tuple[Any, Any]:
    """The tiny model with an adapter that does something (B is not zero), as a LoRA-tuned target has; no dropout."""
    from scopewise.config import LoraSection
    from scopewise.models.adapters import lora_config, with_adapter

    model, tokenizer = tiny
    model = with_adapter(model, lora_config(LoraSection(r=2, lora_alpha=4, lora_dropout=0.0)), seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    return model.eval(), tokenizer


@pytest.fixture(scope="session")
def sections() -> Any:
    """The module `docs/make_sections.py`."""
    return module_of(Path(__file__).parents[1] / "docs" / "make_sections.py")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, headless; without it the test is skipped."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a file; whatever the console says and every request for anything else fails the test."""
    contexts, wrong = [], []

    def goto(path: Path, scheme: str = "light", width: int = 1200) -> Any:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: None if request.url == path.as_uri() else wrong.append(request.url))
        page.goto(path.as_uri())
        return page

    yield goto
    for context in contexts:
        context.close()
    assert wrong == []
