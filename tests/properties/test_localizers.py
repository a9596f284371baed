"""Localizers: the gradient of Eq. 8 against a plain loop, exact control sizes, and a model left as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engines import engine_of, forward_of, hold, localized
from often import often
from scopewise.api import localize
from scopewise.config import LoraSection
from scopewise.data.batch import length_batches
from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError, ResultError
from scopewise.localizers import LOCALIZERS
from scopewise.localizers.base import Scopes, make_localizer
from scopewise.localizers.fisher_ratio import FisherRatio
from scopewise.localizers.gradient import Gradient
from scopewise.models.adapters import lora_config, with_adapter
from scopewise.models.matrices import matrices
from scopewise.region import Region, module_of, parameter_name
from scopewise.testing.localizers import ON_MODELS, PROPERTIES
from scopewise.testing.world import World
from scopewise.training.mask import RegionMask

LORA = lora_config(LoraSection(r=2, lora_alpha=4, lora_dropout=0.1))
localizers = pytest.mark.parametrize("name", LOCALIZERS)


def plain_gradients(model: Any, items: list[Encoded], labels: list[tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Mean over rows of the mean CE of the answer, by the model's own forward, row by row."""
    model.zero_grad()
    loss = torch.zeros(())
    for item, wanted in zip(items, labels, strict=True):
        logits = model(torch.tensor([item.prompt_ids + item.answer_ids])).logits[0, len(item.prompt_ids) - 1 : -1]
        loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(wanted)) / len(items)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in matrices(model).items()}
    model.zero_grad()
    return gradients


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("adapter", [True, False])
def test_fused_repeats_are_the_mean_of_single_passes(adapter: bool, repeats: int, request: Any, encoded: Any) -> None:
    """The same labels, drawn as `Gradient` draws them, in `repeats` separate passes."""
    model, _ = request.getfixturevalue("trained_adapter" if adapter else "tiny")
    items = encoded[0]
    got = Gradient(repeats=repeats).gradients(engine_of(model, max_tokens=256), items, seed=5)
    generator = torch.Generator().manual_seed(5)
    draws: dict[int, list[tuple[int, ...]]] = {}
    batches = list(length_batches([len(i) for i in items], 256))
    assert len(batches) > 1
    for indices in batches:
        counts = [len(items[i].answer_ids) for i in indices]
        labels = torch.randint(300, (repeats, sum(counts)), generator=generator)
        for place, part in enumerate(labels.split(counts, dim=1)):
            draws[indices[place]] = [tuple(row.tolist()) for row in part]
    single = [plain_gradients(model, items, [draws[i][n] for i in range(len(items))]) for n in range(repeats)]
    for name, gradient in got.items():
        want = torch.stack([s[name] for s in single]).mean(0)
        assert float((gradient - want).abs().max()) < 1e-5 * max(1.0, float(want.abs().max()))
        assert bool(want.any())


def test_inputs_mode_makes_as_many_passes_as_repeats(trained_adapter: Any, encoded: Any) -> None:
    """Two repeats are the mean of both, hence neither the first alone nor the sum."""
    model, _ = trained_adapter
    one = Gradient(repeats=1, corrupt="inputs").gradients(engine_of(model), encoded[0], 5)
    two = Gradient(repeats=2, corrupt="inputs").gradients(engine_of(model), encoded[0], 5)
    name = next(iter(one))
    assert not torch.allclose(one[name], two[name])
    assert 0.3 < float(two[name].norm() / one[name].norm()) < 1.5


@localizers
@pytest.mark.parametrize("what", PROPERTIES)
def test_property(name: str, what: str, world: World) -> None:
    hold(PROPERTIES[what], make_localizer(name), world)


@localizers
@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("what", ON_MODELS)
def test_property_on_a_model(name: str, what: str, adapter: bool, world: World) -> None:
    hold(ON_MODELS[what], make_localizer(name), world, adapter)


