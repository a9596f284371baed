"""The playground of a deletion request: the exported model beside the one before, under the result in the page's words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from scopewise.erasure.played import is_request, open_request
from scopewise.errors import ResultError

ROOT = Path(__file__).parents[2]
# Playwright's own event loop is left to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_the_exported_model_stands_beside_the_target(request_folder: Path, made_run: Path) -> None:
    assert is_request(request_folder)
    assert not is_request(made_run)
    opened = open_request(request_folder)
    assert opened.models == {"target": str(made_run / "target"), "export": str(request_folder / "export")}
    assert opened.unlearned == ["export"]
    assert [row.scope for row in opened.examples] == ["forget", "forget", "retain", "retain"]
    assert opened.result is not None
    assert (opened.result["color"], opened.result["word"]) == ("red", "Not passed")


def test_without_a_verdict_there_is_no_result(request_folder: Path, tmp_path: Path) -> None:
    """A request that is not finished, and one with nothing to do, which exported nothing."""
    for path in request_folder.iterdir():
        if path.name != "steps":
            (tmp_path / path.name).symlink_to(path)
    assert open_request(tmp_path).result is None
    (tmp_path / "export").unlink()
    with pytest.raises(ResultError, match=str(tmp_path)):
        open_request(tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_question_of_the_request_is_asked_and_what_is_told_is_marked(
    scheme: str, browser: Any, served_request: Any, request_folder: Path, planted: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(served_request.address)
    result = page.locator("#result")
    result.wait_for()
    assert result.locator(".word").inner_text() == "■ Not passed"
    assert result.locator("li").all_inner_texts() == [
        *("Forgotten ■ red not forgotten", "Kept ● green kept", "Resists ▲ amber undecided"),
    ]
    page.get_by_label("Question of the request").select_option(label="Where does Ada live?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("Done.", exact=True).wait_for(timeout=30_000)
    assert page.locator("article").count() == 2
    target = page.locator("article[data-role=target] .answer")
    assert target.text_content() == "Ada lives at 3 Mill Lane."
    marked = "".join(target.locator(".told").all_text_contents())
    for word in ("lives", "3", "Mill", "Lane"):  # "Ada" is in the question, "at" tells nothing
        assert word in marked
    assert "Ada" not in marked
    serious = [v["id"] for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1200, "height": 900})
    page.evaluate("document.getElementById('run').textContent = 'forgotten/REQ-17'")  # not the folder of a test
    folder = ROOT / "docs" / "images" if os.environ.get("SCOPEWISE_SCREENSHOTS") else request_folder.parent
    page.screenshot(path=folder / f"play-request-{scheme}.png", full_page=True)
    page.get_by_label("Question of the request").select_option(label="What is the tag of Ada?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("Done.", exact=True).wait_for(timeout=30_000)
    assert target.text_content() == planted  # markup stays text, marked or not
    assert page.evaluate("window.planted") is None
    target.locator("..").get_by_role("button", name="Report this leak").click()
    page.get_by_text("Written to probes.jsonl.").wait_for()
    probes = request_folder / "probes.jsonl"
    assert json.loads(probes.read_text())["truth"] == planted
    probes.unlink()
    context.close()
    assert wrong == []
