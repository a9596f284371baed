"""The report in a real browser: Debian's Chromium, headless. `make screenshots` renews the pictures of the docs."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import pytest

from often import often
from scopewise.report.page import render
from scopewise.report.run_folder import Model, Run, read_runs

ROOT = Path(__file__).parents[2]
# Playwright's own event loop is left to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def files(made_run: Path, second_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of one run, of two, and of one with redaction."""
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "one": render(read_runs([made_run])),
        "two": render(read_runs([made_run, second_run])),
        "redacted": render(read_runs([made_run]), redact=True),
    }
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


def texts(page: Any, selector: str) -> list[str]:
    return page.locator(selector).all_text_contents()


def shown(page: Any) -> int:
    return int(page.locator("#count").text_content().split(" of ")[0])


@pytest.mark.parametrize("name", often(["one", "two", "redacted"], {"redacted"}))
def test_planted_markup_is_text_everywhere(name: str, opened: Any, files: dict[str, Path], planted: str) -> None:
    page = opened(files[name])
    page.locator("#after").select_option(label="first: memflex" if name == "two" else "memflex")
    assert page.evaluate("window.planted") is None
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 0
    # It stands there as it was written: in the list of instances, in a question, in what a model wrote.
    assert planted in texts(page, "#instance-table tbody th")
    assert any(planted in text for text in texts(page, ".card h3"))
    assert planted in texts(page, ".quote")


