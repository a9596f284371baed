"""A trainer class with OpenUnlearning's interface, whose `compute_loss` trains here."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import Trainer, TrainerCallback

from scopewise.errors import ConfigError, ModelError
from scopewise.methods.base import Method, make_method
from scopewise.methods.gradient_ascent import GADescent
from scopewise.methods.open_unlearning import OpenUnlearning
from scopewise.methods.wrappers.base import make_wrappers
from scopewise.ops import Reduction
from scopewise.testing.findings import findings
from scopewise.testing.world import World, furthest, parameters_of

HOW_TO = Path(__file__).parents[2] / "docs" / "howto" / "write-a-plugin.md"


class DifferenceTrainer(Trainer):
    """Minus the CE of the forget rows plus that of the retain rows, as the library's models compute it."""

    def __init__(self, gamma: float = 1.0, alpha: float = 1.0, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gamma, self.alpha = gamma, alpha

    def forget_loss(self, model: Any, rows: Any) -> Any:
        return -model(**rows).loss

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
        forget = self.forget_loss(model, inputs["forget"])
        return self.gamma * forget + self.alpha * model(**inputs["retain"]).loss


class PreferenceTrainer(DifferenceTrainer):
    """NPO, with a second model as the reference."""

    def __init__(self, beta: float = 1.0, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.beta = beta
        self.ref_model = self._prepare_ref_model(self.model)

    def _prepare_ref_model(self, model: Any) -> Any:
        ref_model = copy.deepcopy(model).to(self.accelerator.device).eval()
        return self.accelerator.prepare_model(ref_model, evaluation_mode=True)

    def forget_loss(self, model: Any, rows: Any) -> Any:
        with torch.no_grad():
            before = self.nll(self.ref_model, rows)
        return -2 / self.beta * logsigmoid(self.beta * (self.nll(model, rows) - before)).mean()

    def nll(self, model: Any, rows: Any) -> Any:
        logits, labels = model(**rows).logits[:, :-1], rows["labels"][:, 1:]
        return cross_entropy(logits.transpose(1, 2), labels, reduction="none").sum(-1)


@dataclass(frozen=True, kw_only=True)
class Difference(OpenUnlearning):
    gamma: float = 1.0
    alpha: float = 1.0
    trainer: ClassVar[Any] = DifferenceTrainer


@dataclass(frozen=True, kw_only=True)
class Preference(Difference):
    beta: float = 0.1
    trainer: ClassVar[Any] = PreferenceTrainer


@dataclass(frozen=True, kw_only=True)
class TokenMean(GADescent):
    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN


@pytest.fixture(scope="module")
def world() -> World:
    return World.build()


def trained(world: World, method: Method, adapter: bool = False, **given: Any) -> tuple[float, dict[str, Any], float]:
    """Return the mean loss, the parameters afterwards, and how far they have moved."""
    model = world.model(adapter, trained=True).double()  # in float32 the NLL of an answer is rounded to 1e-5 nats
    trainer = world.trainer(model, method, **given)
    start = parameters_of(trainer.model)
    loss = trainer.train().training_loss
    after = parameters_of(trainer.model)
    return loss, after, furthest(after, start)


@pytest.mark.parametrize("adapter", [False, True], ids=["all parameters", "LoRA"])
@pytest.mark.parametrize(
    ("theirs", "ours", "given"),
    [
        # A mean over the tokens of one pair is a mean over rows, too.
        (Difference(gamma=0.5, alpha=2.0), GADescent(forget_weight=0.5, retain_weight=2.0), {"rows": 2}),
        (Difference(gamma=0.5, alpha=2.0), TokenMean(forget_weight=0.5, retain_weight=2.0), {"rows": 8}),
        # Three steps: in the first, NPO does not depend on the reference beyond its NLL.
        (Preference(beta=0.1, alpha=2.0), make_method("npo", beta=0.1, retain_weight=2.0), {"rows": 2, "steps": 3}),
        (Preference(beta=0.1, alpha=0.0), make_method("npo", beta=0.1, retain_weight=0.0), {"rows": 8, "steps": 2}),
    ],
    ids=["difference, a pair", "difference, four pairs", "npo, a pair", "npo, four pairs"],
)
def test_the_same_loss_and_gradient_as_the_native_method(
    world: World, theirs: Method, ours: Method, given: dict[str, int], adapter: bool
) -> None:
    settings = {"per_device_train_batch_size": given["rows"], "max_steps": given.get("steps", 1), "learning_rate": 2e-3}
    loss, after, moved = trained(world, theirs, adapter, **settings)
    native_loss, native_after, native_moved = trained(world, ours, adapter, **settings)
    assert min(moved, native_moved) > 1e-4
    assert loss == pytest.approx(native_loss, abs=1e-6, rel=1e-6)
    assert furthest(after, native_after) < 1e-6


def test_a_step_is_the_mean_of_its_micro_batches(world: World) -> None:
    """Four micro-batches of a pair: rows count the same, as in the native method; tokens would not."""
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    loss, after, _ = trained(world, Difference(), **settings)
    native_loss, native_after, _ = trained(world, GADescent(), per_device_train_batch_size=8)
    assert loss == pytest.approx(native_loss, abs=1e-6, rel=1e-6)
    assert furthest(after, native_after) < 1e-6
    assert furthest(after, trained(world, Difference(), per_device_train_batch_size=8)[1]) > 1e-5


def test_by_name_with_its_settings() -> None:
    made = make_method(f"{__name__}:Preference", beta=0.3, gamma=2)
    assert (made.beta, made.gamma, made.alpha) == (0.3, 2.0, 1.0)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"method_args: unknown 'gama'.*Did you mean 'gamma'"):
        make_method(f"{__name__}:Difference", gama=2)


def test_the_class_of_the_how_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HOW_TO.read_text(encoding="utf-8").partition("### A method written for OpenUnlearning")[2]
    package, module, mine = (ModuleType(name) for name in ("my_package", "my_package.my_trainer", "my_method"))
    module.MyTrainer = DifferenceTrainer  # type: ignore[attr-defined]
    for each in (package, module, mine):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    exec(text.partition("```python\n")[2].partition("```")[0], vars(mine))
    made = make_method("my_method:MyMethod", alpha=2.0)
    assert made.trainer is DifferenceTrainer  # type: ignore[attr-defined]
    assert furthest(trained(world, made)[1], trained(world, Difference(alpha=2.0))[1]) == 0


def with_trainer(base: type, **members: Any) -> Callable[..., Method]:
    cls = type("Mine", (base,), members)
    return dataclass(frozen=True, kw_only=True)(type("Method", (Difference,), {"trainer": cls}))


class Watching(TrainerCallback):
    """Something of their own."""


def adds_a_callback(self: Any, *args: Any, **kwargs: Any) -> None:
    DifferenceTrainer.__init__(self, *args, **kwargs)
    self.add_callback(Watching())


@pytest.mark.parametrize(
    ("members", "key"),
    [
        ({"create_optimizer": lambda self: None}, "create_optimizer"),
        ({"training_step": lambda self, model, inputs: None}, "training_step"),
    ],
)
def test_a_class_that_does_more_than_a_loss_is_refused(members: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"overrides {key}"):
        with_trainer(DifferenceTrainer, **members)()


@pytest.mark.parametrize("given", [{"retain": "kl"}, {"retain_weight": 2.0}])
def test_our_own_retain_term_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"method_args: retain"):
        make_method(f"{__name__}:Difference", **given)


