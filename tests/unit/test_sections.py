"""`docs/make_sections.py` on a small method and a small localizer: what it prints, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from scopewise import registry
from scopewise.localizers.base import ScoreLocalizer
from scopewise.methods.base import Preference


@dataclass(frozen=True, kw_only=True)
class Small(Preference):
    """A small method.

        L = |y_<t| * 2
          + 1

    Choose it never; its
    knob is `size`.

    Source: none; a | b.

    Deviations: none.

    Attributes:
        size: Of the thing, |x| or
            more. Default: a guess.
        retain: Default: another guess.
        retain_weight: Of the small one. Default: a third guess.
    """

    size: float = 1e-3
    retain: str = "kl"
    retain_weight: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Few(ScoreLocalizer):
    """A small localizer.

    Choose it never.

    Source: none.

    Deviations: none.

    Attributes:
        gamma: A number. Default: a guess.
    """

    gamma: float = 1e-8

    name: ClassVar[str] = "few"


CLASSES: dict[str, type] = {"methods": Small, "localizers": Few}


def test_method(sections: Any) -> None:
    """Formula as it stands, leads in bold, own and overridden options with the code's defaults, then the base's."""
    assert (
        sections.section("methods", "small", Small)
        == """### small

*Retain term `kl` over retain rows; mean over answers; localizer `all`; computed before the first step: preferred
answers; each step also runs the model before unlearning on retain rows.*

A small method.

    L = |y_<t| * 2
      + 1

**Choose it** never; its knob is `size`.

**Source:** none; a | b.

**Deviations:** none.

| name | default | meaning | default from |
| --- | --- | --- | --- |
| `size` | 0.001 | Of the thing, \\|x\\| or more. | a guess |
| `retain` | `kl` | Retain term: `none`, or some of `ce`, `kl`, `js`, `ap`, `hidden` joined by `+`. | another guess |
| `retain_weight` | 2 | Of the small one. | a third guess |
| `alternative` | `refusal` | Where the preferred answers come from: `row` (the rows' own `alternative`), `refusal` (forty \
sentences shipped with the package), or `generated` (by the model itself before unlearning). | ours; it takes neither \
data nor a model |
"""
    )


def test_localizer(sections: Any) -> None:
    """Its own settings first, then those of every localizer by score; defaults of the `localize` section."""
    text = sections.section("localizers", "few", Few)
    assert "*Scores every weight; the default of no method.*" in text
    assert "| `gamma` | 1e-08 | A number. | a guess |\n| `unit` | `module` |" in text


def test_one_without_options_says_so(sections: Any) -> None:
    text = sections.section("methods", "gradient_ascent", registry.lookup("methods", "gradient_ascent"))
    assert text.endswith("\n\nNo hyper-parameter of its own.\n")


@pytest.mark.parametrize(
    ("kind", "old", "new", "sentence"),
    [
        (
            "methods", "Choose it", "Take it",
            "methods few: no paragraph begins with 'Choose it'; add one to the docstring of Small",
        ),
        ("methods", "Source:", "From", "methods few: no paragraph begins with 'Source:'; add one to the docstring of Small"),
        ("localizers", "Deviations: none.", "", "localizers few: no paragraph begins with 'Deviations:'; add one to the"),
        (
            "methods", "retain: Default: another guess.", "",
            "methods few: the hyper-parameter 'retain' is not described; add 'retain: what it is. Default: its origin.' "
            "to 'Attributes:' of Small",
        ),
        ("methods", "Default: a guess.", "", "methods few: the hyper-parameter 'size' is not described; add"),
        (
            "methods", "Of the thing, |x| or\n            more. ", "",
            "methods few: the hyper-parameter 'size' is not described; add",
        ),
        ("methods", "size: Of", "seize: Of", "methods few: 'seize' stands under 'Attributes:' and is no hyper-parameter;"),
        ("localizers", "gamma: A", "gramma: A", "localizers few: 'gramma' stands under 'Attributes:' and is no setting;"),
        (
            "localizers", "gamma: A number.", "unit: A number.",
            "localizers few: the setting 'gamma' is not described; add 'gamma: what it is. Default: its origin.' to "
            "'Attributes:' of Few",
        ),
    ],
)  # fmt: skip
def test_refused(sections: Any, monkeypatch: Any, kind: str, old: str, new: str, sentence: str) -> None:
    cls = CLASSES[kind]
    assert cls.__doc__ is not None
    assert old in cls.__doc__
    monkeypatch.setattr(cls, "__doc__", cls.__doc__.replace(old, new))
    with pytest.raises(SystemExit) as caught:
        sections.section(kind, "few", cls)
    assert str(caught.value).startswith(sentence)


def test_a_class_without_a_docstring(sections: Any) -> None:
    """`dataclass` writes a signature there; the docstring of a base is none of its own either."""

    @dataclass(frozen=True, kw_only=True)
    class Silent(Small):
        size: float = 2.0

    with pytest.raises(SystemExit, match="methods silent: no paragraph begins with 'Choose it'"):
        sections.section("methods", "silent", Silent)


def test_what_a_base_says_of_its_family_is_in_each_section(sections: Any) -> None:
    """Before the source, and only from bases in the same file: `MembershipMetric` says when a row is skipped."""
    found = sections.section("metrics", "mia_zlib", registry.lookup("metrics", "mia_zlib"))
    family, source = found.index("area under the ROC curve"), found.index("**Source:**")
    assert found.index("zlib-compressed") < family < source
    assert "Base of" not in found
