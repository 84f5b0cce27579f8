"""The pages as files: what stands where, that they are whole in themselves, and the same bytes each time."""

import base64
import json
import re
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from habitlab.report import findings, page, story
from tests.report import demonstration

NAME = "02-user-behaviour"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return demonstration.notebook()


@pytest.fixture(scope="module")
def rendered(notebook: nbformat.NotebookNode) -> tuple[str, dict[str, Any]]:
    return page.render(notebook, name=NAME, parameters=demonstration.PARAMETERS, provenance=demonstration.PROVENANCE)


@pytest.fixture(scope="module")
def soup(rendered: tuple[str, dict[str, Any]]) -> BeautifulSoup:
    return BeautifulSoup(rendered[0], "html.parser")


def of(*cells: Any) -> BeautifulSoup:
    """The page of a few cells."""
    html, _ = page.render(new_notebook(cells=list(cells)), name="09-small", parameters={}, provenance={})
    return BeautifulSoup(html, "html.parser")


def failure(notebook: Any | None, **more: Any) -> BeautifulSoup:
    return BeautifulSoup(page.render_failure(notebook, name="08-fairness", **more), "html.parser")


# ---------------------------------------------------------------------------------------------- the report


def test_rendering_again_gives_the_same_bytes_and_leaves_the_notebook_alone(
    notebook: nbformat.NotebookNode, rendered: tuple[str, dict[str, Any]]
) -> None:
    before = json.dumps(notebook)
    again = page.render(notebook, name=NAME, parameters=demonstration.PARAMETERS, provenance=demonstration.PROVENANCE)
    assert again == rendered
    assert json.dumps(notebook) == before


def test_a_notebook_read_from_plain_json_gives_the_same_page(
    notebook: nbformat.NotebookNode, rendered: tuple[str, dict[str, Any]]
) -> None:
    plain = json.loads(json.dumps(notebook))
    again = page.render(plain, name=NAME, parameters=demonstration.PARAMETERS, provenance=demonstration.PROVENANCE)
    assert again == rendered


def test_the_json_has_the_keys_of_the_contract(rendered: tuple[str, dict[str, Any]]) -> None:
    record = rendered[1]
    assert list(record) == [
        "name", "title", "question", "answer", "findings", "claims", "skipped", "parameters", "provenance",
    ]  # fmt: skip
    assert record["title"] == "When habits hold, and when they give way"
    assert record["provenance"]["dataset"]["simulated"] is True
    assert json.loads(page.json_text(record)) == record


def test_nothing_on_the_page_points_outside(soup: BeautifulSoup) -> None:
    for tag in soup.find_all(True):
        for attribute in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            target = tag.get(attribute)
            assert target is None or re.match(r"#|data:|index\.html$", target), f"{tag.name} {attribute}={target[:80]}"
    assert not soup.find_all(["iframe", "object", "embed", "base"])
    assert not re.search(r"@import|url\((?!#)", soup.style.string)


def test_links_inside_the_page_find_their_target_and_ids_are_unique(soup: BeautifulSoup) -> None:
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    assert len(ids) == len(set(ids))
    targets = {tag["href"][1:] for tag in soup.find_all("a", href=re.compile("^#"))}
    assert len(targets) > 15
    assert targets <= set(ids)
    used = {use["xlink:href"][1:] for use in soup.find_all("use")}
    assert used
    assert used <= set(ids)


def test_the_order_is_answer_claims_story_limits_methods_and_foot(soup: BeautifulSoup) -> None:
    order = [heading.get_text() for heading in soup.main.find_all(["h1", "h2"])]
    assert order == [
        "When habits hold, and when they give way",
        "In short",
        "What was claimed, and what we see",
        "The first five weeks",
        "The clock",
        "Who stays",
        "What this cannot tell you",
        "What was skipped, and why",
        "Every number in this report",
        "Methods and code",
        "Make it again",
    ]
    contents = [link["href"] for link in soup.select(".toc a")]
    assert len(contents) == len(order) - 1
    assert "#The-first-five-weeks" in contents


def test_headlines_show_number_interval_n_and_method(soup: BeautifulSoup) -> None:
    first = " ".join(soup.select_one(".headlines li").get_text(" ").split())
    assert first == (
        "Dip in days 7 to 14, those still active −4.1 points −6 6 95% interval −5.2 to −3.0 "
        "n\u00a0=\u00a01,842 · mean of days 7–14 less mean of days 1–3; bootstrap by user, 500 resamples"
    ).replace("\u00a0", " ")


