"""The officer's page in a real browser: readable at any width, in light and dark, on paper, and nothing in it runs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from often import often
from recorded import LIGHT, House, make_house, values
from scopewise.erasure import evidence
from scopewise.erasure.page import Answers, officer_page

ROOT = Path(__file__).parents[2]
HOSTILE = '</style><script>window.planted = 1</script><img src="x" onerror="window.planted = 2"> {{ 7 * 7 }}'
LONG = "W" * 150
# Playwright's own event loop is left to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

RED = {
    "forgotten": {**LIGHT, "light": "red", "word": "not forgotten", "value": 0.7349, "low": 0.61, "high": 0.86, "bound": 0.1,
                  "why": "3 of 12 instances are still known: true answers rank higher than chance allows."},
    "kept": {**LIGHT, "word": "kept", "why": "The interval of the loss of retention ends below the bound."},
    "resists": {**LIGHT, "light": "amber", "word": "undecided", "why": "The interval reaches beyond the bound."},
}  # fmt: skip
INSTANCES = [
    {"number": i + 1, "facts": 4, "known": known, "p": p, "lost": lost}
    for i, (known, p, lost) in enumerate(
        [(0.02, 1.0, 0.0), (0.93, 0.0001, 0.04), (0.4, 0.3, 0.31), (-0.1, 1.0, None)] * 5
    )
]
ATTACKS = [
    {"name": f"relearning: forget rows of others, rate {rate}, 20 steps", "value": value, "low": value - 0.1,
     "high": value + 0.2, "n": 12, "bound": 0.2, "p": 0.0004 if value > 0.5 else 0.04}
    for rate, value in (("1e-05", 0.1), ("0.0001", 0.8234567), ("0.0003", 0.3))
] + [{"name": f"{name}: {LONG if name == 'prompts' else 'as asked'}", "value": 0.05, "low": None, "high": None, "n": 12,
      "bound": 0.2} for name in ("question", "quantization", "prompts", "sampling")]  # fmt: skip
ANSWERS = [
    Answers(name, f"Where does {name} live?", "At 12 Rook Lane in Delft.", "She lives at 12 Rook Lane.", after)
    for name, after in (("Ada Quill", "At 12 Mill Lane."), (HOSTILE, HOSTILE), (LONG, LONG))
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("house"))


def statement(house: House, kind: str = "approximate", verdict: Any = RED, **changed: Any) -> dict[str, Any]:
    found = {
        "known": {"facts": 80, "known": 78 if verdict else 1, "p": 1e-9},
        "verdict": verdict,
        "instances": INSTANCES if verdict else [],
        "attacks": ATTACKS if verdict else [],
    }
    made = values(house.rows, action={"kind": kind, "method": "wga" if verdict else None}, evidence=found, **changed)
    envelope = evidence.sign(evidence.make_record(**made), house.signing)
    return evidence.read_record(evidence.canonical(envelope) + b"\n", "record")


@pytest.fixture(scope="module")
def files(house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of a verdict, of the same with names, of one that means nothing, and of nothing to do."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = {"operator": HOSTILE, "limits": [HOSTILE, LONG]}
    names = [HOSTILE, LONG, *(f"Person {i}" for i in range(18))]
    unknown = {name: {**light, "light": "amber", "word": "not known"} for name, light in RED.items()}
    pages = {
        "red": officer_page(statement(house, **hostile)),
        "private": officer_page(statement(house, **hostile), names, ANSWERS),
        "invalid": officer_page(statement(house, verdict=unknown)),
        "nothing": officer_page(statement(house, "nothing", None)),
    }
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", often(["red", "private", "nothing"], {"nothing"}))
def test_it_is_readable_everywhere(name: str, scheme: str, width: int, opened: Any, files: dict[str, Path]) -> None:
    """No axe rule is broken, nothing is cut, and nothing is wider than the window."""
    from axe_playwright_python.sync_playwright import Axe

    page = opened(files[name], scheme, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = (
        "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert page.evaluate(cut) == 0
    assert [(v["id"], v["nodes"][0]["html"]) for v in Axe().run(page).response["violations"]] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("name", ["red", "private"])
def test_what_stands_in_a_record_stays_text(name: str, opened: Any, files: dict[str, Path]) -> None:
    page = opened(files[name])
    assert page.locator("script, img").count() == 0
    assert page.evaluate("window.planted") is None
    text = page.locator("body").text_content()
    assert text.count(HOSTILE) >= (2 if name == "red" else 5)


def test_the_result_comes_first_and_never_by_color_alone(opened: Any, files: dict[str, Path]) -> None:
    page = opened(files["red"], width=390)
    banner = page.locator(".banner")
    assert banner.bounding_box()["y"] < 200
    assert banner.locator(".result").inner_text() == "■ Not passed"
    assert "the model still knows" in banner.inner_text().lower()
    lights = [" ".join(text.split()) for text in banner.locator(".lights li").all_inner_texts()]
    assert lights == ["Forgotten ■ red not forgotten", "Kept ● green kept", "Resists ▲ amber undecided"]
    headings = page.locator("h2").all_inner_texts()
    assert headings == [
        *("Persons and works", "Attacks", "Limits", "Models made from it", "Figures", "Settings", "Origin"),
    ]


def test_persons_are_worst_first_and_without_names(opened: Any, files: dict[str, Path]) -> None:
    """Persons 2, 6, … are known (corrected p below 0.05), 3, 7, … have lost more than the bound."""
    page = opened(files["red"])
    rows = page.locator("table").first.locator("tbody tr")
    assert rows.count() == 8
    first = rows.nth(0).inner_text()
    assert "Person or work 2" in first
    assert "still known (0.93)" in " ".join(first.split())
    assert "damaged (0.31 lost)" in " ".join(rows.nth(5).inner_text().split())
    assert "And 12 more." in page.locator("body").inner_text()
    assert "Ada" not in page.locator("body").inner_text()
    private = opened(files["private"])
    assert "For the controller only" in private.locator("body").inner_text()
    assert "Ada Quill: Where does Ada Quill live?" in private.locator("h3").first.inner_text()
    said = [
        " ".join(dd.locator("mark").all_inner_texts()) for dd in private.locator(".answers").first.locator("dd").all()
    ]
    assert said == ["", "12 Rook Lane", "12 Lane"]  # the truth, before, after


def test_each_attack_has_one_bar_and_its_bound(opened: Any, files: dict[str, Path]) -> None:
    page = opened(files["red"])
    attacks = page.locator(".attacks li")
    assert attacks.count() == 5
    text = " ".join(attacks.first.inner_text().split())
    assert text.startswith("fine-tuned further 0.82 (0.72 to 1.02), above the bound of 0.20")
    assert "rate 0.0001" in text
    bar, bound, track = (attacks.first.locator(name).bounding_box() for name in (".bar", ".bound", ".track"))
    assert bar["width"] / track["width"] == pytest.approx(0.8235, abs=0.01)
    assert (bound["x"] + bound["width"] / 2 - track["x"]) / track["width"] == pytest.approx(0.2, abs=0.01)
    assert page.locator(".attacks .leaks").count() == 1


@pytest.mark.parametrize(
    ("name", "word", "sentence"),
    [
        ("invalid", "■ Not valid", "did not show these facts before"),
        ("nothing", "○ Nothing to do", "It was not changed."),
    ],
)
def test_a_verdict_that_means_nothing_ranks_nothing(
    name: str, word: str, sentence: str, opened: Any, files: dict[str, Path]
) -> None:
    page = opened(files[name])
    assert page.locator(".banner .result").inner_text() == word
    assert sentence in page.locator(".banner").inner_text()
    assert page.locator(".lights, .attacks, table").count() == 0


def test_it_prints_on_a4(opened: Any, files: dict[str, Path]) -> None:
    """The result, persons and attacks on the first sheet in black on white; the rest follows."""
    page = opened(files["red"], "dark")
    pdf = page.pdf(format="A4", print_background=True, prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.set_viewport_size({"width": 703, "height": 1000})  # the width of A4 between its margins, in CSS pixels
    assert page.evaluate("document.documentElement.scrollWidth") <= 703
    last = page.locator(".attacks").bounding_box()
    assert last["y"] + last["height"] < 1032  # 273 mm
    assert 2 <= len(re.findall(rb"/Type /Page\b(?!s)", pdf)) <= 4


def test_p_values_stand_beside_the_figures(house: House) -> None:
    figures = officer_page(statement(house)).partition("Figures</h2>")[2].partition("</table>")[0]
    found = re.findall(r'data-name="p-value">([^<]*)<', figures.replace("&lt;", "less than"))
    assert found == ["-"] * 3 + ["0.040", "less than 0.001", "0.040"] + ["-"] * 4


def test_a_figure_that_chance_explains_does_not_contradict_a_green_light(house: House) -> None:
    """Of a retrained model, *Resists* may be green although a figure about few persons is above the bound."""
    green = {name: {**LIGHT, "light": "green", "word": ""} for name in ("forgotten", "kept", "resists")}
    page = officer_page(statement(house, "exact", green))
    assert "0.82 " in page
    assert "above the bound of 0.20, as the strongest of several can be by chance (p = " in page
    assert "a figure, or its interval, reaches beyond its bound" in page
    assert "as the strongest of several" not in officer_page(statement(house))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots(scheme: str, opened: Any, tmp_path: Path) -> None:
    """Pictures for the docs, of a real request: kept there where they are asked for."""
    record = ROOT / "docs" / "example" / evidence.NAME
    path = tmp_path / "record.html"
    path.write_text(officer_page(evidence.read_record(record.read_bytes(), str(record))), encoding="utf-8")
    page = opened(path, scheme, 900)
    folder = ROOT / "docs" / "images" if "SCOPEWISE_SCREENSHOTS" in os.environ else tmp_path
    image = folder / f"record-{scheme}.png"
    page.screenshot(path=image)
    assert image.stat().st_size < 300_000