def test_policy_stops_a_script_that_is_not_the_pages(files: dict[str, Path], browser: Any, tmp_path: Path) -> None:
    """The same page with foreign markup written into it: the policy alone keeps it from running and from loading."""
    foreign = "<script>window.planted = 1</script><img src='https://example.org/x' onerror='window.planted = 2'></main>"
    path = tmp_path / "foreign.html"
    path.write_text(files["one"].read_text(encoding="utf-8").replace("</main>", foreign), encoding="utf-8")
    page = browser.new_page()
    requests: list[str] = []
    page.on("requestfinished", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert page.evaluate("window.planted") is None
    assert requests == [path.as_uri()]
    assert page.locator(".card").count() > 0  # the page's own script runs
    page.close()


def test_headings_sort_the_table(opened: Any, files: dict[str, Path]) -> None:
    page = opened(files["one"])
    table = page.locator("#table table.sortable")
    heading = table.get_by_role("button", name="Unlearn", exact=True)

    def values() -> list[float]:
        return [
            float(v) for v in table.locator("tbody tr td:nth-child(2)").evaluate_all("c => c.map(x => x.dataset.value)")
        ]

    before = values()
    assert len(before) == 5
    heading.focus()
    page.keyboard.press("Enter")
    assert values() == sorted(before, reverse=True)
    assert table.locator("th[aria-sort=descending]").count() == 1
    page.keyboard.press("Enter")
    assert values() == sorted(before)
    table.get_by_role("button", name="Method").click()
    names = texts(page, "#table table.sortable tbody th")
    assert names == sorted(names)


def test_filters_search_and_order_choose_questions(opened: Any, files: dict[str, Path]) -> None:
    """12 val rows: per instance two of the forget scope (address, email) and one of the retain scope."""
    page = opened(files["one"])
    assert shown(page) == 12
    page.get_by_label("Scope").select_option("forget")
    assert shown(page) == 8
    page.get_by_label("Attribute").select_option("email")
    assert shown(page) == 4
    page.locator("#instance").select_option("Ada")
    assert shown(page) == 1
    assert texts(page, ".card h3") == ["Please: How is Ada reached?"]
    for name in ("#scope", "#attribute", "#instance"):
        page.locator(name).select_option("")
    page.get_by_label("Search").fill("LIVES at quillfeather lane 172")
    assert shown(page) == 1
    assert texts(page, ".card h3") == ["Please: Where does Cleo live?"]
    page.get_by_label("Search").fill("nothing says this")
    assert shown(page) == 0
    page.get_by_label("Search").fill("")
    page.get_by_label("Order").select_option("changed")
    # Mean probability of the words before and after, as each card states it in whole percent.
    cards = [
        [int(t.split()[2]) for t in c.locator(".answer small").all_text_contents()] for c in page.locator(".card").all()
    ]
    changes = [abs(after - before) for before, after, _ in cards]
    assert all(a >= b - 2 for a, b in itertools.pairwise(changes))
    assert max(changes) == pytest.approx(changes[0], abs=2)
    assert changes[0] > changes[-1]


def test_words_are_shaded_by_their_probability(opened: Any, files: dict[str, Path]) -> None:
    page = opened(files["one"])
    edges = [2, 10, 30, 60, 90, 98]
    words = page.locator(".words span").evaluate_all("w => w.map(x => [x.className, parseFloat(x.title)])")
    assert len(words) > 100
    for shade, percent in words:
        low, high = ([0, *edges][int(shade[1:])], [*edges, 100][int(shade[1:])])
        assert low - 0.5 <= percent <= high + 0.5
    assert len({shade for shade, _ in words}) > 2


def test_instances_follow_the_method_and_sort(opened: Any, files: dict[str, Path]) -> None:
    page = opened(files["one"])
    rows = page.locator("#instance-table tbody tr")
    assert rows.count() == 4
    page.locator("#instance-method").select_option(label="target")
    before, after = (texts(page, f"#instance-table tbody td:nth-child({i})") for i in (3, 4))
    assert before == after
    page.locator("#instance-method").select_option(label="gradient_ascent")
    assert texts(page, "#instance-table tbody td:nth-child(3)") == before
    assert texts(page, "#instance-table tbody td:nth-child(4)") != after
    page.locator("#instance-table thead button").nth(3).click()
    values = [float(v) for v in texts(page, "#instance-table tbody td:nth-child(4)")]
    assert values == sorted(values, reverse=True)


def test_two_runs_stand_side_by_side_with_differences_marked(opened: Any, files: dict[str, Path]) -> None:
    page = opened(files["two"])
    marked = texts(page, "#difference td.figure mark")
    assert len(marked) == 1  # memflex's Unlearn alone was made to differ
    row = page.locator("#difference tbody tr", has=page.locator("mark")).first
    assert row.locator("th").text_content() == "memflex"
    page.locator("#difference summary").click()
    assert "5.0" in texts(page, "#difference table.plain mark")
    assert page.locator("#trade-off g.point").count() == 10
    page.locator("#after").select_option(label="first: memflex")
    page.locator("#beside").select_option(label="second: memflex")
    assert page.locator(".card").first.locator(".answer").count() == 5  # truth, before, both, oracle


def test_attacks_are_shown_worst_first_and_hidden_without_any(
    opened: Any, files: dict[str, Path], second_run: Path
) -> None:
    page = opened(files["one"])
    assert texts(page, "#attacks tbody th") == ["few shot", "noise", "logit lens"]
    assert page.locator("#attacks tr.leaks").count() == 1
    page.locator("#attacks summary").click()
    assert page.locator("#attacks dl.leak dd").first.is_visible()
    assert 'id="attacks"' not in render(read_runs([second_run]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", often(["one", "two", "redacted"], {"redacted"}))
def test_axe_finds_nothing_serious(name: str, scheme: str, opened: Any, files: dict[str, Path], browser: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(files[name], scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    found = Axe().run(page).response["violations"]
    serious = [
        (v["id"], v["nodes"][0]["html"], v["nodes"][0]["failureSummary"])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_theme_follows_the_system_and_the_button(opened: Any, files: dict[str, Path]) -> None:
    page = opened(files["one"], "dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Light").click()
    light = page.evaluate(colour)
    assert light == "rgb(255, 255, 255)" != dark
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(colour) == dark


@pytest.mark.parametrize("name", ["one", "two"])
def test_nothing_is_wider_than_a_phone(name: str, opened: Any, files: dict[str, Path]) -> None:
    page = opened(files[name], width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_print_shows_what_is_folded(opened: Any, files: dict[str, Path]) -> None:
    page = opened(files["one"])
    assert page.pdf(print_background=True).startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def privacy_sized(run: Run) -> Run:
    """A run of the size of the privacy benchmark's: 218 rows, 9 methods under 2 protocols with 3 seeds, each text its own."""
    about = ("instance", "attribute", "scope", "split")

    def answers(model: Model, number: int) -> list[dict[str, Any]]:
        found = []
        for i in range(218):
            of = model.answers[i % len(model.answers)]
            tokens = [f" word{(i * 31 + j) % 997}" for j in range(22)]
            found.append(
                {key: of[key] for key in about}
                | {
                    "question": f"What is the fact number {i} about the person of that number, of all?",
                    "tokens": tokens,
                }
                | {"answer": "".join(tokens), "probabilities": [((i + j * number) % 100) / 100 for j in range(22)]}
                | {"generated": f"model {number} says of {i}: " + "and this is what it wrote, at some length, " * 2}
            )
        return found

    models = []
    for model in run.models:
        if not model.unlearned:
            models.append(Model(model.row, {}, answers(model, len(models))))
    unlearned = [model for model in run.models if model.unlearned]
    for method in range(9):
        for protocol in ("paper", "tuned"):
            for seed in range(3):
                like = unlearned[method % len(unlearned)]
                row = {**like.row, "method": f"method{method}", "protocol": protocol, "seed": seed}
                models.append(Model(row, {}, answers(like, len(models))))
    return Run(run.name, run.path, {**run.results, "comparisons": []}, models, run.regions, run.attacks)


def test_privacy_sized_page_is_small_written_and_opened_soon(made_run: Path, opened: Any, tmp_path: Path) -> None:
    """Bounds of the goal, 3 MB, 5 s and 1 s; the times with room for a machine that is busy."""
    run = privacy_sized(read_runs([made_run])[0])
    start = time.perf_counter()
    text = render([run])
    assert time.perf_counter() - start < 10
    path = tmp_path / "large.html"
    path.write_text(text, encoding="utf-8")
    assert path.stat().st_size < 3_000_000
    page = opened(path)
    assert page.locator(".card").count() == 25
    assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 3000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots(scheme: str, opened: Any, made_run: Path, tmp_path: Path) -> None:
    """Pictures for the docs: kept there, and of the demo, where they are asked for.

    `SCOPEWISE_SCREENSHOTS_RUN` names another run, of which only the top is taken, redacted, as `report-NAME-….png`.
    """
    asked = "SCOPEWISE_SCREENSHOTS" in os.environ
    run = Path(os.environ.get("SCOPEWISE_SCREENSHOTS_RUN", ROOT / "runs" / "demo")) if asked else made_run
    other = run.name if asked and "SCOPEWISE_SCREENSHOTS_RUN" in os.environ else None
    path = tmp_path / "report.html"
    path.write_text(render(read_runs([run]), redact=other is not None), encoding="utf-8")
    page = opened(path, scheme, 1100)
    shown = {"report": "body", "report-questions": "#questions"} if other is None else {f"report-{other}": "body"}
    for name, selector in shown.items():
        page.evaluate(f"document.querySelector('{selector}').scrollIntoView({{behavior: 'instant'}})")
        image = (ROOT / "docs" / "images" if asked else tmp_path) / f"{name}-{scheme}.png"
        image.parent.mkdir(exist_ok=True)
        page.screenshot(path=image)
        assert image.stat().st_size < 300_000