def test_a_class_that_is_no_trainer_is_refused() -> None:
    with pytest.raises(ValueError, match="trainer"):
        dataclass(frozen=True)(type("Method", (OpenUnlearning,), {"trainer": dict}))()


@pytest.mark.parametrize(
    ("members", "key"),
    [
        ({"__init__": adds_a_callback}, "Watching"),
        ({"__init__": lambda self, gamma, **kwargs: None}, "cannot be made"),
        ({"compute_loss": lambda self, model, inputs: inputs["forget"]["original"]}, "'original'"),
        ({"compute_loss": lambda self, model, inputs: model(**inputs["forget"]).logits}, "scalar"),
    ],
    ids=["callback", "constructor", "other inputs", "no scalar"],
)
def test_what_cannot_be_run_is_one_sentence(world: World, members: dict[str, Any], key: str) -> None:
    trainer = world.trainer(world.model(), with_trainer(DifferenceTrainer, **members)())
    with pytest.raises(ConfigError, match=key):
        trainer.train()


def test_a_loss_that_is_not_finite_names_its_rows(world: World) -> None:
    def infinite(self: Any, model: Any, inputs: Any) -> Any:
        return model(**inputs["forget"]).loss * float("inf")

    trainer = world.trainer(world.model(), with_trainer(DifferenceTrainer, compute_loss=infinite)())
    with pytest.raises(ModelError, match="step 1"):
        trainer.train()


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"wrappers": make_wrappers("npo+sam", {})}, "wrapper"),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}, "batch_size"),
    ],
)
def test_what_would_split_a_micro_batch_is_refused(world: World, given: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        world.trainer(world.model(), Difference(), **given)


def test_test_plugin_tests_what_it_can(world: World) -> None:
    found = {finding.name: finding.verdict for finding in findings("methods", f"{__name__}:Difference", {}, None)}
    assert "fail" not in found.values()
    assert found["only the region moves, LoRA"] == found["labels fit, and depend on the seed alone"] == "pass"
    assert found["micro-batches change nothing, LoRA"] == "n/a"
