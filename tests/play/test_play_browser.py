"""The playground in a real browser: Debian's Chromium, headless. `SCOPEWISE_SCREENSHOTS=1` renews the docs' pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# Playwright's own event loop is left to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, served: Any) -> Iterator[Any]:
    """The page as its address opens it; console errors and requests elsewhere fail the test."""
    context = browser.new_context(color_scheme=request.param, viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith(served.address.split("#")[0]) else wrong.append(r.url))
    opened.scheme = request.param
    opened.goto(served.address)
    yield opened
    context.close()
    assert wrong == []


def choose(page: Any, question: str) -> None:
    page.get_by_label("Example of the benchmark").select_option(label=question)


def done(page: Any) -> None:
    page.get_by_text("Done.", exact=True).wait_for(timeout=30_000)


def test_a_question_is_answered_three_times_and_a_leak_reported(page: Any, run_folder: Path, planted: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    choose(page, "What is the tag of Ada?")
    assert page.get_by_label("Question").input_value() == "What is the tag of Ada?"
    page.get_by_label("Unlearned model").select_option("gradient_ascent/paper/seed0")
    page.evaluate(
        """() => { window.grown = new Set();
        new MutationObserver(() => { for (const a of document.querySelectorAll('.answer'))
            window.grown.add(a.parentElement.dataset.role + a.childElementCount); })
        .observe(document.getElementById('answers'), {childList: true, subtree: true}); }"""
    )
    page.get_by_role("button", name="Ask", exact=True).click()
    done(page)

    assert page.locator("article").count() == 3
    target = page.locator("article[data-role=target]")
    assert target.locator(".answer").text_content() == planted
    # The planted markup is text: no element was made of it, and nothing of it ran.
    assert page.evaluate("window.planted") is None
    assert page.locator(".answer script, .answer img").count() == 0
    # The answers grew side by side, and did not come at once.
    grown = page.evaluate("[...window.grown]")
    # A busy browser shows several pieces at once, perhaps all of a short answer; so count the states of all three together.
    assert {state.rstrip("0123456789") for state in grown} == {"target", "unlearned", "oracle"}
    assert len(grown) > 3

    tokens = target.locator(".answer .token")
    assert tokens.count() > 20
    assert "p4" in tokens.nth(3).get_attribute("class")  # what it learnt by heart it is sure of
    target.locator(".answer").focus()
    page.keyboard.press("ArrowRight")
    detail = target.locator(".detail").inner_text()
    assert detail.splitlines()[0].endswith("%")
    assert detail.splitlines()[1].startswith("Most probable: ")

    axe = Axe().run(page)
    serious = [v["id"] for v in axe.response["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == []

    target.get_by_role("button", name="Report this leak").click()
    page.get_by_text("Written to probes.jsonl.").wait_for()
    (line,) = (run_folder / "probes.jsonl").read_text(encoding="utf-8").splitlines()
    probe = json.loads(line)
    assert (probe["role"], probe["answer"], probe["truth"]) == ("target", planted, planted)
    assert target.get_by_role("button", name="Reported").is_disabled()

    choose(page, "Where does Ada live?")
    page.get_by_role("button", name="Ask", exact=True).click()
    done(page)
    page.evaluate("document.getElementById('run').textContent = 'runs/ada'")  # not the folder of a test
    target.locator(".answer").focus()
    page.keyboard.press("ArrowRight")
    page.screenshot(path=_picture(f"play-{page.scheme}.png", run_folder), full_page=True)


def test_stopping_and_switches(page: Any, run_folder: Path) -> None:
    page.get_by_label("Question").fill("Tell me more")
    page.get_by_label("Temperature").fill("5")
    page.get_by_label("Maximum tokens").fill("200")
    page.get_by_label("Seed").fill("3")  # whose answers are long: 562 tokens in all
    # A busy browser may hear of a click only when all is said, so the page itself presses Stop at the first token.
    page.evaluate(
        """() => new MutationObserver((_, observer) => { if (document.querySelector('.token')) {
            observer.disconnect(); document.getElementById('stop').click(); } })
        .observe(document.getElementById('answers'), {childList: true, subtree: true})"""
    )
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("Stopped.").wait_for()
    count = page.locator(".token").count()
    assert count < 500
    page.wait_for_timeout(300)
    assert page.locator(".token").count() == count
    # The direct prompt changes the answer, and so does its wording.
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Maximum tokens").fill("10")
    choose(page, "Where does Ada live?")
    said = []
    for step in (
        lambda: None,
        lambda: page.get_by_label("Ask the model to refuse").check(),
        lambda: page.get_by_label("Wording").select_option("copyright"),
    ):
        step()
        page.get_by_role("button", name="Ask", exact=True).click()
        done(page)
        said.append([a.text_content() for a in page.locator(".answer").all()])
        assert len(said[-1]) == 3
    assert said[0] != said[1] != said[2]


def test_an_error_is_shown_and_a_wrong_key_refused(browser: Any, served: Any) -> None:
    page = browser.new_page()
    page.goto(served.address)
    page.get_by_label("Question").fill("Tell me more")
    page.get_by_label("Maximum tokens").fill("1000")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("room for 256").wait_for()
    page.goto("about:blank")
    page.goto(served.address.split("#")[0] + "#wrong")
    page.get_by_text("key: missing or wrong; open the whole address").wait_for()
    assert page.get_by_role("button", name="Ask", exact=True).is_disabled()
    page.close()


def test_a_question_may_be_typed_before_the_run_is_here(browser: Any, served: Any, rows: list[dict[str, str]]) -> None:
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    held: list[Any] = []
    page.route("**/api/run", lambda route: held.append(route))
    page.goto(served.address)
    page.get_by_label("Question").fill(rows[0]["question"])
    held[0].continue_()
    page.locator("#truth").wait_for()  # what was typed is looked up once the rows are here
    page.close()
    assert wrong == []


def _picture(name: str, folder: Path) -> Path:
    return (ROOT / "docs" / "images" if os.environ.get("SCOPEWISE_SCREENSHOTS") else folder) / name
