"""The normal form: what a run leaves by chance goes, what the notebook says stays."""

import copy
import json
import sysconfig
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import given

from habitlab.report.normalise import normalise

TABLE = '<style>#T_a1b2c_row0 {}</style><table id="T_a1b2c"><td id="T_a1b2c_row0_col1">1</td></table><p id="T_fffff">'


def code(*outputs: dict, source: str = "x", count: int | None = 7, tags: tuple[str, ...] = ()) -> dict:
    return {
        "cell_type": "code", "id": "random", "execution_count": count, "outputs": list(outputs), "source": source,
        "metadata": {"tags": list(tags), "papermill": {"duration": 1.2}, "execution": {"iopub.status.busy": "now"}},
    }  # fmt: skip


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data: object) -> dict:
    return {"output_type": "display_data", "data": data, "metadata": {}, "transient": {}}


def normal(*cells: dict, **replacements: str) -> list[dict]:
    return normalise({"cells": list(cells), "metadata": {"widgets": {}, "papermill": {}}}, replacements)["cells"]


def text_of(text: str) -> str:
    return normal(code(stream(text)))[0]["outputs"][0]["text"]


def test_times_and_identifiers_go_tags_and_order_stay() -> None:
    cells = normal({"cell_type": "markdown", "id": "q", "metadata": {}, "source": ["# A", " b"]}, code(tags=("wide",)))
    assert [cell["id"] for cell in cells] == ["cell-001", "cell-002"]
    assert cells[0]["source"] == "# A b"
    assert cells[1]["metadata"] == {"tags": ["wide"]}
    assert cells[1]["execution_count"] == 1
    assert normalise({"cells": [], "metadata": {"widgets": 1}})["metadata"]["language_info"] == {"name": "python"}


def test_the_argument_stays_as_it_is() -> None:
    notebook = {"cells": [code(stream("at 0x7f00"), shown(**{"text/html": TABLE}))], "metadata": {"papermill": {}}}
    before = copy.deepcopy(notebook)
    normalise(notebook)
    assert notebook == before


def test_one_stdout_then_one_stderr_then_the_rest_in_order() -> None:
    outputs = normal(
        code(stream("b", "stderr"), shown(a=1), stream("1"), stream("c", "stderr"), shown(a=2), stream("2"))
    )
    assert outputs[0]["outputs"] == [
        stream("12"),
        stream("bc", "stderr"),
        {"output_type": "display_data", "data": {"a": 1}, "metadata": {}},
        {"output_type": "display_data", "data": {"a": 2}, "metadata": {}},
    ]


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(st.characters(exclude_categories=["C"])))))
def test_it_does_not_matter_how_a_stream_was_cut(pieces: list[tuple[str, str]]) -> None:
    cut = [stream(letter, name) for name, text in pieces for letter in text]
    whole = [stream(text, name) for name, text in pieces]
    assert normal(code(*cut)) == normal(code(*whole))


def test_addresses_processes_and_places_go() -> None:
    assert text_of("<object object at 0x7f1c2b>") == "<object object at 0x0>"
    assert text_of("/tmp/ipykernel_4242/123456.py:3: UserWarning: x") == "cell.py:3: UserWarning: x"
    assert text_of(f"{sysconfig.get_path('purelib')}/pandas/core.py:9") == "site-packages/pandas/core.py:9"
    project = Path(__file__).parents[2]
    assert text_of(f"{project}/habitlab/x.py and {project}s") == f"./habitlab/x.py and {project}s"


def test_styler_identifiers_are_numbered_as_they_come() -> None:
    html = normal(code(shown(**{"text/html": TABLE})))[0]["outputs"][0]["data"]["text/html"]
    assert html == TABLE.replace("a1b2c", "00000").replace("fffff", "00001")


def test_two_tables_never_share_an_identifier() -> None:
    other = TABLE.replace("a1b2c", "0dd0d").replace("fffff", "a1b2c")
    first, second = (output["data"]["text/html"] for output in normal(
        code(shown(**{"text/html": TABLE}), shown(**{"text/html": other})))[0]["outputs"])  # fmt: skip
    assert 'table id="T_00000"' in first
    assert 'table id="T_00002"' in second
    assert 'p id="T_00000"' in second  # the one that both name


def test_a_word_that_looks_like_an_identifier_stays() -> None:
    assert text_of("T_abcde is a column") == "T_abcde is a column"


def test_an_overwritten_progress_bar_shows_its_last_state() -> None:
    assert text_of(" 1/3\r 2/3\r 3/3\ndone\r\n") == " 3/3\ndone\r\n"


def test_the_place_of_the_data_is_replaced_in_outputs_and_injected_cells_only() -> None:
    place = "/home/someone/study/data.db"
    cells = normal(
        code(source=f'data = "{place}"', tags=("injected-parameters",)),
        code(stream(f"read {place}"), shown(**{"application/x+json": {"deep": [place, 3]}}), source=f"# {place}"),
        **{place: "data.db"},
    )
    assert cells[0]["source"] == 'data = "data.db"'
    assert cells[1]["outputs"][0]["text"] == "read data.db"
    assert cells[1]["outputs"][1]["data"] == {"application/x+json": {"deep": ["data.db", 3]}}
    assert place in cells[1]["source"]  # what the author wrote is the author's


def test_pictures_are_left_alone() -> None:
    data = {"image/png": "at 0x12 T_a1b2c"}
    assert normal(code(shown(**data)))[0]["outputs"][0]["data"] == data


def test_errors_lose_their_colours() -> None:
    error = {"output_type": "error", "ename": "E", "evalue": "bad", "traceback": ["\x1b[0;31mE\x1b[0m at 0xff"]}
    assert normal(code(error))[0]["outputs"][0]["traceback"] == ["E at 0x0"]


def test_the_normal_form_of_the_normal_form_is_itself() -> None:
    once = normalise({"cells": [code(stream("at 0x1"), shown(**{"text/html": TABLE}))], "metadata": {}})
    assert json.dumps(normalise(once)) == json.dumps(once)
