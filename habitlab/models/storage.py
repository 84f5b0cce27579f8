"""Fitted objects in a file, and back: bit-equal in any process, and no code runs from a file, whoever wrote it.

A model file is a zip that anybody can look into: `header.json` (what it is, of which versions, the hash of it all),
`state.json` (the object as plain values, and the names of its types), `N.npy` for each array, `N.skops` for each
scikit-learn estimator. Arrays are read without pickle, estimators by skops, and no type is made that is not on the
lists below. Our own objects hold arrays, so that neither scikit-learn nor skops, seconds of import, is needed for them.

The hash finds damage, not malice: who can write the file can write its hash. Malice is what the lists of types are for.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import io
import json
import platform
import zipfile
from datetime import date, datetime
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from habitlab.dataset.sqlite import replacing

FORMAT = 2

OURS = ("habitlab.dataset.vocabulary", "habitlab.features", "habitlab.models", "habitlab.recommender")
"""Modules whose classes a file may name. An object is made without calling anything of its class: its attributes are
set, nothing else."""

TRUSTED = (
    "numpy.dtype",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Parts of scikit-learn's estimators that are allowed beside those that skops trusts by itself."""

_MOMENTS = {"date": date, "datetime": datetime, "Timestamp": pd.Timestamp}
_SPARSE = {name: getattr(sparse, name) for name in ("csr_array", "csc_array", "csr_matrix", "csc_matrix")}


class ModelFileError(ValueError):
    """A model file cannot be read, or an object cannot be stored."""


def save(thing: Any, path: str | Path, *, kind: str) -> None:
    """Write a fitted object to `path`; what stood there is replaced in one step when all is written.

    The same state gives the same bytes. `kind` says what it is, such as "recommender"; `load` can ask for it.

    Raises
    ------
    ModelFileError
        The object holds something that is not stored (a function, an open file, a type of others), and where.
    """
    members = _Writer()
    state = json.dumps(members.value(thing, type(thing).__name__), ensure_ascii=False, separators=(",", ":"))
    contents = {"state.json": state.encode(), **members.files}
    header = {
        "format": FORMAT,
        "kind": kind,
        "habitlab": _version("habitlab"),
        "python": platform.python_version(),
        "scikit-learn": _version("scikit-learn"),
        "estimators": sum(name.endswith(".skops") for name in contents),
    }
    header["sha256"] = _digest(header, contents)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"header.json": json.dumps(header, indent=1).encode(), **contents}.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # without a date: the same state, the same bytes


def load(path: str | Path, *, kind: str | None = None) -> Any:
    """Read what `save` wrote; with `kind`, only that.

    Raises
    ------
    FileNotFoundError
        Nothing is at `path`.
    ModelFileError
        The file is none of ours, damaged, of another version, of another kind, or names types that are not allowed.
    """
    header, contents = _read(Path(path))
    if header.get("format") != FORMAT or header.get("habitlab") != _version("habitlab"):
        raise ModelFileError(
            f"{path} was written by habitlab {header.get('habitlab')} (format {header.get('format')}); "
            f"this is {_version('habitlab')} (format {FORMAT}): fit it again"
        )
    if header.get("sha256") != _digest(header, contents):
        raise ModelFileError(f"{path} is damaged: its content is not what its header says; fit it again")
    if header.get("estimators") and header.get("scikit-learn") != _version("scikit-learn"):
        raise ModelFileError(
            f"{path} holds parts of scikit-learn {header.get('scikit-learn')}; here is {_version('scikit-learn')}: "
            "fit it again"
        )
    if kind is not None and header.get("kind") != kind:
        raise ModelFileError(f"{path} holds a {header.get('kind')}, not a {kind}")
    try:
        return _Reader(contents, str(path)).value(json.loads(contents["state.json"]))
    except ModelFileError:
        raise
    except Exception as error:  # whatever a file made by hand may lead to, in json, numpy, pandas, scipy or skops
        raise ModelFileError(f"{path} is not what habitlab writes: {error!r}") from error


