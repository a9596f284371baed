"""The tables of methods, localizers, metrics and benchmarks, their folders and their documents agree."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

import scopewise
from scopewise import registry
from scopewise.attacks.base import Attack, make_attack
from scopewise.data.rows import BenchmarkLoader
from scopewise.errors import ConfigError
from scopewise.localizers.base import Localizer, make_localizer
from scopewise.localizers.gradient import Gradient
from scopewise.methods.base import Method, make_method
from scopewise.methods.wrappers.base import Wrapper
from scopewise.metrics.base import Metric
from scopewise.run_file import parse_config

ROOT = Path(__file__).parents[2]
PACKAGE = Path(str(scopewise.__file__)).parent
BASES = {
    "methods": Method,
    "wrappers": Wrapper,
    "localizers": Localizer,
    "metrics": Metric,
    "benchmarks": BenchmarkLoader,
    "attacks": Attack,
}
ENTRIES = [(kind, name) for kind in registry.TABLES for name in registry.table(kind)]
FOLDERS = ["methods", "localizers", "metrics"]


def test_all_kinds_are_tested() -> None:
    assert set(BASES) == set(registry.TABLES)


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_entry_is_importable_named_and_described(kind: str, name: str) -> None:
    cls = registry.lookup(kind, name)
    assert issubclass(cls, BASES[kind])
    if kind != "methods":  # a method's name is its key alone
        assert cls.name == name
    assert registry.summary(registry.table(kind)[name]) == inspect.getdoc(cls).split("\n", 1)[0]
    assert registry.lookup(kind, name.replace("_", "-")) is cls


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_file_has_a_row(kind: str) -> None:
    others = {"__init__", "base", "columns", "open_unlearning"}  # bases, which plugins subclass
    files = {p.stem for p in (PACKAGE / kind).glob("*.py")} - others
    targets = registry.table(kind).values()
    assert {target.partition(":")[0] for target in targets} == {f"scopewise.{kind}.{file}" for file in files}


@pytest.mark.parametrize("kind", FOLDERS)
def test_classes_are_abstract_or_in_the_table(kind: str) -> None:
    """What is subclassed is not in the table; everything else outside `base` is."""
    classes = {registry.lookup(kind, name) for name in registry.table(kind)}
    modules = {cls.__module__ for cls in classes}
    bases = {base for cls in classes for base in cls.__mro__[1:]}
    assert not bases & classes
    for module in map(sys.modules.get, modules):
        own = {c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__}
        assert {c for c in own if issubclass(c, BASES[kind])} <= classes | bases


@pytest.mark.parametrize(("kind", "name"), [e for e in ENTRIES if e[0] != "benchmarks"])
def test_documented_as_its_docstring_says(kind: str, name: str, sections: Any) -> None:
    document = ROOT / "docs" / sections.PAGES[kind].name
    text = sections.section(kind, name, registry.lookup(kind, name))
    assert f"\n{text}\n" in document.read_text(encoding="utf-8"), (
        f"docs/{document.name} is out of date; run `make docs`"
    )


@pytest.mark.parametrize("name", registry.table("methods"))
def test_a_methods_localizer_is_known(name: str) -> None:
    assert make_method(name).localizer in registry.table("localizers")


@pytest.mark.parametrize("kind", registry.TABLES)
def test_unknown_name_lists_the_known(kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.lookup(kind, "zzz")
    assert all(name in str(caught.value) for name in registry.table(kind))


def test_unknown_kind() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'methods'\?"):
        registry.table("method")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"retain_wieght": 1.0}, "Did you mean 'retain_weight'?"),
        ({"retain_weight": True}, "unlearn.method_args.retain_weight: True; must be a number"),
        ({"retain_weight": "much"}, "unlearn.method_args.retain_weight: 'much'; must be a number"),
        pytest.param(
            {"retain": "l2"},
            "unlearn.method_args.retain: 'l2'; none, or some of ce, kl, js, ap, hidden joined by '+'",
        ),
        pytest.param(
            {"retain_data": "all"},
            "unlearn.method_args.retain_data: 'all'",
        ),
        ({"retain_data": "both", "retain": "none"}, "retain_data: 'both'; nothing is retained"),
    ],
)
def test_wrong_hyper_parameters(arguments: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_method("ga-kl", **arguments)
    assert part in str(caught.value)


def test_public_names_exist() -> None:
    assert all(getattr(scopewise, name) is not None for name in scopewise.__all__)
    assert set(scopewise.__all__) == set(scopewise._WHERE)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("gradient", {"sigma": 1.5}, "sigma"),
        ("gradient", {"mu": -0.5}, "mu"),
        ("gradient", {"threshold": "quantiles"}, "threshold"),
        ("gradient", {"repeats": 0}, "repeats"),
        ("gradient", {"repeats": 1.5}, "repeats"),
        ("gradient", {"gradient_gigabytes": 0}, "gradient_gigabytes"),
        ("gradient", {"gradient_gigabytes": True}, "gradient_gigabytes"),
        ("fisher_ratio", {"fraction": 1.5}, "fraction"),
        ("fisher_ratio", {"fraction": float("nan")}, "fraction"),
        ("weight_attribution", {"gamma": 0}, "gamma"),
        ("grail", {"core_fraction": 1}, "core_fraction"),
        ("named", {"pattern": "["}, "pattern"),
        ("named", {"pattern": 3}, "pattern"),
        ("random", {"size_of": "gradiant"}, "size_of"),
        ("random", {"size_of": "random"}, "size_of"),
    ],
)
def test_wrong_settings_of_a_localizer(name: str, arguments: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_localizer(name, **arguments)
    assert str(caught.value).startswith(f"localize.localizer_args.{key}: ")


def test_settings_of_a_localizer() -> None:
    assert make_localizer(
        "gradient", gradient_gigabytes=None, sigma=7.5, threshold="absolute", repeats=3.0
    ) == Gradient(sigma=7.5, threshold="absolute", repeats=3)
    with pytest.raises(ConfigError, match="unknown 'mmu'.*Did you mean 'mu'"):
        make_localizer("gradient", mmu=1)
    with pytest.raises(ConfigError, match="takes none"):
        make_localizer("all", mu=1)


@pytest.mark.parametrize("key", ["mu", "threshold", "size_of", "gradient_gigabytes"])
def test_a_setting_by_its_old_name(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"localize\.{key}: .* localize\.localizer_args\.{key}"):
        parse_config({"localize": {key: "x"}})


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("relearning", {"steps": 0}, "steps"),
        ("relearning", {"learning_rates": [0.1, -1]}, "learning_rates[1]"),
        ("sampling", {"samples": 1}, "samples"),
        ("sampling", {"max_new_tokens": 1.5}, "max_new_tokens"),
        ("prompts", {"file": 3}, "file"),
        ("noise", {"sizes": []}, "sizes"),
        ("pruning", {"fractions": [0.5, 1]}, "fractions[1]"),
        ("merging", {"fractions": 0.5}, "fractions"),
        ("extraction", {"fractions": [1]}, "fractions[0]"),
        ("few_shot", {"examples": [0.5]}, "examples[0]"),
        ("multiple_choice", {"options": 1}, "options"),
        ("membership", {"others": "many"}, "others"),
        ("probe", {"ridge": 0}, "ridge"),
        ("sampling", {"leak_fraction": 2}, "leak_fraction"),
    ],
)
def test_wrong_settings_of_an_attack(name: str, arguments: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_attack(name, **arguments)
    assert str(caught.value).startswith(f"attack.attack_args.{name}.{key}: ")


def test_settings_of_attacks_stand_under_their_names() -> None:
    config = parse_config({"attack": {"attack_args": {"relearning-speed": {"steps": 3}}}})
    assert config.attack.attack_args == {"relearning_speed": {"steps": 3}}
    with pytest.raises(ConfigError, match="Did you mean 'relearning'"):
        parse_config({"attack": {"attack_args": {"relaerning": {}}}})
    with pytest.raises(ConfigError, match=r"attack\.steps: .* attack\.attack_args\.relearning\.steps"):
        parse_config({"attack": {"steps": 3}})