@pytest.mark.parametrize("unit", ["module", "matrix"])
def test_random_region_has_exactly_the_size(unit: str, trained_adapter: Any, encoded: Any) -> None:
    model, _ = trained_adapter
    settings = {"unit": unit}
    size = localized("gradient", model, encoded, settings)
    regions = [localized("random", model, encoded, settings, seed, size) for seed in range(5)]
    assert {r.parameters for r in regions} == {size.parameters}
    assert 0 < size.fraction < 1
    assert len({r.names for r in regions}) > 1
    if unit == "module":  # A and B of a module go together
        for region in regions:
            assert {module_of(n) for n in region.names} & {e.module for e in region.entries if not e.chosen} == set()


def test_both_conditions_of_a_gradient_region_leave_modules(trained_adapter: Any, encoded: Any) -> None:
    """Each quantile condition leaves three quarters of the 14 modules (2 layers of 7), 10 at least, so both leave 6."""
    region = localized("gradient", trained_adapter[0], encoded)
    modules = {e.module for e in region.entries}
    assert len(modules) == 14
    assert len({e.module for e in region.entries if e.chosen}) >= 6
    mu, sigma = region.settings["mu_used"], region.settings["sigma_used"]
    for entry in region.entries:
        assert entry.chosen == (entry.cosine < mu and entry.magnitude > sigma)


def test_fresh_adapter_is_localized_by_its_b(tiny: Any, encoded: Any) -> None:
    """B = 0 leaves every A without a gradient: A follows its B, and the magnitude is that of B alone."""
    model = with_adapter(tiny[0], LORA, 0)
    gradients = Gradient().gradients(engine_of(model), encoded[0], 0)
    assert not any(bool(g.any()) for n, g in gradients.items() if ".lora_A." in n)
    region = localized("gradient", model, encoded)
    magnitude = {e.name: e.magnitude for e in region.entries}
    for name, gradient in gradients.items():
        if ".lora_B." in name:
            assert magnitude[name] == pytest.approx(float(gradient.abs().mean()), rel=1e-5)
            assert magnitude[name.replace("lora_B", "lora_A")] == magnitude[name]


def test_impossible_threshold_gives_the_range(trained_adapter: Any, encoded: Any) -> None:
    settings = {"threshold": "absolute", "mu": -2, "sigma": 0.0}
    with pytest.raises(ConfigError, match=r"no module has cosine < -2 .* cosines are .* magnitudes"):
        localized("gradient", trained_adapter[0], encoded, settings)


def test_embeddings_and_head_are_never_chosen_from(tiny: Any) -> None:
    names = set(matrices(tiny[0]))
    assert len(names) == 14
    assert not any("embed" in n or "head" in n or "norm" in n for n in names)


def test_region_file_round_trip(trained_adapter: Any, encoded: Any, tmp_path: Path) -> None:
    region = localized("gradient", trained_adapter[0], encoded).with_origin({"commit": "abc"})
    region.save(tmp_path / "region.json")
    assert Region.load(tmp_path / "region.json") == region


def test_edited_region_file_is_respected(trained_adapter: Any, encoded: Any, make_trainer: Any, tmp_path: Path) -> None:
    model, tokenizer = trained_adapter
    path = tmp_path / "region.json"
    localized("gradient", model, encoded).save(path)
    document = json.loads(path.read_text())
    for entry in document["entries"]:
        entry["chosen"] = entry["name"].endswith("layers.0.self_attn.q_proj.lora_B.weight")
    path.write_text(json.dumps(document))
    before = {parameter_name(n): p.detach().clone() for n, p in model.named_parameters()}
    trainer = make_trainer(model, tokenizer, "ga_descent", region=str(path))
    trainer.train()
    moved = {
        parameter_name(n) for n, p in trainer.model.named_parameters() if not torch.equal(p, before[parameter_name(n)])
    }
    assert {n.split("layers.")[1] for n in moved} == {"0.self_attn.q_proj.lora_B.weight"}


