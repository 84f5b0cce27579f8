"""Model files: requirement 1.2.2.e and 3: what was fitted comes back bit-equal, and nothing else comes with it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import habitlab
from habitlab.dataset.vocabulary import Category
from habitlab.features.rates import RatePrior
from habitlab.models import storage
from habitlab.models.storage import ModelFileError, load, read_header, save
from habitlab.models.success import SuccessModel


def there_and_back(thing: Any, folder: Path) -> Any:
    save(thing, folder / "thing.model", kind="thing")
    return load(folder / "thing.model", kind="thing")


class TestSuccessModel:
    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[SuccessModel, Path]:
        model = SuccessModel().fit(habitlab.open_dataset())
        path = tmp_path_factory.mktemp("models") / "success.model"
        save(model, path, kind="success")
        return model, path

    def test_1_2_2_e_scores_bit_equal_in_a_new_process_without_scikit_learn(
        self, stored: tuple[SuccessModel, Path], tmp_path: Path
    ) -> None:
        """Importing scikit-learn and skops takes longer than everything else that a recommendation needs."""
        model, path = stored
        first = model.user_ids_[0]
        one_user = (
            f"model.score([{first!r}])",
            "print('sklearn' in sys.modules, 'skops' in sys.modules, 'scipy.stats' in sys.modules)",
            model.score([first]),
        )
        everybody = ("model.score()", "print('skops' in sys.modules)", model.score())
        for call, check, expected in (one_user, everybody):
            script = (
                "import sys, numpy\n"
                "from habitlab.models.storage import load\n"
                f"model = load({str(path)!r}, kind='success')\n"
                f"numpy.save({str(tmp_path / 'scores.npy')!r}, {call})\n"
                f"model.score_interval(0.3)\n{check}\n"
            )
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
            assert set(done.stdout.split()) == {"False"}
            np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), expected)

    def test_says_what_it_is(self, stored: tuple[SuccessModel, Path]) -> None:
        header = read_header(stored[1])
        assert (header["kind"], header["habitlab"], header["estimators"]) == ("success", habitlab.__version__, 0)
        assert len(header["sha256"]) == 64

    def test_the_same_state_gives_the_same_bytes(self, stored: tuple[SuccessModel, Path], tmp_path: Path) -> None:
        save(load(stored[1]), tmp_path / "again.model", kind="success")
        assert (tmp_path / "again.model").read_bytes() == stored[1].read_bytes()


class TestValues:
    @pytest.mark.parametrize(
        "thing",
        [
            None, True, 3, -0.1, float("inf"), "имя", [1, [2.5, None]], (1, "a"), {"a", "b"}, frozenset({1}),
            {"a": {1: (2, 3)}, None: []}, Category.DIET, date(2026, 1, 5), pd.Timestamp("2026-01-05T07:30", tz="UTC"),
            RatePrior(2.0, 3.0), np.float32(0.1), np.bool_(True), np.datetime64("2026-01-05"), slice,
        ],
    )  # fmt: skip
    def test_plain_values(self, thing: Any, tmp_path: Path) -> None:
        if thing is slice:
            with pytest.raises(ModelFileError, match="not stored"):
                there_and_back(thing, tmp_path)
            return
        back = there_and_back(thing, tmp_path)
        assert back == thing
        assert type(back) is type(thing)

    @settings(deadline=None, max_examples=60)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
            max_leaves=20,
        )
    )
    def test_nested_values(self, tmp_path_factory: pytest.TempPathFactory, thing: Any) -> None:
        assert there_and_back(thing, tmp_path_factory.getbasetemp()) == thing

    @pytest.mark.parametrize(
        "array",
        [
            np.array([0.1, np.nan, -np.inf]),
            np.arange(6, dtype=np.int8).reshape(2, 3),
            np.zeros((0, 4)),
            np.array([["a", None], ["ж", "d"]], dtype=object),
            np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
            np.array(["2026-01-05", "NaT"], dtype="datetime64[D]"),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        ],
    )
    def test_arrays_bit_by_bit(self, array: np.ndarray, tmp_path: Path) -> None:
        back = there_and_back(array, tmp_path)
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, array)
        if array.dtype != object:
            assert back.tobytes() == array.tobytes()

    def test_an_array_that_is_shared_stays_shared(self, tmp_path: Path) -> None:
        ids = np.arange(1000.0)
        one, other = there_and_back([ids, {"same": ids}], tmp_path)
        assert one is other["same"]
        with zipfile.ZipFile(tmp_path / "thing.model") as archive:
            assert sum(name.endswith(".npy") for name in archive.namelist()) == 1

    @pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
    def test_sparse_matrices(self, kind: type, tmp_path: Path) -> None:
        matrix = kind(np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
        back = there_and_back(matrix, tmp_path)
        assert type(back) is kind
        np.testing.assert_array_equal(back.toarray(), matrix.toarray())

    def test_tables(self, tmp_path: Path) -> None:
        dataset = habitlab.open_dataset()
        for table in (dataset.users, dataset.habits, dataset.adoptions.head(50), dataset.users.iloc[:0]):
            pd.testing.assert_frame_equal(there_and_back(table, tmp_path), table)
        indexed = dataset.users.set_index("user_id")["age"]
        pd.testing.assert_series_equal(there_and_back(indexed, tmp_path), indexed)

    @pytest.mark.parametrize(
        ("thing", "where"),
        [
            ({"a": [1, lambda x: x]}, r"dict\['a'\]\[1\] is a builtins.function"),
            ([sparse.coo_array(np.eye(2))], r"list\[0\] is a scipy.sparse._coo.coo_array"),
            (np.random.default_rng(0), "Generator is a numpy.random"),
            (make_pipeline(TfidfVectorizer(tokenizer=str.split)), "types that no file may hold|not stored"),
        ],
    )
    def test_what_cannot_be_stored_is_refused_when_saving(self, thing: Any, where: str, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match=where):
            save(thing, tmp_path / "thing.model", kind="thing")
        assert list(tmp_path.iterdir()) == []


class TestEstimators:
    """Parts of scikit-learn, as preprocessing and text features hold them."""

    def test_1_2_2_e_estimators_come_back_bit_equal(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        rows = generator.normal(size=(300, 5))
        rows[0, 0] = np.nan
        texts = ["walk every morning", "read a book", "пить воду", "walk and read"]
        words = TfidfVectorizer().fit(texts)
        pieces = {
            "words": words,
            "dense": TruncatedSVD(2, random_state=0).fit(words.transform(texts)),
            "numbers": make_pipeline(SimpleImputer(), StandardScaler()).fit(rows),
            "trees": HistGradientBoostingClassifier(max_iter=5).fit(rows, rows[:, 1] > 0),
        }
        back = there_and_back(pieces, tmp_path)
        matrix = words.transform(texts)
        np.testing.assert_array_equal(back["words"].transform(texts).toarray(), matrix.toarray())
        np.testing.assert_array_equal(back["dense"].transform(matrix), pieces["dense"].transform(matrix))
        np.testing.assert_array_equal(back["numbers"].transform(rows), pieces["numbers"].transform(rows))
        np.testing.assert_array_equal(back["trees"].predict_proba(rows), pieces["trees"].predict_proba(rows))

    def test_other_versions_of_scikit_learn_are_refused_where_it_matters(self, tmp_path: Path) -> None:
        for thing, refused in ((StandardScaler().fit([[1.0]]), True), (np.arange(3), False)):
            save(thing, tmp_path / "thing.model", kind="thing")
            rewrite(tmp_path / "thing.model", header={"scikit-learn": "1.2.3"})
            if refused:
                with pytest.raises(ModelFileError, match=r"parts of scikit-learn 1\.2\.3; here is"):
                    load(tmp_path / "thing.model")
            else:
                load(tmp_path / "thing.model")


def rewrite(path: Path, header: dict[str, Any] | None = None, **members: bytes) -> None:
    """Change a model file as its author could: with a hash that fits."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    told = json.loads(contents.pop("header.json"))
    contents |= {name.replace("__", "."): content for name, content in members.items()}
    told |= header or {}
    told |= {"sha256": storage._digest(told, contents)} if "sha256" not in (header or {}) else {}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"header.json": json.dumps(told).encode(), **contents}.items():
            archive.writestr(name, content)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.model"
    save({"prior": RatePrior(2.0, 3.0), "ids": np.arange(50.0)}, path, kind="prior")
    return path