def read_header(path: str | Path) -> dict[str, Any]:
    """Return what a model file says of itself: kind, versions and the hash of its content; errors as `load`."""
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    if not path.exists():
        raise FileNotFoundError(f"no model file at {path}")
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a model file")
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed")  # ours never are, and a small file could fill the memory
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (
        Exception
    ) as error:  # zipfile raises a dozen kinds of errors on damaged bytes, OSError and EOFError among them
        what = "is cut short or damaged: fit it again" if content[:2] == b"PK" else "is not a model file of habitlab"
        raise ModelFileError(f"{path} {what}") from error
    try:
        header = json.loads(contents.pop("header.json"))
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not a model file of habitlab") from error
    if not isinstance(header, dict) or "state.json" not in contents:
        raise ModelFileError(f"{path} is not a model file of habitlab")
    return header, contents


def _digest(header: dict[str, Any], contents: dict[str, bytes]) -> str:
    told = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(contents):
        digest.update(f"{name} {len(contents[name])}\n".encode())
        digest.update(contents[name])
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


class _Writer:
    """From objects to JSON values; arrays and estimators become files of their own."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self._known: dict[int, tuple[str, Any]] = {}  # the array is kept, so that no other gets its id

    def value(self, thing: Any, where: str) -> Any:
        match thing:
            case Enum():
                return {
                    "type": "enum",
                    "class": self._name(type(thing), where),
                    "value": self.value(thing.value, where),
                }
            case None | bool() | str():
                return thing if thing is None or type(thing) in (bool, str) else str(thing)
            case np.generic():
                return {"type": "scalar", "array": self._array(np.asarray(thing), where)}
            case int() | float():
                return thing
            case list():
                return [self.value(part, f"{where}[{i}]") for i, part in enumerate(thing)]
            case tuple() if type(thing) is tuple:
                return {"type": "tuple", "parts": self.value(list(thing), where)}
            case set() | frozenset():
                parts = sorted(thing, key=repr)
                return {"type": type(thing).__name__, "parts": self.value(parts, where)}
            case dict() if type(thing) is dict:
                items = [[self.value(k, where), self.value(v, f"{where}[{k!r}]")] for k, v in thing.items()]
                return {"type": "dict", "items": items}
            case np.ndarray() if type(thing) is np.ndarray:
                if thing.dtype.kind == "O":
                    parts = self.value(thing.ravel().tolist(), where)
                    return {"type": "objects", "shape": list(thing.shape), "parts": parts}
                return {"type": "array", "array": self._array(thing, where)}
            case datetime() | date() if type(thing).__name__ in _MOMENTS:
                return {"type": type(thing).__name__, "iso": thing.isoformat()}
            case pd.DataFrame() | pd.Series() | pd.Index():
                return self._frame(thing, where)
        name = type(thing).__name__
        if name in _SPARSE and type(thing) is _SPARSE[name]:
            arrays = {part: self._array(getattr(thing, part), where) for part in ("data", "indices", "indptr")}
            return {"type": name, "shape": list(map(int, thing.shape)), **arrays}
        if _is_ours(type(thing).__module__):
            state = {key: self.value(part, f"{where}.{key}") for key, part in _attributes(thing).items()}
            return {"type": "object", "class": self._name(type(thing), where), "state": state}
        if type(thing).__module__.startswith("sklearn."):
            return {"type": "estimator", "file": self._estimator(thing, where)}
        raise ModelFileError(f"{where} is a {type(thing).__module__}.{name}: such things are not stored")

    def _frame(self, thing: pd.DataFrame | pd.Series | pd.Index, where: str) -> dict[str, Any]:
        if isinstance(thing, pd.DataFrame):
            parts = ((name, thing.iloc[:, place]) for place, name in enumerate(thing.columns))
            columns = [self._values(column, f"{where}[{name!r}]") for name, column in parts]
            return {
                "type": "frame",
                "index": self._frame(thing.index, where),
                "names": self._frame(thing.columns, where),
                "columns": columns,
            }
        if isinstance(thing, pd.Series):
            index = self._frame(thing.index, where)
            return {
                "type": "series",
                "index": index,
                "name": self.value(thing.name, where),
                **self._values(thing, where),
            }
        if isinstance(thing, pd.MultiIndex):
            raise ModelFileError(f"{where} has an index of several levels: reset it before storing")
        return {"type": "index", "name": self.value(thing.name, where), **self._values(thing.to_series(), where)}

    def _values(self, column: pd.Series, where: str) -> dict[str, Any]:
        dtype = column.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            categories = self._frame(dtype.categories, where)
            codes = self._array(column.cat.codes.to_numpy(), where)
            return {"dtype": "category", "array": codes, "categories": categories, "ordered": bool(dtype.ordered)}
        if isinstance(dtype, pd.DatetimeTZDtype):
            return {
                "dtype": str(dtype),
                "array": self._array(column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), where),
            }
        if isinstance(dtype, np.dtype) and dtype.kind != "O":
            return {"dtype": str(dtype), "array": self._array(column.to_numpy(), where)}
        parts = [None if _missing(part) else part for part in column.tolist()]
        return {"dtype": str(dtype), "parts": self.value(parts, where)}

    def _array(self, array: np.ndarray, where: str) -> str:
        if id(array) in self._known:
            return self._known[id(array)][0]
        buffer = io.BytesIO()
        try:
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
        except ValueError as error:
            raise ModelFileError(f"{where} is an array of objects: {error}") from error
        name = f"{len(self.files)}.npy"
        self.files[name] = buffer.getvalue()
        self._known[id(array)] = name, array
        return name

    def _estimator(self, thing: Any, where: str) -> str:
        import skops.io

        content = skops.io.dumps(thing)
        strange = _untrusted(content)
        if strange:
            raise ModelFileError(f"{where} holds types that no file may hold: {', '.join(strange)}")
        name = f"{len(self.files)}.skops"
        self.files[name] = content
        return name

    def _name(self, kind: type, where: str) -> str:
        if not _is_ours(kind.__module__) or "<" in kind.__qualname__:
            raise ModelFileError(f"{where} is a {kind.__module__}.{kind.__qualname__}: such things are not stored")
        return f"{kind.__module__}:{kind.__qualname__}"


class _Reader:
    """From JSON values back to objects."""

    def __init__(self, contents: dict[str, bytes], path: str) -> None:
        self._contents, self._path = contents, path
        self._arrays: dict[str, np.ndarray] = {}

    def value(self, told: Any) -> Any:
        if isinstance(told, list):
            return [self.value(part) for part in told]
        if not isinstance(told, dict):
            return told
        match told["type"]:
            case "tuple":
                return tuple(self.value(told["parts"]))
            case "set":
                return set(self.value(told["parts"]))
            case "frozenset":
                return frozenset(self.value(told["parts"]))
            case "dict":
                return {self.value(key): self.value(part) for key, part in told["items"]}
            case "array":
                return self._array(told["array"])
            case "scalar":
                return self._array(told["array"])[()]
            case "objects":
                array = np.empty(len(told["parts"]), dtype=object)
                array[:] = self.value(told["parts"])
                return array.reshape(told["shape"])
            case "enum":
                return self._class(told["class"], Enum)(self.value(told["value"]))
            case "object":
                return self._object(told)
            case "estimator":
                return self._estimator(told["file"])
            case "frame" | "series" | "index":
                return self._frame(told)
            case name if name in _MOMENTS:
                return _MOMENTS[name].fromisoformat(told["iso"])
            case name if name in _SPARSE:
                parts = tuple(self._array(told[part]) for part in ("data", "indices", "indptr"))
                return _SPARSE[name](parts, shape=tuple(told["shape"]))
        raise self._untrusted([str(told["type"])])

    def _object(self, told: dict[str, Any]) -> Any:
        kind: type = self._class(told["class"], object)
        thing: Any = object.__new__(kind)
        state = {key: self.value(part) for key, part in told["state"].items()}
        for key, part in state.items():
            object.__setattr__(thing, key, part)
        if dataclasses.is_dataclass(thing):
            absent = [f.name for f in dataclasses.fields(thing) if not hasattr(thing, f.name)]
            if absent:
                raise ModelFileError(f"{self._path}: `{absent[0]}` of {kind.__name__} is absent; fit it again")
        return thing

    def _class(self, name: str, parent: type) -> Any:
        module, _, path = name.partition(":")
        if not _is_ours(module):
            raise self._untrusted([f"{module}.{path}"])
        try:
            kind: Any = importlib.import_module(module)
            for part in path.split("."):
                kind = getattr(kind, part)
        except (ImportError, AttributeError) as error:
            raise ModelFileError(f"{self._path} needs {module}.{path}, which is not here; fit it again") from error
        # A module also holds what it imports: only its own classes are meant.
        if not isinstance(kind, type) or not issubclass(kind, parent) or kind.__module__ != module:
            raise self._untrusted([f"{module}.{path}"])
        return kind

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = np.lib.format.read_array(io.BytesIO(self._contents[name]), allow_pickle=False)
        return self._arrays[name]

    def _estimator(self, name: str) -> Any:
        strange = _untrusted(self._contents[name])
        if strange:
            raise self._untrusted(strange)
        import skops.io

        return skops.io.loads(self._contents[name], trusted=list(TRUSTED))

    def _frame(self, told: dict[str, Any]) -> Any:
        match told["type"]:
            case "index":
                return pd.Index(self._values(told), name=self.value(told["name"]))
            case "series":
                return pd.Series(self._values(told), index=self._frame(told["index"]), name=self.value(told["name"]))
        index, names = self._frame(told["index"]), self._frame(told["names"])
        columns = {i: self._values(column) for i, column in enumerate(told["columns"])}
        frame = pd.DataFrame({i: pd.Series(column, index=index) for i, column in columns.items()}, index=index)
        return frame.set_axis(names, axis=1)

    def _values(self, told: dict[str, Any]) -> Any:
        if told["dtype"] == "category":
            kept = self._frame(told["categories"])
            return pd.Categorical.from_codes(self._array(told["array"]), categories=kept, ordered=told["ordered"])
        if "parts" in told:
            parts = self.value(told["parts"])
            if told["dtype"] == "object":
                array = np.empty(len(parts), dtype=object)
                array[:] = parts
                return array
            return pd.array(parts, dtype=told["dtype"])
        array = self._array(told["array"])
        if told["dtype"].startswith("datetime64") and "," in told["dtype"]:
            zone = told["dtype"].split(",")[1].strip(" ]")
            return pd.DatetimeIndex(array).tz_localize("UTC").tz_convert(zone)
        return array

    def _untrusted(self, names: list[str]) -> ModelFileError:
        return ModelFileError(
            f"{self._path} names types that no model file may hold: {', '.join(names)}; do not use this file unless "
            "you know who wrote it, and fit the model again"
        )


def _is_ours(module: str) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in OURS)


def _attributes(thing: Any) -> dict[str, Any]:
    """Attributes of an object, without what is computed from others on demand."""
    if hasattr(thing, "__dict__"):
        held = vars(thing)
    else:
        held = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing)}
    return {
        name: part
        for name, part in held.items()
        if not isinstance(getattr(type(thing), name, None), functools.cached_property)
    }


def _missing(part: Any) -> bool:
    return part is None or part is pd.NA or part is pd.NaT or (isinstance(part, float) and part != part)


def _untrusted(content: bytes) -> list[str]:
    """Types in a file of skops that neither it nor we trust."""
    import skops.io

    return sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED))