def test_region_of_another_model_is_refused(tiny: Any, trained_adapter: Any, encoded: Any, make_trainer: Any) -> None:
    """A region over LoRA's matrices, for a model that has none."""
    import copy

    base = copy.deepcopy(trained_adapter[0]).unload()
    region = localized("gradient", trained_adapter[0], encoded)
    with pytest.raises(ConfigError, match=r"matrices are not in this model, the first is .*localize again"):
        make_trainer(base, tiny[1], "memflex", region=region)


def test_region_that_chooses_nothing_is_refused(tiny: Any) -> None:
    with pytest.raises(ConfigError, match="no matrix is chosen"):
        RegionMask(tiny[0], Region("test", {}, ()))


@pytest.mark.parametrize("text", ["[", "{}", '{"format": "other/1"}', "[]"])
def test_not_a_region_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"r\.json: "):
        Region.load(path)
    with pytest.raises(ResultError, match="no such file"):
        Region.load(tmp_path / "absent.json")


def test_random_needs_a_size(tiny: Any, encoded: Any) -> None:
    from scopewise.localizers.random import Random

    with pytest.raises(ConfigError, match="localizer random: "):
        Random().region(engine_of(tiny[0]), Scopes(*encoded))


def test_region_made_before_the_adapter_names_its_modules(tiny: Any, encoded: Any, make_trainer: Any) -> None:
    """A and B of exactly the modules whose weight was chosen are trained."""
    model, tokenizer = tiny
    region = localized("gradient", model, encoded)
    assert 0 < len(region.names) < len(region.entries)
    trainer = make_trainer(model, tokenizer, "ga_descent", peft_config=lora_config(LoraSection()), region=region)
    trained = {parameter_name(n) for n, p in trainer.model.named_parameters() if p.requires_grad}
    modules = {name.removesuffix(".weight") for name in region.names}
    assert trained == {f"{module}.lora_{side}.weight" for module in modules for side in "AB"}


UNITS = ["module", "matrix", "row", "column", "weight"]
SCORED = ["gradient", "weight_attribution", "fisher_ratio", "activation_ratio"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("adapter", often([True, False], {True}))
def test_a_budget_is_kept_and_filled(name: str, unit: str, adapter: bool, request: Any, encoded: Any) -> None:
    """At most the fraction asked for, and no unit more would fit; the masks hold whole units."""
    model = request.getfixturevalue("trained_adapter" if adapter else "tiny")[0]
    settings = {"unit": unit, "threshold": "fraction", "fraction": 0.3}
    region = localized(name, model, encoded, settings)
    total = sum(p.numel() for p in matrices(model).values())
    largest = {"weight": 1, "row": 128, "column": 128}.get(unit, 0.25 * total)
    assert 0.3 * total - largest <= region.parameters <= 0.3 * total
    for key, mask in region.masks.items():
        bits = mask.unpack()
        assert bits.shape == tuple(matrices(model)[key].shape)
        assert unit == "weight" or bool((bits == bits[:, :1] if unit == "row" else bits == bits[:1]).all())


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("name", SCORED)
def test_random_control_of_any_unit_has_the_same_size(name: str, unit: str, trained_adapter: Any, encoded: Any) -> None:
    model = trained_adapter[0]
    settings = {"unit": unit, "threshold": "fraction", "fraction": 0.4}
    region = localized(name, model, encoded, settings)
    controls = [localized("random", model, encoded, settings, seed=seed, size=region) for seed in (0, 1)]
    assert [c.parameters for c in controls] == [region.parameters] * 2
    assert len({c.content_hash() for c in [region, *controls]}) > 1


@pytest.mark.parametrize("threshold", ["quantile", "fraction"])
@pytest.mark.parametrize("unit", UNITS)
def test_higher_score_is_chosen_first(unit: str, threshold: str, tiny: Any, encoded: Any) -> None:
    from scopewise.localizers.base import choose, unit_means, unit_sizes

    model = tiny[0]
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(p.shape, generator=generator) for name, p in matrices(model).items()}
    means = unit_means(scores, unit, {})
    chosen = choose(means, unit_sizes(scores, unit, {}), FisherRatio(unit=unit, threshold=threshold, fraction=0.5))
    inside = torch.cat([means[u][chosen[u]] for u in means])
    outside = torch.cat([means[u][~chosen[u]] for u in means])
    assert len(inside)
    assert len(outside)
    assert float(inside.min()) >= float(outside.max())
    if threshold == "quantile":  # sigma = .25: three quarters of the units
        assert len(inside) == pytest.approx(0.75 * (len(inside) + len(outside)), abs=1)