def test_a_claim_shows_reported_measured_and_verdict_in_words(soup: BeautifulSoup) -> None:
    row = soup.find(id="claim-clear_description_adoption")
    assert [" ".join(cell.get_text(" ").split()) for cell in row.find_all("td")] == [
        "27%", "8% 3% to 14%", "", "1,842 recommendations", "differs",
    ]  # fmt: skip
    assert row.select_one(".verdict svg") is not None
    assert row.select_one(".strip .reported") is not None
    untestable = soup.find(id="claim-demographics_category")
    assert "needs gender; this dataset has none" in untestable.get_text()
    assert untestable.select_one(".strip svg") is None


def test_a_claim_links_to_its_figure(soup: BeautifulSoup) -> None:
    assert soup.select_one("#claim-midway_dip a")["href"] == "#adoption-cycle"


def test_what_could_not_be_answered_is_listed(soup: BeautifulSoup) -> None:
    assert [entry.get_text() for entry in soup.select(".skipped dt")] == [
        "Gaps between genders", "Effect of reminders", "Demography goes with the category chosen",
    ]  # fmt: skip


def test_figures_carry_alternative_text_and_downloads(soup: BeautifulSoup, notebook: nbformat.NotebookNode) -> None:
    figures = soup.find_all("figure")
    assert [figure["id"] for figure in figures] == ["adoption-cycle", *(f"figure-{n}" for n in range(2, 6))]
    payloads = [payload for _, payload in findings.payloads(notebook) if payload["kind"] == "figure"]
    for figure, payload in zip(figures, payloads, strict=True):
        assert figure.select_one("[role=img]")["aria-label"] == payload["alt"]
        svg, csv = figure.select("a[download]")
        assert svg["download"] == f"{NAME}-{figure['id']}.svg"
        assert base64.b64decode(svg["href"].split(",")[1]).decode() == payload["svg"]
        assert base64.b64decode(csv["href"].split(",")[1]).decode() == payload["csv"]


def test_drawn_colours_follow_the_scheme(soup: BeautifulSoup) -> None:
    drawn = {colour for svg in soup.select(".plot svg") for colour in re.findall(r"#[0-9a-f]{6}\b", str(svg))}
    assert drawn == set()


