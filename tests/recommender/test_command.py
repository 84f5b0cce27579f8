"""`habitlab recommend` and `habitlab.recommend`, and what they keep."""

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import habitlab
from habitlab.cli import main
from habitlab.dataset import Dataset
from habitlab.dataset.registration import Registration
from habitlab.recommender import fitted as keeping
from habitlab.recommender.recommend import Recommender
from habitlab.simulation import simulate

AT = "2024-04-01T09:30"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the command as a user does; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["habitlab", "recommend", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data") / "small.db"
    simulate(users=40, days=100).save(place)
    return place


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """Which datasets are fitted from now on."""
    told: list[Dataset] = []
    fit = Recommender.fit
    monkeypatch.setattr(
        Recommender, "fit", lambda self, dataset, until=None: told.append(dataset) or fit(self, dataset)
    )
    return told


def test_the_json_is_the_contract_with_reasons_and_nothing_else_on_stdout(call, path):
    code, out, err = call("u0000001", "--data", path, "--at", AT, "--json")
    assert code == 0
    body = json.loads(out)
    assert body["user_id"] == "u0000001"
    assert [item["rank"] for item in body["items"]] == [1, 2, 3, 4, 5]
    for item in body["items"]:
        assert item["reasons"]
        assert sum(item["contributions"].values()) == pytest.approx(item["score"], abs=1e-9)
    assert set(body) == {"user_id", "items", "filtered", "model_version"}
    assert not err or "fitting" in err


def test_the_first_call_says_that_it_fits_and_the_second_does_not(call, path, fits, monkeypatch, tmp_path):
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path))
    first = call("u0000001", "--data", path, "--at", AT)
    assert "fitting the recommender" in first[2]
    second = call("u0000001", "--data", path, "--at", AT)
    assert "fitting" not in second[2]
    assert second[1] == first[1]
    assert len(fits) == 1


def test_plain_text_has_no_colours_and_names_habits_reasons_and_filters(call, path):
    code, out, _ = call("u0000001", "--data", path, "--at", AT, "--k", 3)
    assert code == 0
    assert "\x1b" not in out
    assert [line[0] for line in out.splitlines() if line[0].isdigit()] == ["1", "2", "3"]
    assert "you have it already:" in out


def test_where_a_lower_score_stands_higher_the_list_says_why(call, path):
    said = "The order also keeps the list varied."
    for user in ("u0000001", "u0000002", "u0000003"):
        _, out, _ = call(user, "--data", path, "--at", AT)
        scores = [item.score for item in habitlab.recommend(path, user, at=AT).items]
        assert (said in out) == (sorted(scores, reverse=True) != scores)
    assert said not in call("u0000001", "--data", path, "--at", AT, "--k", 1)[1]


def test_russian(call, path):
    _, out, err = call("u0000001", "--data", path, "--at", AT, "--lang", "ru")
    assert "уже есть у вас" in out
    assert "english" not in (out + err).lower()


def test_an_unknown_language_is_english_with_a_warning(call, path):
    code, out, err = call("u0000001", "--data", path, "--at", AT, "--lang", "xx")
    assert code == 0
    assert "you have it already" in out
    assert "no texts in `xx`" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "no user 'nobody'"),
        (["u000001"], "nearest: u0000"),
        (["u0000001", "--k", "0"], "1 or more"),
        (["u0000001", "--at", "tomorrow"], "not a moment like"),
        (["u0000001", "--data", "nowhere.db"], "no dataset at nowhere.db; `habitlab import`"),
    ],
)
def test_wrong_calls_say_what_would_be_right(call, path, arguments, message):
    data = [] if "--data" in arguments else ["--data", path]
    code, out, err = call(*arguments, *data)
    assert code == 2
    assert message in err
    assert out == ""


def test_the_sample_is_never_taken_silently(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("u0000001")
    assert (code, out) == (2, "")
    assert "`make data` makes it" in err
    assert "--data sample" in err
    assert call("u0000001", "--data", "sample", "--at", AT)[0] == 0


def cut(kept: Path) -> None:
    kept.write_bytes(kept.read_bytes()[:5000])


def spoil(kept: Path) -> None:
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, spoil, Path.unlink])
@pytest.mark.parametrize("suffix", ["model", "models"])
def test_a_damaged_file_in_the_cache_costs_a_fit_and_nothing_else(path, fits, monkeypatch, tmp_path, suffix, damage):
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path))
    one = keeping.fitted(path)
    (kept,) = (tmp_path / "recommenders").glob(f"*.{suffix}")
    damage(kept)
    again = keeping.fitted(path)
    assert again.version_ == one.version_
    assert again.recommend({"age": 40}).items
    assert len(fits) == 2
    assert keeping.fitted(path).version_ == one.version_
    assert len(fits) == 2


def test_a_changed_dataset_or_source_is_fitted_anew(path, fits, monkeypatch, tmp_path):
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path))
    keeping.fitted(path)
    os.utime(path, (1, 1))
    keeping.fitted(path)
    assert len(fits) == 2
    monkeypatch.setattr(keeping, "source_hash", lambda: "another one")
    keeping.fitted(path)
    assert len(fits) == 3


def test_without_a_writable_cache_it_is_fitted_each_time(path, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path / "file"))
    assert keeping.fitted(path).recommend("u0000001").items