def test_the_highest_are_found_exactly_and_ties_go_to_the_first() -> None:
    """Against a sort, with negative values, infinities, zeros of both signs and many ties."""
    from scopewise.localizers.base import highest

    values = torch.tensor([3.0, -1.0, 0.0, 3.0, -0.0, float("inf"), -float("inf"), 3.0, 1e-40, 2.5])
    for count in range(11):
        masks = highest({"a": values[:4], "b": values[4:]}, count)
        flat = torch.cat([masks["a"], masks["b"]])
        assert int(flat.sum()) == count
        if 0 < count < 10:
            assert float(values[flat].min()) >= float(values[~flat].max())
    assert torch.cat(list(highest({"a": values[:4], "b": values[4:]}, 3).values())).nonzero().flatten().tolist() == [
        0,
        3,
        5,
    ]


def test_fisher_is_the_mean_of_each_rows_squared_gradient(trained_adapter: Any, encoded: Any) -> None:
    """Against a backward pass for each row alone."""
    from scopewise.models.gradients import mean_gradients, mean_squared_gradients

    model, items = trained_adapter[0], encoded[0]
    got = mean_squared_gradients(forward_of(model), items, 4096, "rows")
    alone = [mean_gradients(forward_of(model), [item], 4096, "row") for item in items]
    for name, value in got.items():
        want = torch.stack([g[name].square() for g in alone]).mean(0)
        assert torch.allclose(value, want, rtol=1e-4, atol=1e-12 + 1e-5 * float(want.max()))


def test_activations_are_those_of_the_answer_tokens(tiny: Any, encoded: Any) -> None:
    """Of the first block's `q_proj`, whose input is the normed embedding, by hand."""
    from scopewise.models.activations import mean_activations

    model, items = tiny[0], encoded[0]
    got = mean_activations(forward_of(model), items, 4096, "rows")["model.layers.0.self_attn.q_proj.weight"]
    block = model.model.layers[0]
    with torch.no_grad():
        tokens = torch.cat([model.model.embed_tokens(torch.tensor(item.answer_ids)) for item in items])
        want = block.input_layernorm(tokens).abs().mean(0)
    assert torch.allclose(got, want, atol=1e-6)


def test_weight_attribution_by_hand(tiny: Any, encoded: Any) -> None:
    """|g_f (θ - g_r / γ)| from the two plain gradients."""
    from scopewise.localizers.weight_attribution import WeightAttribution

    model = tiny[0]
    plain = [plain_gradients(model, items, [i.answer_ids for i in items]) for items in encoded]
    got = WeightAttribution(gamma=1e-3).scores(engine_of(model), Scopes(*encoded))
    for name, parameter in matrices(model).items():
        want = (plain[0][name] * (parameter - plain[1][name] / 1e-3)).abs().detach()
        assert torch.allclose(got[name], want, rtol=1e-3, atol=1e-6 * float(want.max()))


