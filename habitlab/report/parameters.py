"""The parameters of a notebook: types to annotate them with, and a schema read from its first cell.

The cell tagged `parameters` holds annotated assignments, `level: Level = 0.95  # of all intervals`. It is parsed,
never executed, so that a wrong value is refused before a kernel starts. This module imports no data library.
"""

import ast
import difflib
import io
import json
import re
import tokenize
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field, TypeAdapter, ValidationError

SAMPLE = "sample"  # in place of a path: the small simulated population, made in memory


class IsPath:
    """Marks a parameter that counts by the content of the file or folder it names."""


DataPath = Annotated[str, IsPath(), Field(min_length=1, description="a path, or `sample`")]
Level = Annotated[float, Field(gt=0, lt=1, description="a number between 0 and 1, such as 0.95")]
Resamples = Annotated[int, Field(ge=50, description="a whole number of at least 50")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="a whole number from 0")]
Users = Annotated[int, Field(ge=1, description="a whole number from 1")]
Days = Annotated[int, Field(ge=1, description="a whole number from 1")]
Places = Annotated[int, Field(ge=1, description="a whole number from 1")]
Calls = Annotated[int, Field(ge=1, description="a whole number from 1")]
Count = Annotated[int, Field(ge=0, description="a whole number from 0")]
Share = Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number above 0")]

_DECLARED = ("DataPath", "Level", "Resamples", "Seed", "Users", "Days", "Places", "Calls", "Count", "Share", "Positive")
TYPES: dict[str, Any] = {name: globals()[name] for name in _DECLARED} | {
    "int": int,
    "float": Annotated[float, Field(allow_inf_nan=False)],
    "str": str,
    "bool": bool,
    "list": list,
}
_PLAIN = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list"}


@dataclass(frozen=True)
class Parameter:
    """One parameter: `annotation` as written, `type` as pydantic takes it, `default`, `help` from its comment."""

    name: str
    annotation: str
    type: Any
    default: Any
    help: str = ""

    @property
    def is_path(self) -> bool:
        """Whether the value names a file or folder, which counts by its content."""
        return any(isinstance(part, IsPath) for part in _annotations(self.type))

    @property
    def wanted(self) -> str:
        """What a value should be, in words."""
        for part in _annotations(self.type):
            if description := getattr(part, "description", None):
                return str(description)
        return _words(self.type)


Schema = dict[str, Parameter]  # in the order of the cell


# ---------------------------------------------------------------------------------------------- reading the schema


def read_schema(notebook: Mapping[str, Any], where: str) -> Schema:
    """Read the schema from the cell tagged `parameters` of a notebook (its JSON); empty where there is no such cell.

    `where` names the notebook in errors. Raises ValueError for a default that is not a literal or does not fit its
    own type, an annotation that is not known, or a cell that is not Python.
    """
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell.get("metadata", {}).get("tags", ())]
    if not tagged:
        return {}
    if len(tagged) > 1:
        raise ValueError(f"{where}: {len(tagged)} cells are tagged `parameters`; there should be one")
    source = "".join(tagged[0]["source"])
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{where}: the parameters cell is not Python (line {error.lineno}: {error.msg})") from None
    comments = _comments(source)
    schema: Schema = {}
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom | ast.Expr):
            continue  # imports of the type names, and a docstring
        name, annotation, value = _assignment(statement, where)
        if name in schema:
            raise ValueError(f"{where}: the parameter `{name}` is assigned twice")
        try:
            default = ast.literal_eval(value)
        except ValueError:
            raise ValueError(
                f"{where}: the default of `{name}` must be a literal, not `{ast.unparse(value)}`"
            ) from None
        written = ast.unparse(annotation) if annotation else type(default).__name__
        kind = _resolve(annotation, f"{where}: `{name}`") if annotation else TYPES.get(written, type(default))
        parameter = Parameter(name, written, kind, default, comments.get(statement.end_lineno or 0, ""))
        schema[name] = replace(parameter, default=_check(parameter, default, f"{where}: the default", parse=False))
    return schema


def _assignment(statement: ast.stmt, where: str) -> tuple[str, ast.expr | None, ast.expr]:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        if statement.value is None:
            raise ValueError(f"{where}: the parameter `{statement.target.id}` has no default")
        return statement.target.id, statement.annotation, statement.value
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, None, statement.value
    raise ValueError(
        f"{where}: line {statement.lineno} of the parameters cell is `{ast.unparse(statement).splitlines()[0]}`; "
        "it may only hold assignments such as `level: Level = 0.95`"
    )