def test_code_is_folded_and_complete(soup: BeautifulSoup, notebook: nbformat.NotebookNode) -> None:
    fold = soup.select_one("details.code")
    assert not fold.has_attr("open")
    shown = [block.get_text().strip() for block in fold.select("pre")]
    assert shown == [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_foot_says_how_to_make_it_again(soup: BeautifulSoup) -> None:
    foot = soup.footer.get_text(" ", strip=True)
    for text in (demonstration.PROVENANCE["command"], "sha256 5f0c1e8a7d2b", "resamples 500", "Seed 0"):
        assert text in foot


def test_the_banner_stands_only_over_simulated_data(soup: BeautifulSoup) -> None:
    assert "Simulated data" in soup.select_one(".banner").get_text()
    assert of(new_markdown_cell("# Real")).select_one(".banner") is None


def test_the_banner_leaves_out_what_is_real() -> None:
    def page_about(**facts: Any) -> BeautifulSoup:
        bundle = {findings.MIME: {"kind": "about", "about": facts}}
        return of(new_code_cell("", outputs=[new_output("display_data", data=bundle)]))

    banner = page_about(simulated=True, also_real="the trial of part two").select_one(".banner").get_text()
    assert "Simulated data, but for the trial of part two, which is" in banner
    assert "it says nothing about real people" not in banner
    assert page_about(simulated=False, also_real="the trial of part two").select_one(".banner") is None


def test_a_notebook_that_records_nothing_is_still_a_page() -> None:
    small = of(new_markdown_cell("Just *text*."), new_code_cell("1 + 1"))
    assert small.h1.get_text() == "Small"
    assert small.select_one(".story em").get_text() == "text"
    assert small.select_one(".headlines") is None


def test_texts_are_escaped() -> None:
    bundle = {findings.MIME: {"kind": "question", "text": "a < b & <script>alert(1)</script>?"}}
    html = of(new_code_cell("", outputs=[new_output("display_data", data=bundle)]))
    assert html.select_one(".question").get_text() == "a < b & <script>alert(1)</script>?"
    assert len(html.find_all("script")) == 1


def test_plain_outputs_are_shown_and_plots_outside_show_confess() -> None:
    html = of(
        new_code_cell(
            "",
            outputs=[
                new_output("stream", name="stderr", text="\x1b[31mcareful\x1b[0m <b>"),
                new_output("execute_result", data={"text/plain": "Estimate(<1>)"}),
                new_output("display_data", data={"image/png": "iVBORw0KGgo=\n", "text/plain": "<Figure>"}),
                new_output("display_data", data={"application/javascript": "alert(1)"}),
            ],
        )
    )
    assert html.select_one("details.messages pre").get_text() == "careful <b>"
    assert "Estimate(<1>)" in html.select_one(".story").get_text()
    assert html.img["alt"].startswith("A plot without a description")
    assert "alert(1)" not in html.get_text()


# ---------------------------------------------------------------------------------------------- tables


def test_a_data_frame_gets_scopes_a_scrolling_box_and_aligned_numbers() -> None:
    import pandas as pd

    frame = pd.DataFrame({"name": ["a", "a"], "rows": [1, 1000]})
    table = BeautifulSoup(story.accessible_table(frame._repr_html_(), 3), "html.parser")
    assert [head.get("scope") for head in table.select("thead th")] == ["col", "col"]
    assert [head["scope"] for head in table.select("tbody th")] == ["row", "row"]
    assert [cell.get("class") for cell in table.select("tbody td")] == [None, ["num"], None, ["num"]]
    assert table.select_one("div.scroll[tabindex='0']")["aria-label"] == "Table 3"
    assert table.style is None


def test_styler_ids_do_not_depend_on_chance() -> None:
    import pandas as pd

    def styled() -> str:
        return pd.DataFrame({"rows": [1]}).style.set_caption("Rows").to_html()

    assert styled() != styled()
    assert story.accessible_table(styled(), 1) == story.accessible_table(styled(), 1)
    assert 'aria-label="Rows"' in story.accessible_table(styled(), 1)


# ---------------------------------------------------------------------------------------------- failures


def test_a_failure_page_names_cell_error_next_steps_and_the_last_good_report() -> None:
    html = failure(demonstration.failed_notebook(), last_good="08-fairness.html", parameters={"seed": 0})
    text = html.main.get_text(" ", strip=True)
    assert "cell 3 of 4 stopped it" in text
    assert html.select_one(".error").get_text() == "MissingColumn: needs `gender`; this dataset has none"
    assert "Under the heading “By gender”." in text
    assert "habitlab report 08-fairness" in text
    assert html.select_one("a[href='08-fairness.html']") is not None
    fold = html.select_one("details.traceback")
    assert not fold.has_attr("open")
    assert "----> 1 dataset.require" in fold.get_text()
    assert "\x1b" not in str(html)


def test_a_run_that_was_killed_names_the_first_cell_not_run() -> None:
    notebook = demonstration.failed_notebook()
    del notebook.cells[2]
    html = failure(notebook, error="the kernel was killed (out of memory?)")
    assert "cell 3 of 3 stopped it" in html.main.get_text()
    assert "--jobs 1" in html.main.get_text()
    assert "There is no earlier good report" in html.main.get_text()


def test_a_failure_without_a_notebook_is_a_page_too() -> None:
    html = failure(None, error="the notebook is not valid JSON")
    assert html.select_one(".error").get_text() == "the notebook is not valid JSON"
    assert failure(None).select_one(".error").get_text() == "The run ended without an error message."


# ---------------------------------------------------------------------------------------------- the index


def test_the_index_lists_reports_with_answer_headline_and_state(rendered: tuple[str, dict[str, Any]]) -> None:
    report = rendered[1]
    entries = [
        page.Entry("02-user-behaviour", report),
        page.Entry("03-claims", report, failed=True, error="KeyError: `x`", failure_page="03-claims.failed.html"),
        page.Entry("08-fairness", failed=True),
    ]
    html = BeautifulSoup(page.render_index(entries), "html.parser")
    fine, kept, lost = html.select(".cards > li")
    assert fine.a["href"] == "02-user-behaviour.html"
    assert fine.select_one(".verdict").get_text() == "fine"
    assert fine.select_one(".answer").get_text() == report["answer"]
    assert "−4.1" in fine.select_one(".value").get_text()
    assert [link["href"] for link in kept.find_all("a")] == ["03-claims.html", "03-claims.failed.html"]
    assert "the last good one" in kept.get_text()
    assert lost.h2.get_text() == "Fairness"
    assert "no earlier report" in lost.get_text()
    assert html.select_one(".banner") is not None
    assert "2,000 users, 165 habits" in html.select_one(".about").get_text()


def test_an_index_of_mixed_data_marks_the_simulated_reports(rendered: tuple[str, dict[str, Any]]) -> None:
    real = rendered[1] | {"provenance": {"dataset": {"simulated": False, "users": 3}}}
    html = BeautifulSoup(page.render_index([page.Entry("a", rendered[1]), page.Entry("b", real)]), "html.parser")
    assert html.select_one(".banner") is None
    assert [bool(card.select_one(".chip")) for card in html.select(".cards > li")] == [True, False]


def test_an_empty_index_is_a_page() -> None:
    assert "Reports" in page.render_index([])


@pytest.mark.parametrize(("estimate", "words"), [(12.0, "exact count"), (0.0441, "no interval")])
def test_only_a_whole_number_without_interval_is_called_an_exact_count(estimate: float, words: str) -> None:
    assert page._without_interval({"estimate": estimate}) == words
