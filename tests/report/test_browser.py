"""The pages in a real browser: offline, on a phone, in the dark, on paper, without JavaScript, for screen readers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from habitlab.report import page
from tests.report import demonstration

pytestmark = pytest.mark.browser

PAGES = ["02-user-behaviour", "index", "08-fairness.failed"]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the demonstration, as `habitlab report` would write them."""
    folder = tmp_path_factory.mktemp("reports")
    about: dict[str, Any] = {"parameters": demonstration.PARAMETERS, "provenance": demonstration.PROVENANCE}
    html, record = page.render(demonstration.notebook(), name="02-user-behaviour", **about)
    failed = page.render_failure(demonstration.failed_notebook(), name="08-fairness", **about)
    lost = page.Entry("08-fairness", failed=True, error="MissingColumn", failure_page="08-fairness.failed.html")
    for name, text in zip(
        PAGES, (html, page.render_index([page.Entry("02-user-behaviour", record), lost]), failed), strict=True
    ):
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


Opener = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, folder: Path) -> Iterator[Opener]:
    """Open a page by name; at the end nothing may have been asked of the network or complained to the console."""
    contexts, trouble = [], []

    def opener(name: str, **options: Any) -> Any:
        address = (folder / f"{name}.html").as_uri()
        context = browser.new_context(offline=True, **({"viewport": DESK} | options))
        contexts.append(context)

        def guard(route: Any) -> None:
            if route.request.url.split("#")[0] == address:
                route.continue_()
            else:
                trouble.append(f"request for {route.request.url[:200]}")
                route.abort()

        context.route(lambda url: not url.startswith("data:"), guard)
        tab = context.new_page()
        tab.on("console", lambda message: trouble.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        tab.goto(address)
        return tab

    yield opener
    for context in contexts:
        context.close()
    assert trouble == []


def sideways(tab: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways_on_a_phone(open_page: Opener, name: str) -> None:
    tab = open_page(name, viewport=PHONE)
    assert sideways(tab) == 0
    tab.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    assert sideways(tab) == 0


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [(DESK, "dark"), pytest.param(PHONE, "light", marks=pytest.mark.long)],
    ids=["desk in the dark", "phone by day"],
)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(open_page: Opener, name: str, viewport: dict[str, int], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tab = open_page(name, viewport=viewport, color_scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    # the strokes of a drawing are hidden from screen readers: its description is what counts, and it stays in
    options = {"resultTypes": ["violations"]}
    found = Axe().run(tab, context={"exclude": [[".plot > svg"]]}, options=options).response["violations"]
    grave = [
        f"{item['id']}: {node['html'][:160]} {node['failureSummary']}"
        for item in found
        if item["impact"] in ("serious", "critical")
        for node in item["nodes"]
    ]
    assert grave == []


def test_the_first_screen_answers_the_question(open_page: Opener) -> None:
    for viewport in (DESK, PHONE):
        tab = open_page("02-user-behaviour", viewport=viewport)
        for part in ("h1", ".question", ".answer", ".headlines .value"):
            box = tab.locator(part).first.bounding_box()
            assert box["y"] + box["height"] <= viewport["height"], part


def test_every_figure_has_alternative_text_and_one_drawing_that_fits(open_page: Opener) -> None:
    for viewport in (DESK, PHONE):
        tab = open_page("02-user-behaviour", viewport=viewport)
        assert tab.locator("figure").count() == 5
        for figure in tab.locator("figure").all():
            assert len(figure.get_by_role("img").first.get_attribute("aria-label")) > 20
            drawn = [svg.bounding_box() for svg in figure.locator(".plot > svg").all() if svg.is_visible()]
            assert len(drawn) == 1
            assert drawn[0]["width"] <= viewport["width"]
            assert drawn[0]["height"] > 100


def test_letters_in_figures_are_as_large_on_a_phone_as_on_a_desk(open_page: Opener) -> None:
    sizes = []
    for viewport in (DESK, PHONE):
        tab = open_page("02-user-behaviour", viewport=viewport)
        svg = tab.locator("#adoption-cycle .plot > svg:visible")
        sizes.append(svg.bounding_box()["width"] / float(svg.get_attribute("viewBox").split()[2]))
    assert min(sizes) > 1.2  # pixels a point; 4/3 is full size
    assert max(sizes) < 1.4


def test_the_page_reads_without_javascript(open_page: Opener) -> None:
    tab = open_page("02-user-behaviour", java_script_enabled=False)
    for text in (
        "Completion sags by",
        "reproduced",
        "The first five weeks",
        "What this cannot tell you",
        "Make it again",
    ):
        assert tab.get_by_text(text).first.is_visible()
    assert tab.locator("figure svg:visible").count() == 5
    assert not tab.locator("#scheme").is_visible()
    assert not tab.get_by_text("Each number is a mean over users").first.is_visible()
    tab.get_by_text("How the numbers were made").click()
    assert tab.get_by_text("Each number is a mean over users").first.is_visible()


def test_dark_mode_follows_the_system_and_the_button(open_page: Opener) -> None:
    def shade(tab: Any) -> int:
        return tab.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")

    tab = open_page("02-user-behaviour", color_scheme="dark")
    assert shade(tab) < 60
    tab.get_by_role("button", name="Light colours").click()
    assert shade(tab) > 200
    light = open_page("02-user-behaviour", color_scheme="light")
    assert shade(light) > 200
    light.get_by_role("button", name="Dark colours").click()
    assert shade(light) < 60


def test_on_paper_the_folds_are_open_and_the_tools_gone(open_page: Opener) -> None:
    tab = open_page("02-user-behaviour", color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.get_by_text("Each number is a mean over users").first.is_visible()
    assert not tab.locator("#scheme").is_visible()
    assert not tab.locator(".toc").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(254, 254, 254)"
    assert tab.locator("#adoption-cycle svg.wide").is_visible()
    assert len(tab.pdf()) > 50_000
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details[open]").count() == 0


def test_a_number_in_prose_leads_to_its_finding(open_page: Opener) -> None:
    tab = open_page("02-user-behaviour")
    tab.locator(".answer a.number").first.click()
    assert tab.locator("#finding-midway_dip").is_visible()  # the browser opens the fold it stands in


def test_contents_lead_to_their_sections(open_page: Opener) -> None:
    tab = open_page("02-user-behaviour")
    tab.locator(".toc a", has_text="The clock").click()
    tab.wait_for_function("document.querySelector('.toc a[aria-current]').textContent === 'The clock'")


def test_data_of_a_figure_download(open_page: Opener) -> None:
    tab = open_page("02-user-behaviour")
    with tab.expect_download() as download:
        tab.locator("#adoption-cycle").get_by_text("Data (CSV)").click()
    assert download.value.suggested_filename == "02-user-behaviour-adoption-cycle.csv"
    assert Path(download.value.path()).read_text().startswith("day,active,everyone,low,high\n1,")