def test_grail_masks_each_terms_gradient(trained_adapter: Any, encoded: Any, make_trainer: Any) -> None:
    """A step of SGD is `-lr · ((1 - U) ∇(-.4 CE_f) + (1 - R) ∇(2 CE_r))`, with the shares of U and R as set."""
    import copy

    model, tokenizer = trained_adapter
    settings = {"overlap_fraction": 0.5, "core_fraction": 0.2}
    region = localized("grail", model, encoded, settings)
    assert region.splits_terms
    start = {n: p.detach().clone() for n, p in matrices(model).items()}
    moved = {}
    for term, weights in {
        "both": {},
        "forget": {"retain_weight": 0.0},
        "retain": {"forget_weight": 0.0},
    }.items():
        for which, given in (("masked", region), ("whole", "all")):
            method = {"method_args": weights}
            trainer = make_trainer(
                copy.deepcopy(model), tokenizer, "grail", region=given, per_device_train_batch_size=16, **method
            )
            trainer.train()
            moved[term, which] = {n: p.detach() - start[n] for n, p in matrices(trainer.model).items()}
    for name in start:
        forget = torch.from_numpy(region.mask(name, "forget"))
        retain = torch.from_numpy(region.mask(name, "retain"))
        assert float((~retain).float().mean()) == pytest.approx(0.2, abs=0.02)
        assert float((~forget).float().mean()) <= 0.5
        want = forget * moved["forget", "whole"][name] + retain * moved["retain", "whole"][name]
        assert torch.allclose(moved["both", "masked"][name], want, atol=1e-6)


def test_named_matches_or_says_how_names_look(tiny: Any, encoded: Any) -> None:
    region = localized("named", tiny[0], encoded, {"pattern": r"layers\.1\.mlp"})
    assert {n.split(".")[2] for n in region.names} == {"1"}
    assert len(region.names) == 3
    with pytest.raises(ConfigError, match=r"model\.layers\.0"):
        localized("named", tiny[0], encoded, {"pattern": "nothing"})


def test_python_settings_are_checked_as_those_of_a_run_file(tiny: Any, forget: Any, retain: Any) -> None:
    with pytest.raises(ConfigError, match="pattern"):
        localize(*tiny, forget, retain, "named", localizer_args={"pattern": "("})
    with pytest.raises(ConfigError, match="repeats"):
        localize(*tiny, forget, retain, localizer_args={"repeat": 3})


def test_masks_are_saved_and_a_region_without_them_is_refused(
    trained_adapter: Any, encoded: Any, tmp_path: Path
) -> None:
    settings = {"unit": "weight", "threshold": "fraction", "fraction": 0.1}
    region = localized("fisher_ratio", trained_adapter[0], encoded, settings)
    region.save(tmp_path / "r.json")
    again = Region.load(tmp_path / "r.json")
    assert again.content_hash() == region.content_hash()
    assert again.parameters == region.parameters
    (tmp_path / "r.safetensors").unlink()
    with pytest.raises(ResultError, match=r"r\.safetensors"):
        Region.load(tmp_path / "r.json")


def test_part_of_a_weight_cannot_be_expressed_by_lora(tiny: Any, encoded: Any, make_trainer: Any) -> None:
    region = localized("gradient", tiny[0], encoded, {"unit": "weight"})
    with pytest.raises(ConfigError, match="region: .* LoRA"):
        make_trainer(*tiny, "ga_descent", peft_config=LORA, region=region)


def test_a_trained_model_has_its_gradients_back(tiny: Any, encoded: Any, make_trainer: Any) -> None:
    """The mask of a region must not outlive the training: what is measured afterwards would see the region alone."""
    from scopewise.models.gradients import mean_gradients

    model, tokenizer = tiny
    region = localized("fisher_ratio", model, encoded, {"unit": "weight"})
    trainer = make_trainer(model, tokenizer, "ga_descent", region=region, learning_rate=1e-9)
    trainer.train()
    gradients = mean_gradients(forward_of(trainer.model), encoded[0], 4096, "rows")
    outside = [gradients[name][torch.from_numpy(~mask.unpack())] for name, mask in region.masks.items()]
    assert all(float((values != 0).float().mean()) > 0.9 for values in outside)