class TestBadFiles:
    """A clear error for each, and never a wrong object."""

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="no model file at"):
            load(tmp_path / "nothing.model")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFileError, match="is a folder"):
            load(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04\x95", b"SQLite format 3\x00"])
    def test_not_ours(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "x.model").write_bytes(content)
        with pytest.raises(ModelFileError, match="not a model file"):
            load(tmp_path / "x.model")

    def test_another_zip(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", a=np.arange(3))
        with pytest.raises(ModelFileError, match="not a model file"):
            load(tmp_path / "x.npz")

    def test_cut_short_anywhere(self, file: Path) -> None:
        whole = file.read_bytes()
        for length in range(2, len(whole), 7):
            file.write_bytes(whole[:length])
            with pytest.raises(ModelFileError, match=r"cut short or damaged|not a model file"):
                load(file)

    def test_damaged_anywhere(self, file: Path) -> None:
        """A flipped bit is found, or lies where nothing is read from."""
        whole = file.read_bytes()
        expected = load(file)
        refused = 0
        for place in range(0, len(whole), 3):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            try:
                found = load(file)
            except ModelFileError:
                refused += 1
            else:
                assert read_header(file)["kind"] == "prior"
                assert found["prior"] == expected["prior"]
                np.testing.assert_array_equal(found["ids"], expected["ids"])
        assert refused > len(whole) / 3 / 2

    def test_content_that_does_not_fit_its_header(self, file: Path) -> None:
        rewrite(file, header={"sha256": "0" * 64})
        with pytest.raises(ModelFileError, match="is damaged"):
            load(file)

    @pytest.mark.parametrize("header", [{"format": 99}, {"habitlab": "0.0.1"}])
    def test_another_version(self, file: Path, header: dict[str, Any]) -> None:
        rewrite(file, header=header)
        with pytest.raises(ModelFileError, match=r"written by habitlab .* fit it again"):
            load(file)

    def test_another_kind(self, file: Path) -> None:
        with pytest.raises(ModelFileError, match="holds a prior, not a recommender"):
            load(file, kind="recommender")

    @pytest.mark.parametrize(
        "name",
        [
            "os:system", "builtins:eval", "subprocess:Popen", "habitlab.cli:main", "habitlab.report.build:Build",
            "habitlab.models.storage:Path", "habitlab.models.storage:importlib", "habitlab.models.storage:save",
            "habitlab.modelsx:Thing", "pathlib:Path",
        ],
    )  # fmt: skip
    def test_untrusted_types_are_named(self, file: Path, name: str) -> None:
        state = {"type": "object", "class": name, "state": {}}
        rewrite(file, state__json=json.dumps(state).encode())
        with pytest.raises(ModelFileError, match="types that no model file may hold: .*" + name.split(":")[1]):
            load(file)

    def test_an_enumeration_cannot_name_another_class(self, file: Path) -> None:
        state = {"type": "enum", "class": "habitlab.features.rates:RatePrior", "value": 3}
        rewrite(file, state__json=json.dumps(state).encode())
        with pytest.raises(ModelFileError, match="no model file may hold"):
            load(file)

    def test_pickled_arrays_are_not_read(self, file: Path) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        state = {"type": "array", "array": "0.npy"}
        rewrite(file, state__json=json.dumps(state).encode(), **{"0__npy": buffer.getvalue()})
        with pytest.raises(ModelFileError, match="not what habitlab writes"):
            load(file)

    def test_untrusted_estimators_are_named(self, file: Path) -> None:
        content = skops.io.dumps(TfidfVectorizer(tokenizer=subprocess.getoutput))
        rewrite(
            file, state__json=b'{"type": "estimator", "file": "7.skops"}', **{"7__skops": content}
        )  # fmt: skip
        with pytest.raises(ModelFileError, match=r"no model file may hold: .*getoutput"):
            load(file)

    @pytest.mark.parametrize(
        "state",
        [
            {"type": "no such"}, {"no": "type"}, {"type": "array", "array": "9.npy"},
            {"type": "object", "class": "habitlab.features.rates:RatePrior"},
            {"type": "object", "class": "habitlab.features.rates:Gone", "state": {}},
            {"type": "object", "class": "habitlab.models.success:Fitted", "state": {}},
            {"type": "enum", "class": "habitlab.dataset.vocabulary:Level", "value": "no such level"},
            {"type": "date", "iso": "yesterday"}, {"type": "objects", "shape": [3], "parts": [1]},
            {"type": "estimator", "file": "state.json"}, "[" * 100_000,
        ],
    )  # fmt: skip
    def test_nonsense(self, file: Path, state: dict[str, Any] | str) -> None:
        rewrite(file, state__json=(state if isinstance(state, str) else json.dumps(state)).encode())
        with pytest.raises(ModelFileError, match=r"not what habitlab writes|types that no|fit it again"):
            load(file)

    def test_a_small_file_cannot_fill_the_memory(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "bomb.model", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("state.json", bytes(1 << 24))
        with pytest.raises(ModelFileError, match="damaged"):
            load(tmp_path / "bomb.model")


def test_a_failure_while_writing_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="no space left"):
        save([1], file, kind="prior")
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