def _comments(source: str) -> dict[int, str]:
    """Line number -> the comment at its end."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    }


def _resolve(annotation: ast.expr, where: str) -> Any:
    """The type of an annotation, looked up rather than evaluated."""
    match annotation:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str() as text):
            return _resolve(ast.parse(text, mode="eval").body, where)
        case ast.Name(id=name) if name in TYPES:
            return TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_resolve(left, where), _resolve(right, where)]  # noqa: UP007  (made at run time)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            values = ast.literal_eval(choices)
            return Literal[values if isinstance(values, tuple) else (values,)]
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_resolve(item, where)]  # type: ignore[misc]
    raise ValueError(
        f"{where} is declared `{ast.unparse(annotation)}`; known are {', '.join(TYPES)}, Literal[...] and list[...]"
    )


# ---------------------------------------------------------------------------------------------- checking values


def parse_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """Split the command line's `NAME=VALUE` texts; raises ValueError for one without `=` or a name given twice."""
    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"--set {assignment}: it should be NAME=VALUE, such as --set level=0.9")
        if name in values:
            raise ValueError(f"--set {name}: given twice ({values[name]} and {value})")
        values[name] = value
    return values


def resolve(schemas: Mapping[str, Schema], overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values of every notebook's parameters: name of notebook -> name of parameter -> value.

    An override applies to each notebook that has the parameter. Texts are read as the declared type asks, so that
    they may come straight from the command line. Raises ValueError for a name that no notebook has, or a value of the
    wrong type or out of range.
    """
    known = {name for schema in schemas.values() for name in schema}
    for name in overrides:
        if name not in known:
            raise ValueError(f"unknown parameter `{name}`{did_you_mean(name, sorted(known))}")
    return {
        notebook: {
            name: _check(parameter, overrides[name], notebook) if name in overrides else parameter.default
            for name, parameter in schema.items()
        }
        for notebook, schema in schemas.items()
    }


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean `{near[0]}`?"
    return f"; there are {', '.join(f'`{one}`' for one in known)}" if known else "; there are none"


def _check(parameter: Parameter, value: Any, where: str, *, parse: bool = True) -> Any:
    """The value as its type has it; a text is parsed, anything else must already be of the type."""
    try:
        if parse and isinstance(value, str):
            return _parse(parameter.type, value)
        return TypeAdapter(parameter.type).validate_python(_widen(parameter.type, value), strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input ").removeprefix("Value error, ")
    except ValueError as error:
        reason = str(error)
    hint = f"; the default is {_shown(parameter.default)}" if parse else ""
    raise ValueError(f"{where}: {parameter.name}={_shown(value)} is not {parameter.wanted} ({reason}){hint}")


def _parse(kind: Any, text: str) -> Any:
    """Read a text as the type asks: 007 is a text for `str` and seven for `int`, `true` is a text for `str`."""
    members = [member for member in get_args(kind) if member is not type(None)]
    if get_origin(kind) in (Union, types.UnionType):
        if type(None) in get_args(kind) and text.lower() in ("", "none", "null"):
            return None
        errors: list[ValueError] = []
        for member in members:
            try:
                return _parse(member, text)
            except ValueError as error:  # pydantic's ValidationError is one
                errors.append(error)
        raise errors[0]
    if kind is list or get_origin(kind) is list:
        if text.lstrip().startswith("["):
            return TypeAdapter(kind).validate_python(json.loads(text), strict=False)
        item = members[0] if members else str
        return [_parse(item, part.strip()) for part in text.split(",") if part.strip()]
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if text == str(choice):
                return choice
    if _base(kind) is int and not re.fullmatch(r"\s*[+-]?\d+\s*", text):
        raise ValueError("should be written in digits")
    return TypeAdapter(kind).validate_strings(text)


def _widen(kind: Any, value: Any) -> Any:
    """A whole number is a fine value for a `float` parameter."""
    return float(value) if _base(kind) is float and type(value) is int else value


def _base(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _annotations(kind: Any) -> tuple[Any, ...]:
    """What is attached to a type, or to a member of a union."""
    if get_origin(kind) is Annotated:
        return tuple(get_args(kind)[1:])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(part for member in get_args(kind) for part in _annotations(member))
    return ()


def _words(kind: Any) -> str:
    base = _base(kind)
    if get_origin(base) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(base))
    if get_origin(base) is list:
        return f"a list, each {_words(get_args(base)[0])}, such as [1,2] or 1,2"
    if get_origin(base) in (Union, types.UnionType):
        return " or ".join("none" if member is type(None) else _words(member) for member in get_args(base))
    return _PLAIN.get(base, "of the declared type")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


# ---------------------------------------------------------------------------------------------- paths


def locate(value: str, folder: Path) -> Path | None:
    """The absolute path that a path parameter names, relative to `folder`; None for the sample."""
    return None if value == SAMPLE else (folder / Path(value).expanduser()).absolute()