def test_a_dataset_in_memory_is_known_by_its_content(fits, monkeypatch, tmp_path):
    monkeypatch.setenv("HABITLAB_CACHE", str(tmp_path))
    small = simulate(users=40, days=100)
    one = habitlab.recommend(small, "u0000001", at=AT)
    assert one == habitlab.recommend(small, "u0000001", at=AT)
    assert one == habitlab.recommend(simulate(users=40, days=100), "u0000001", at=AT)
    assert len(fits) == 1
    fewer = small.replace(feedback=small.feedback.iloc[:-1])
    habitlab.recommend(fewer, "u0000001", at=AT)
    assert len(fits) == 2


def test_somebody_new_gets_reasons_too():
    found = habitlab.recommend("sample", {"age": 25, "improvement_areas": ["finance"], "time_commitment": 20}, k=3)
    assert len(found.items) == 3
    assert all(item.reasons for item in found.items)
    assert "<table>" in found._repr_html_()


ANSWERS = {"age": 34, "improvement_areas": ["finance"], "time_commitment": 15, "consents": {"similar users": True}}


def test_1_1_1_a_a_registration_record_gives_the_list_of_the_form(call, path, tmp_path, monkeypatch):
    from habitlab.playground import playground

    file = tmp_path / "me.json"
    file.write_text(json.dumps(ANSWERS), encoding="utf-8")
    code, out, _ = call(file, "--data", path, "--at", AT, "--json")
    body = json.loads(out)
    assert (code, body["user_id"]) == (0, "new")
    dataset = Dataset.load(path)
    assert habitlab.recommend(dataset, file, at=AT).to_json() == body
    assert habitlab.recommend(dataset, Registration.of(ANSWERS), at=AT).to_json() == body
    assert habitlab.recommend(dataset, ANSWERS, at=AT).to_json() == body
    form = playground(dataset, answers=ANSWERS).recommendations
    best = [(item.habit_id, item.score, item.reasons) for item in form.items if not item.by_lot]
    assert best == [  # the form knows no moment, by which evening habits may be over and the lot may fall otherwise
        (item.habit_id, item.score, item.reasons)
        for item in habitlab.recommend(dataset, ANSWERS).items
        if not item.by_lot
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(ANSWERS)))
    assert json.loads(call("-", "--data", path, "--at", AT, "--json")[1]) == body


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"age": 7}', "age: 7 is below 13"),
        ('{"agee": 34}', "there is no such question; did you mean age?"),
        ('{"email": "ann@example.org"}', "never kept; leave it out"),
        ("{", "the registration is not JSON"),
        ("[]", "is not a JSON object"),
        ("\xff", "the registration is not JSON"),
    ],
)
def test_1_1_1_a_a_record_that_cannot_be_taken_says_why(call, path, tmp_path, record, message):
    (tmp_path / "me.json").write_bytes(record.encode("latin-1"))
    code, out, err = call(tmp_path / "me.json", "--data", path)
    assert (code, out) == (2, "")
    assert message in err
    assert "ann@example.org" not in err


def test_1_1_1_a_a_record_that_is_not_there(call, path, tmp_path):
    code, out, err = call(tmp_path / "nobody.json", "--data", path)
    assert (code, out) == (2, "")
    assert "no registration record at" in err
    assert "nobody.json" in err
    assert "fitting" not in err  # said before anything that takes long


def test_on_a_terminal_it_is_a_table(path):
    """In a real terminal, as one process."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "habitlab", "recommend", "u0000001", "--data", str(path), "--at", AT, "--k", "2"]
    subprocess.run(command, stdout=child, stderr=subprocess.DEVNULL, check=True, env=os.environ | {"COLUMNS": "120"})
    os.close(child)
    shown = b""
    while b"held" not in shown and (chunk := _read(parent)):
        shown += chunk
    os.close(parent)
    assert "──" in shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # all is read
        return b""


def test_a_loop_backup_gives_what_it_can_and_says_what_it_cannot(call, shared_data, tmp_path):
    from habitlab.dataset.importers import import_source

    import_source(shared_data / "loop-uhabits" / "loop.db", today=pd.Timestamp("2026-01-05").date()).dataset.save(
        tmp_path / "loop.db"
    )
    code, out, err = call("me", "--data", tmp_path / "loop.db", "--at", AT, "--json")
    body = json.loads(out)
    assert code == 0
    assert len(body["items"]) == 5
    assert body["filtered"]["held"] == 6
    assert "the same for all habits" in err
    assert "nobody else to compare you with" in err
    assert "hardly personal" in err
    assert "suit you equally" in err
    _, _, err = call("me", "--data", tmp_path / "loop.db", "--at", AT, "--lang", "ru")
    assert "подходят вам одинаково" in err
    assert "you" not in err


def test_lifesnaps_gives_what_it_can_and_says_what_it_cannot(call, shared_data, tmp_path):
    from habitlab.dataset.importers import import_source

    data = import_source(shared_data / "lifesnaps", today=pd.Timestamp("2026-01-05").date()).dataset
    data.save(tmp_path / "lifesnaps.db")
    user = str(data.users["user_id"].iloc[0])
    code, out, err = call(user, "--data", tmp_path / "lifesnaps.db", "--at", AT, "--json")
    assert code == 0
    assert len(json.loads(out)["items"]) == 5
    assert "the same for all" in err
    assert "nobody else" not in err
