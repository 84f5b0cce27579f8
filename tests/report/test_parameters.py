"""Parameters are checked before any kernel starts, and an error says what would be right."""

import json
import subprocess
import sys

import pytest

from habitlab.report.parameters import Schema, parse_assignments, read_schema, resolve

CELL = '''\
"""What a reader may change."""
from habitlab.report.parameters import DataPath, Level, Resamples, Seed

data: DataPath = "sample"  # a path, or `sample`
level: Level = 0.95  # of all intervals
resamples: Resamples = 500
seed: Seed = 0
label: str = "all"
strict: bool = False
weight: float = 1
ages: list[int] = [18, 65]
band: Literal["short", "long"] = "short"
limit: int | None = None
plain = 3
'''


def notebook(source: str, tags: tuple[str, ...] = ("parameters",)) -> dict:
    cell = {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source.splitlines(keepends=True)}
    return {"cells": [{"cell_type": "markdown", "metadata": {}, "source": "# Title"}, cell]}


@pytest.fixture
def schema() -> Schema:
    return read_schema(notebook(CELL), "03-claims")


def value_of(schema: Schema, **overrides: object) -> object:
    return resolve({"03-claims": schema}, overrides)["03-claims"][next(iter(overrides))]


def test_the_schema_has_names_types_defaults_and_help_in_the_order_of_the_cell(schema: Schema) -> None:
    assert list(schema) == [
        "data", "level", "resamples", "seed", "label", "strict", "weight", "ages", "band", "limit", "plain",
    ]  # fmt: skip
    assert schema["level"].annotation == "Level"
    assert schema["level"].default == 0.95
    assert schema["level"].help == "of all intervals"
    assert schema["data"].is_path
    assert not schema["label"].is_path
    assert schema["plain"].annotation == "int"
    assert isinstance(schema["weight"].default, float)


def test_the_cell_is_never_executed() -> None:
    source = "import this_module_is_not_there\nseed: int = 0\n"
    assert list(read_schema(notebook(source), "x")) == ["seed"]
    with pytest.raises(ValueError, match=r"the default of `seed` must be a literal, not `open\('x'\)`"):
        read_schema(notebook("seed: int = open('x')"), "x")


def test_a_notebook_without_the_cell_has_no_parameters() -> None:
    assert read_schema(notebook("seed: int = 0", tags=()), "x") == {}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("level: Level = 2.0", r"x: the default: level=2.0 is not a number between 0 and 1"),
        ("level: Levle = 0.9", r"x: `level` is declared `Levle`; known are DataPath, Level"),
        ("seed: Seed = '7'", r"seed=7 is not a whole number from 0"),
        ("seed: Seed", r"the parameter `seed` has no default"),
        ("seed: int = 1\nseed: int = 2", r"`seed` is assigned twice"),
        ("for i in range(3):\n    pass", r"line 1 of the parameters cell is `for i in range\(3\):`; it may only hold"),
        ("seed: int = ", r"is not Python \(line 1"),
    ],
)
def test_a_cell_that_makes_no_sense_says_why(source: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_schema(notebook(source), "x")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("label", "007", "007"),
        ("label", "true", "true"),
        ("label", "[1,2]", "[1,2]"),
        ("label", "", ""),
        ("plain", "007", 7),
        ("seed", "12", 12),
        ("strict", "true", True),
        ("strict", "no", False),
        ("weight", "3", 3.0),
        ("weight", "1e-3", 0.001),
        ("ages", "[1, 2]", [1, 2]),
        ("ages", "1,2", [1, 2]),
        ("ages", "[]", []),
        ("band", "long", "long"),
        ("limit", "none", None),
        ("limit", "5", 5),
    ],
)
def test_texts_of_the_command_line_are_read_as_the_declared_type(schema, name, text, value) -> None:
    found = value_of(schema, **{name: text})
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("level", "1.5", "level=1.5 is not a number between 0 and 1, such as 0.95 .*; the default is 0.95"),
        ("level", "nan", "not a number between 0 and 1"),
        ("level", "high", "level=high is not a number between 0 and 1"),
        ("resamples", "10", "resamples=10 is not a whole number of at least 50"),
        ("resamples", "1e3", "should be written in digits"),
        ("seed", "-1", "not a whole number from 0"),
        ("seed", "1.5", "not a whole number"),
        ("strict", "maybe", "strict=maybe is not true or false"),
        ("weight", "inf", "weight=inf is not"),
        ("ages", "[1, 2.5]", r"ages=\[1, 2.5\] is not a list, each a whole number"),
        ("ages", "[1, 2", r"ages=\[1, 2 is not a list"),
        ("band", "medium", "band=medium is not one of short, long"),
        ("limit", "many", "limit=many is not a whole number or none"),
        ("data", "", "data= is not a path, or `sample`"),
        # from Python, a value must be of the type already
        ("seed", 1.0, "not a whole number"),
        ("seed", True, "not a whole number"),
        ("label", 7, "label=7 is not a text"),
    ],
)
def test_a_wrong_value_says_which_what_it_got_and_what_would_be_right(schema, name, given, words) -> None:
    with pytest.raises(ValueError, match=words):
        value_of(schema, **{name: given})


def test_an_unknown_name_suggests_the_nearest(schema: Schema) -> None:
    with pytest.raises(ValueError, match="unknown parameter `levle`; did you mean `level`"):
        value_of(schema, levle="0.9")
    with pytest.raises(ValueError, match="unknown parameter `zzz`; there are `ages`, `band`"):
        value_of(schema, zzz="1")


def test_a_parameter_applies_to_the_notebooks_that_have_it() -> None:
    schemas = {"a": read_schema(notebook("seed: int = 0"), "a"), "b": read_schema(notebook("days: int = 3"), "b")}
    assert resolve(schemas, {"days": "9"}) == {"a": {"seed": 0}, "b": {"days": 9}}
    with pytest.raises(ValueError, match="b: days=x is not"):
        resolve(schemas, {"days": "x"})


def test_assignments_are_split_at_the_first_equals_sign() -> None:
    assert parse_assignments(["data=a=b.db", "level= 0.9"]) == {"data": "a=b.db", "level": " 0.9"}
    with pytest.raises(ValueError, match="--set level: it should be NAME=VALUE"):
        parse_assignments(["level"])
    with pytest.raises(ValueError, match=r"--set level: given twice \(1 and 2\)"):
        parse_assignments(["level=1", "level=2"])


def test_reading_parameters_loads_no_data_library() -> None:
    code = "import sys, json, habitlab.report.parameters; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert not {"pandas", "numpy", "matplotlib", "nbformat"} & set(modules)
