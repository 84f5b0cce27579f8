"""8.1.c, 8.1.e Registry: versions with their lineage, put live and taken back in one step, damage told and survived."""

import json
import multiprocessing
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from habitlab.dataset import Dataset
from habitlab.recommender.recommend import Recommender
from habitlab.serving import forgotten
from habitlab.serving.learning import registry
from habitlab.serving.learning.registry import RegistryError
from habitlab.simulation import simulate

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def people() -> Dataset:
    return simulate(users=30, days=30, seed=1)


def fit(people: Dataset, diversity: float) -> Recommender:
    return Recommender(diversity=diversity).fit(people)


@pytest.fixture(scope="module")
def models(people: Dataset) -> list[Recommender]:
    return [fit(people, diversity) for diversity in (0.0, 0.1, 0.2)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, models: list[Recommender], people: Dataset) -> Path:
    """Three versions, put live one after the other."""
    place = tmp_path_factory.mktemp("service")
    for number, model in enumerate(models):
        lineage = registry.lineage_of(people, model, fitted_at=NOW, learnt=number)
        registry.promote(place, registry.register(place, model, lineage, card=f"# Card {number}\n"))
    return place


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    """A copy of it for each test."""
    return shutil.copytree(made, tmp_path / "service")


def test_8_1_c_a_version_tells_where_it_comes_from(folder: Path, models: list[Recommender], people: Dataset) -> None:
    names = [version.name for version in registry.versions(folder)]
    assert names == [f"{number:04d}-{model.version_}" for number, model in enumerate(models, 1)]
    version, found = registry.load(folder)
    assert (version.name, version.learnt) == (names[2], 2)
    assert found.version_ == models[2].version_
    assert (version.path / "card.md").read_text() == "# Card 2\n"
    first, second = (registry.versions(folder)[place].lineage for place in (0, 1))
    assert first["data"] == second["data"]
    assert first["code"] == second["code"]
    assert first["parameters_hash"] != second["parameters_hash"]
    changed = people.replace(habit_tracking=people.habit_tracking.iloc[1:])
    assert registry.lineage_of(changed, models[0], fitted_at=NOW)["data"] != first["data"]


def test_a_registered_version_is_not_live_by_itself(tmp_path: Path, models: list[Recommender]) -> None:
    name = registry.register(tmp_path, models[0], {})
    assert registry.current(tmp_path) is None
    with pytest.raises(RegistryError, match="no model is live"):
        registry.load(tmp_path)
    assert registry.load(tmp_path, name)[1].version_ == models[0].version_


def test_the_folder_of_a_service_is_its_owners_alone_whoever_makes_it_first(
    tmp_path: Path, models: list[Recommender]
) -> None:
    registry.register(tmp_path / "a" / "study.service", models[0], {})
    for path in (tmp_path / "a", tmp_path / "a" / "study.service", tmp_path / "a" / "study.service" / "registry"):
        assert path.stat().st_mode & 0o777 == 0o700
    forgotten.mark(tmp_path / "b.service", "ann", forgotten.DONE, datetime(2026, 1, 1, tzinfo=UTC))
    assert (tmp_path / "b.service" / forgotten.FILE).stat().st_mode & 0o777 == 0o600


def test_8_1_e_rollback_goes_back_step_by_step(folder: Path) -> None:
    names = [version.name for version in registry.versions(folder)]
    assert registry.current(folder) == names[2]
    assert registry.rollback(folder) == registry.current(folder) == names[1]
    assert registry.rollback(folder) == registry.current(folder) == names[0]
    with pytest.raises(RegistryError, match="no sound version before"):
        registry.rollback(folder)
    assert registry.current(folder) == names[0]
    registry.promote(folder, names[2])
    assert registry.rollback(folder) == names[0]


