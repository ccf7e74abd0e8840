"""The page in a real browser: it draws, it chooses, a keyboard suffices, and it fits screens of three widths."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import archtuna as at
from archtuna.gauge import HERE
from archtuna.page import write_report
from archtuna.page.bundle import bundle
from archtuna.page.charts import charts
from archtuna.page.write import html
from reports import failing, made, many

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


class Opened:
    """A page, and what its console said."""

    def __init__(self, browser: Any, file: Path, width: int = 1024, **context: Any) -> None:
        self.context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, **context)
        self.page, self.said = self.context.new_page(), []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-drawn=yes]", timeout=60_000)

    @property
    def errors(self) -> list[str]:
        return [line for line in self.said if line.startswith("error")]

    def chosen(self) -> str:
        return str(self.page.inner_text("#chosen-title"))


@pytest.fixture(scope="module")
def report(study: at.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a real search, whose networks were run on pictures."""
    return write_report(study, tmp_path_factory.mktemp("browser") / "study.html", device="cpu").html


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    facts, file = many(500), tmp_path_factory.mktemp("browser") / "large.html"
    file.write_text(html(facts, charts(facts), bundle()), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [390, 1024, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_without_an_error_and_fits_the_screen(browser: Any, report: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, report, width, color_scheme=scheme)
    assert opened.errors == []
    assert opened.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert opened.page.locator("#chart-front svg").count() == 1
    assert opened.page.locator("#classes tbody tr").count() == 3
    opened.context.close()


def test_a_slider_changes_the_choice_and_every_chart(browser: Any, large: Path) -> None:
    opened = Opened(browser, large)
    page, first = opened.page, opened.chosen()
    page.check("text=the best f1")
    best = opened.chosen()
    assert best != first
    slider = page.locator(".bound input").nth(1)
    assert page.locator(".bound label").nth(1).inner_text() == "params, at most"
    slider.evaluate(
        "slider => { slider.value = Math.round(slider.max / 3); slider.dispatchEvent(new Event('input')); }"
    )
    assert opened.chosen() not in (first, best)
    assert "networks keep them" in page.inner_text("#left")
    bound = float(page.locator(".bound output").nth(1).inner_text().replace(",", ""))
    row = page.locator("#front-table tr.chosen td")
    assert float(row.nth(1).inner_text().replace(",", "")) <= bound
    assert opened.chosen().lower() in page.locator("#chart-front svg").inner_html().lower()
    page.click("text=No bounds")
    assert opened.chosen() == best
    assert opened.errors == []
    opened.context.close()


def test_bounds_that_nothing_keeps_are_said(browser: Any, large: Path) -> None:
    opened = Opened(browser, large)
    for i in (0, 1):
        slider = opened.page.locator(".bound input").nth(i)
        slider.evaluate("slider => { slider.value = 0; slider.dispatchEvent(new Event('input')); }")
    assert opened.page.inner_text("#left") == "no network of the front keeps these bounds"
    opened.context.close()


def test_a_keyboard_is_enough_and_everything_has_a_name(browser: Any, large: Path) -> None:
    opened = Opened(browser, large)
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the choice"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "rule"
    before = opened.chosen()
    page.keyboard.press("ArrowDown")
    assert opened.chosen() != before
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "range"
    page.keyboard.press("Home")
    assert "at least" in page.evaluate("document.activeElement.getAttribute('aria-valuetext')")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, select, button, img')].filter(one =>
            !(one.labels?.length || one.getAttribute('aria-label') || one.textContent.trim() || one.getAttribute('alt')))
            .map(one => one.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("#chosen[aria-live=polite]").count() == 1
    opened.context.close()


def test_another_pair_of_axes_is_drawn_and_a_click_takes_a_network(browser: Any, large: Path) -> None:
    opened = Opened(browser, large)
    page = opened.page
    page.select_option("#axis-x", "macs")
    page.wait_for_function("document.querySelector('#chart-front svg').textContent.includes('macs (less is better)')")
    button = page.locator("#front-table tbody button").nth(2)
    number = page.locator("#front-table tbody tr").nth(2).get_attribute("data-number")
    button.click()
    assert opened.chosen() == f"Trial {number}"
    assert page.inner_text("#why").startswith("taken by hand")
    assert opened.errors == []
    opened.context.close()


def test_commands_are_copied(browser: Any, report: Path) -> None:
    opened = Opened(browser, report, permissions=["clipboard-read", "clipboard-write"])
    opened.page.locator("#commands button").first.click()
    opened.page.wait_for_selector("#commands button >> text=Copied")
    assert opened.page.evaluate("navigator.clipboard.readText()").startswith("archtuna train ")
    opened.context.close()


@pytest.mark.parametrize("trials", [0, 1])
@pytest.mark.parametrize("objectives", [1, 5])
def test_hardly_anything_is_drawn_too(browser: Any, tmp_path: Path, trials: int, objectives: int) -> None:
    facts = many(trials, objectives)
    (tmp_path / "r.html").write_text(html(facts, charts(facts), bundle()), encoding="utf-8")
    assert Opened(browser, tmp_path / "r.html").errors == []


def test_a_run_of_which_every_trial_failed_is_told(browser: Any, tmp_path: Path) -> None:
    file = write_report(made(tmp_path, evaluator=failing, trials=3)).html
    opened = Opened(browser, file)
    assert opened.errors == []
    assert "no network was evaluated in full" in opened.page.inner_text("#empty")
    assert "the training loss became nan" in opened.page.inner_text("#refused")
    assert not opened.page.is_visible("#choosing")


def test_thousands_of_trials_are_drawn(browser: Any, tmp_path: Path) -> None:
    facts = many(5_000)
    (tmp_path / "r.html").write_text(html(facts, charts(facts), bundle()), encoding="utf-8")
    opened = Opened(browser, tmp_path / "r.html")
    assert opened.errors == []
    assert opened.page.locator("#chart-front canvas").count() == 1


def test_a_table_that_is_sorted_keeps_the_keyboards_place_and_tells_the_chosen_row(browser: Any, large: Path) -> None:
    opened = Opened(browser, large)
    page = opened.page
    button = page.locator("#front-table thead button").nth(2)
    name = button.inner_text()
    button.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == name
    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") != "none"
    current = page.locator("#front-table [aria-current]")
    assert current.count() == 1
    assert current.get_attribute("aria-current") == "true"
    assert opened.chosen() == f"Trial {current.get_attribute('data-number')}"
    opened.context.close()


def test_an_interval_is_that_of_the_device_and_a_checkpoints_path_is_one_word(browser: Any, tmp_path: Path) -> None:
    facts = many(12)
    facts["costs"] = ["latency_ms", "latency_ms@pi4", "latency_ms@gone"]
    measured = {"pi4": {"low": 70.5, "high": 71.5, "rounds": 7}, HERE: {"low": 1.5, "high": 2.5, "rounds": 9}}
    for trial in facts["trials"]:
        trial["costs"] |= {"latency_ms": 2.0, "latency_ms@pi4": 71.0, "latency_ms@gone": 3.0}
        trial |= {"latencies": measured, "checkpoint": "my run/it's $& 1.safetensors"}
    facts["commands"]["export"] = "archtuna export CHECKPOINT model.onnx"
    (tmp_path / "r.html").write_text(html(facts, charts(facts), bundle()), encoding="utf-8")
    opened = Opened(browser, tmp_path / "r.html")
    told = opened.page.locator("#values dd").all_inner_texts()
    assert "2 ms (1.5 to 2.5, n = 9 rounds)" in told
    assert "71 ms (70.5 to 71.5, n = 7 rounds)" in told
    assert "3 ms" in told
    (command,) = [t for t in opened.page.locator("#commands code").all_inner_texts() if "export" in t]
    assert shlex.split(command) == ["archtuna", "export", "my run/it's $& 1.safetensors", "model.onnx"]
    assert opened.errors == []
    opened.context.close()