@pytest.mark.parametrize("file", ["recommender.model", "recommender.models", "lineage.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_version_is_told_and_the_last_good_one_is_used(
    folder: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = [version.name for version in registry.versions(folder)]
    path = folder / "registry" / names[2] / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(
            content[:middle]
            if damage == "cut"
            else content[:middle] + bytes([content[middle] ^ 255]) + content[middle:]
        )
    if file == "lineage.json" and damage == "flipped":
        path.write_bytes(b"\xff" + content)
    with pytest.raises(RegistryError, match=f"version {names[2]} is damaged"):
        registry.load(folder, names[2])
    version, _ = registry.load(folder)
    assert version.name == names[1]
    assert names[2] in caplog.text
    assert registry.rollback(folder) == names[1]
    with pytest.raises(RegistryError, match="damaged"):
        registry.promote(folder, names[2])
    assert registry.current(folder) == names[1]


def test_all_damaged_is_an_error_that_names_them(folder: Path) -> None:
    for version in registry.versions(folder):
        (version.path / "recommender.model").write_bytes(b"")
    with pytest.raises(RegistryError, match=r"0003.*0002.*0001"):
        registry.load(folder)


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', "[1]"])
def test_a_damaged_list_of_live_versions_is_told_and_rollback_repairs_it(folder: Path, content: str) -> None:
    (folder / "registry" / "current").write_text(content)
    with pytest.raises(RegistryError, match="rollback"):
        registry.current(folder)
    assert registry.rollback(folder) == registry.versions(folder)[-1].name
    assert registry.current(folder) == registry.versions(folder)[-1].name


@pytest.mark.parametrize("name", ["", "nothing", "../registry", "/etc"])
def test_only_versions_can_be_put_live(folder: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="no version"):
        registry.promote(folder, name)


def test_a_write_that_fails_leaves_what_is_live(
    folder: Path, models: list[Recommender], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [version.name for version in registry.versions(folder)]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Recommender, "save", full)
    with pytest.raises(OSError, match="No space"):
        registry.register(folder, models[0], {})
    assert [version.name for version in registry.versions(folder)] == before
    assert not list((folder / "registry").glob(".new-*"))


def test_what_a_crash_left_is_cleared_away(folder: Path, models: list[Recommender]) -> None:
    (folder / "registry" / ".new-0009-dead").mkdir()
    registry.register(folder, models[0], {})
    assert not list((folder / "registry").glob(".new-*"))
    assert len(registry.versions(folder)) == 4


def _register(folder: Path, model: Recommender) -> None:
    registry.promote(folder, registry.register(folder, model, {}))


def test_two_writers_take_turns(tmp_path: Path, models: list[Recommender]) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_register, args=(tmp_path, model)) for model in models]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    names = [version.name for version in registry.versions(tmp_path)]
    assert [name[:4] for name in names] == ["0001", "0002", "0003"]
    assert sorted(registry.history(tmp_path)) == names


def _without_end(folder: Path, models: list[Recommender]) -> None:
    while True:
        for model in models:
            _register(folder, model)
            registry.rollback(folder)
            _register(folder, model)


def test_8_1_e_kill_9_at_any_moment_leaves_a_sound_model_live(folder: Path, models: list[Recommender]) -> None:
    """Whole versions only, the live one readable, and the next writer is not in the way of the dead one."""
    begin, written = time.monotonic(), 0
    _register(folder, models[0])
    took = time.monotonic() - begin
    for wait in took * np.random.default_rng(0).uniform(0.1, 4, 8):
        before = len(registry.versions(folder))
        writer = multiprocessing.get_context("fork").Process(target=_without_end, args=(folder, models))
        writer.start()
        time.sleep(wait)
        writer.kill()
        writer.join()
        written += len(registry.versions(folder)) - before
        for version in registry.versions(folder):
            registry.check(folder, version.name)
        assert registry.load(folder)[0].name == registry.current(folder)
    assert written
    _register(folder, models[0])
    assert not list((folder / "registry").glob(".new-*"))


def test_a_version_can_be_removed_but_not_the_live_one(folder: Path) -> None:
    names = [version.name for version in registry.versions(folder)]
    with pytest.raises(RegistryError, match="live"):
        registry.remove(folder, names[2])
    registry.remove(folder, names[1])
    assert registry.history(folder) == [names[0], names[2]]
    assert not (folder / "registry" / names[1]).exists()
    assert registry.rollback(folder) == names[0]


def test_8_1_f_runs_are_rows_of_the_table(tmp_path: Path) -> None:
    assert registry.runs(tmp_path).empty
    for number in range(3):
        row = {"run_id": f"r{number}", "model": "m", "trained_at": NOW.isoformat(), "parameters": "{}", "metrics": "{}"}
        registry.log_run(tmp_path, row)
    with (tmp_path / "registry" / "model_runs.jsonl").open("a") as file:
        file.write(json.dumps({"run_id": "cut short"})[:-5])
    found = registry.runs(tmp_path)
    assert found["run_id"].tolist() == ["r0", "r1", "r2"]
    Dataset(model_runs=found)
