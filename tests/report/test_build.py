"""Building reports: what runs, what is found made, what is written, and what a failure or an interruption leaves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from habitlab.report import build, cache
from habitlab.report.build import OutputError, build_reports, select
from tests.report.engine import ENVIRONMENT, processes_with, wait_until, write_notebook
from tests.report.engine import project as project  # a fixture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def books(project: Path) -> Path:
    folder = project / "notebooks"
    for name in ("01-one", "02-two", "03-three"):
        write_notebook(folder / f"{name}.ipynb", f"print('{name}', level, data)")
    write_notebook(folder / "playground.ipynb", "raise SystemExit")
    return folder


def make(*names: str, **options) -> dict[str, str]:
    """Build into ./out; the status of each report."""
    result = build_reports(names, **{"notebooks_dir": Path("notebooks"), "out": Path("out"), "jobs": 2} | options)
    return {report.name: report.status for report in result.reports}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "run.json"}


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch):
    """From the moment this is called, starting anything is an error."""

    def forbid() -> None:
        def started(*_: object, **__: object) -> None:
            raise AssertionError("something ran")

        monkeypatch.setattr(build, "_run_all", started)

    return forbid


# ---------------------------------------------------------------------------------------------- what runs


def test_a_build_and_the_next_one_that_has_nothing_to_do(books: Path, project: Path, no_kernel) -> None:
    assert make() == {"01-one": "ran", "02-two": "ran", "03-three": "ran"}
    first = bytes_of(project / "out")
    names = [f"0{n}-{word}.{kind}" for n, word in enumerate(("one", "two", "three"), 1) for kind in ("html", "json")]
    assert sorted(first) == sorted([*names, "index.html", ".lock"])
    no_kernel()
    assert set(make().values()) == {"cached"}
    assert bytes_of(project / "out") == first

    (project / "out" / "02-two.html").write_text("spoilt by hand")
    assert set(make().values()) == {"cached"}
    assert set(make(out=Path("elsewhere")).values()) == {"cached"}  # and what was wiped out comes back
    assert bytes_of(project / "out") == bytes_of(project / "elsewhere") == first


def test_only_what_changed_runs(books: Path, project: Path) -> None:
    make()
    write_notebook(books / "02-two.ipynb", "print('changed')")
    assert make() == {"01-one": "cached", "02-two": "ran", "03-three": "cached"}
    assert make("01", force=True) == {"01-one": "ran"}


def test_runtimes_go_to_run_json_and_never_into_a_page(books: Path, project: Path) -> None:
    source = "import time; from habitlab.report import findings; findings.runtimes({'fitting, svd': time.time()})"
    write_notebook(books / "02-two.ipynb", source)
    seen = []
    for options in ({}, {"force": True}, {}):
        make("02", **options)
        run = json.loads((project / "out" / "run.json").read_text())
        page = (project / "out" / "02-two.html").read_text()
        assert "vnd.habitlab.runtimes" not in page
        seen.append((run["reports"]["02-two"]["runtimes"]["fitting, svd"], page))
    (first, page), (again, page_again), cached = seen
    assert first < again
    assert page == page_again
    assert cached == (again, page)


@pytest.mark.parametrize("changed", ["package/code.py", "requirements.lock", "level"])
def test_source_lock_and_parameters_count(books: Path, project: Path, no_kernel, changed: str) -> None:
    make("01")
    no_kernel()
    assert make("01", overrides={"level": "0.95"}) == {"01-one": "cached"}  # what it was anyway
    if changed != "level":
        (project / changed).write_text("other")
    with pytest.raises(AssertionError, match="something ran"):
        make("01", overrides={"level": "0.9"} if changed == "level" else {})


def test_two_builds_from_nothing_are_the_same_bytes(books: Path, project: Path, monkeypatch) -> None:
    make("01", "03", data="requirements.lock")
    elsewhere = project / "moved" / "deeper"
    (elsewhere / "notebooks").mkdir(parents=True)
    for path in (*books.iterdir(), project / "requirements.lock"):
        (elsewhere / path.relative_to(project)).write_bytes(path.read_bytes())
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HABITLAB_CACHE", str(elsewhere / "cache"))
    assert make("01", "03", data="requirements.lock", jobs=1, fork=False) == {"01-one": "ran", "03-three": "ran"}
    assert bytes_of(elsewhere / "out") == bytes_of(project / "out")


def test_data_count_by_content_and_no_place_enters_a_page(books: Path, project: Path, no_kernel) -> None:
    (project / "data").mkdir()
    (project / "data" / "mine.db").write_bytes(b"rows")
    assert set(make(data="data/mine.db").values()) == {"ran"}
    page = (project / "out" / "01-one.html").read_text()
    assert str(project) not in page
    assert '# Parameters\\ndata = \\"data/mine.db\\"' in page  # the cell that papermill puts in
    record = json.loads((project / "out" / "01-one.json").read_text())
    assert record["parameters"] == {"data": "data/mine.db", "level": 0.95, "seed": 0}
    assert record["provenance"]["command"] == "habitlab report 01-one --data data/mine.db"
    assert record["provenance"]["data"] == cache.hashlib.sha256(b"rows").hexdigest()

    no_kernel()
    os.utime(project / "data" / "mine.db")
    assert set(make(data="data/mine.db").values()) == {"cached"}
    (project / "copy of mine.db").write_bytes(b"rows")
    assert set(make(data=project / "copy of mine.db").values()) == {"cached"}  # the same content; only the page is new
    record = json.loads((project / "out" / "01-one.json").read_text())
    assert record["provenance"]["command"] == "habitlab report 01-one --data 'copy of mine.db'"
    assert "data/mine.db" not in (project / "out" / "01-one.html").read_text()
    (project / "data" / "mine.db").write_bytes(b"other")
    with pytest.raises(AssertionError, match="something ran"):
        make(data="data/mine.db")


def test_data_that_change_while_a_notebook_runs_leave_no_report_and_nothing_kept(books: Path, project: Path) -> None:
    write_notebook(books / "01-one.ipynb", "seen = open(data).read()", "open(data, 'a').write('another row')")
    (project / "mine.csv").write_text("seven")
    assert make("01", data="mine.csv") == {"01-one": "failed"}
    assert "what lies at `data` was changed while this ran" in (project / "out" / "01-one.failed.html").read_text()
    (project / "mine.csv").write_text("seven")
    assert make("01", data="mine.csv") == {"01-one": "failed"}  # it ran again


def test_the_notebook_gets_a_path_that_it_can_open(books: Path, project: Path) -> None:
    write_notebook(books / "01-one.ipynb", "print(open(data).read())")
    (project / "mine.csv").write_text("seven")
    assert make("01", data="mine.csv") == {"01-one": "ran"}
    assert "seven" in (project / "out" / "01-one.html").read_text()


def test_a_default_path_that_is_absent_is_no_error(books: Path) -> None:
    write_notebook(books / "01-one.ipynb", "print(truth)", parameters='truth: DataPath = "../nowhere.db"\n')
    assert make("01") == {"01-one": "ran"}


# ---------------------------------------------------------------------------------------------- wrong calls


def test_names_may_be_numbers_names_or_beginnings() -> None:
    notebooks = [
        Path(f"{stem}.ipynb") for stem in ("01-data-quality", "02-user-behaviour", "03-correlations-and-claims")
    ]

    def chosen(*names: str) -> list[str]:
        return [path.stem[:2] for path in select(names, notebooks)]

    assert chosen() == ["01", "02", "03"]
    assert chosen("03", "1") == ["01", "03"]
    assert chosen("02-user-behaviour.ipynb") == chosen("user") == chosen("02-u") == ["02"]
    with pytest.raises(
        ValueError, match="no report is called `corelations-and-claims`; did you mean `correlations-and"
    ):
        chosen("corelations-and-claims")
    with pytest.raises(ValueError, match="no report is called `9`; there are `01-data-quality`, `02-user"):
        chosen("9")
    notebooks.append(Path("04-user-groups.ipynb"))
    with pytest.raises(ValueError, match="`user` may mean 02-user-behaviour or 04-user-groups"):
        chosen("user")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overrides": {"levle": "0.9"}}, "unknown parameter `levle`; did you mean `level`"),
        ({"overrides": {"level": "2"}}, "01-one: level=2 is not a number between 0 and 1"),
        ({"overrides": {"seed": "x"}}, "01-one: seed=x is not a whole number"),
        ({"data": "nowhere.db"}, "there is no .*nowhere.db"),
        ({"notebooks_dir": Path("nowhere")}, "there is no folder of notebooks at nowhere"),
        ({"notebooks_dir": Path("package")}, "no notebook in package is a report"),
        ({"out": Path("requirements.lock")}, "the reports cannot go to requirements.lock: it is not a folder"),
        ({"out": Path("/proc/reports")}, "cannot make the folder /proc/reports"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_runs(books: Path, no_kernel, options: dict, words: str) -> None:
    no_kernel()
    with pytest.raises((ValueError, OSError), match=words):
        make(**options)


# ---------------------------------------------------------------------------------------------- failures


def test_a_failure_keeps_the_last_good_report_and_the_rest_go_on(books: Path, project: Path) -> None:
    make()
    good = bytes_of(project / "out")
    broken = write_notebook(books / "02-two.ipynb", "1 / 0")
    result = build_reports((), notebooks_dir=books, out=Path("out"))
    assert [report.status for report in result.reports] == ["cached", "failed", "cached"]
    assert result.reports[1].error == "code cell 2 raised ZeroDivisionError: division by zero"
    assert result.exit_code == 1
    now = bytes_of(project / "out")
    assert now["02-two.html"] == good["02-two.html"]
    assert "ZeroDivisionError" in now["02-two.failed.html"].decode()
    assert "02-two.html" in now["02-two.failed.html"].decode()
    listed = json.loads(now["index.html"])
    assert [(entry["failed"], entry["failure_page"]) for entry in listed][1] == (True, "02-two.failed.html")
    assert "division by zero" in listed[1]["error"]

    assert make("01") == {"01-one": "cached"}  # the index still tells of what this call did not make
    assert json.loads((project / "out" / "index.html").read_text()) == listed

    assert make("02") == {"02-two": "failed"}  # failures are not kept
    write_notebook(broken, "print('02-two', level, data)")
    assert make("02") == {"02-two": "cached"}
    assert bytes_of(project / "out") == good


def test_killed_left_and_hanging_notebooks_fail_with_words(books: Path, project: Path) -> None:
    write_notebook(books / "01-one.ipynb", "import sys; sys.exit(0)", "1")
    write_notebook(books / "02-two.ipynb", "import os; os.kill(os.getpid(), 9)")
    write_notebook(books / "03-three.ipynb", "import time; time.sleep(99)")
    result = build_reports((), notebooks_dir=books, out=Path("out"), timeout=5)
    said = [report.error for report in result.reports]
    assert "sys.exit(0)" in said[0]
    assert "killed" in said[1]
    assert "time limit of 5 s" in said[2]
    assert "time limit of 5 s" in (project / "out" / "03-three.failed.html").read_text()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cells": 3}', '{"worksheets": []}'])
def test_a_file_that_is_no_notebook_fails_alone(books: Path, project: Path, content: str) -> None:
    make("01")
    (books / "02-two.ipynb").write_text(content)
    result = build_reports(("01", "02"), notebooks_dir=books, out=Path("out"), overrides={"level": "0.95"})
    assert [report.status for report in result.reports] == ["cached", "failed"]
    assert "02-two.ipynb is not a notebook" in result.reports[1].error


def test_records_that_make_no_page_are_a_failure_of_that_report(books: Path, monkeypatch) -> None:
    page = sys.modules["habitlab.report.page"]
    render = page.render

    def refuse(notebook, *, name, **rest):
        if name == "01-one":
            raise ValueError("`dip` is published twice")
        return render(notebook, name=name, **rest)

    monkeypatch.setattr(page, "render", refuse)
    result = build_reports(("01", "02"), notebooks_dir=books, out=Path("out"))
    assert [report.status for report in result.reports] == ["failed", "ran"]
    assert result.reports[0].error == "no page can be made of it: `dip` is published twice"


def test_a_full_disk_is_one_clear_line_and_the_last_good_report_stays(books: Path, project: Path, monkeypatch) -> None:
    make()
    good = bytes_of(project / "out")
    write_notebook(books / "02-two.ipynb", "print('new')")
    fsync = os.fsync

    def full(handle: int) -> None:
        if "/out/" in str(Path(f"/proc/self/fd/{handle}").readlink()) if sys.platform == "linux" else True:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "fsync", full)
        with pytest.raises(OutputError, match=r"^cannot write out/02-two.html: No space left on device; what was"):
            make()
    assert bytes_of(project / "out") == good
    assert make() == {"01-one": "cached", "02-two": "cached", "03-three": "cached"}  # the run itself was kept


def test_drafts_of_a_killed_build_are_cleared_away(books: Path, project: Path) -> None:
    (project / "out").mkdir()
    (project / "out" / ".01-one.html.4242.tmp").write_text("half")
    make("01")
    assert not list((project / "out").glob(".*.tmp"))


# ---------------------------------------------------------------------------------------------- two at once, Ctrl-C

CALL = """
import sys
from pathlib import Path
from habitlab.report import build
build.PACKAGE = Path("package").absolute()
if __name__ == "__main__":
    result = build.build_reports((), notebooks_dir=Path("notebooks"), out=Path("out"), jobs=2)
    print([report.status for report in result.reports])
    sys.exit(result.exit_code)
"""


def start(project: Path) -> subprocess.Popen:
    """A build in a process of its own, which heeds Ctrl-C even where the tests run in the background."""
    environment = {"HABITLAB_CACHE": str(project / "cache"), "HABITLAB_TEST": str(project)}
    return subprocess.Popen(
        [sys.executable, "-c", CALL],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_second_build_of_the_same_folder_waits_and_then_finds_all_made(books: Path, project: Path) -> None:
    write_notebook(books / "01-one.ipynb", "import time; time.sleep(3)")
    first = start(project)
    assert wait_until(lambda: (project / "out" / ".lock").exists(), 30)
    second = start(project)
    said, complaint = second.communicate(timeout=120)
    assert complaint == "another `habitlab report` is writing to out; waiting for it to finish\n"
    assert said == "['cached', 'cached', 'cached']\n"
    assert first.wait(30) == second.returncode == 0


def interrupted(project: Path, moment) -> tuple[int, list]:
    """Send Ctrl-C at a moment; exit code, and the processes that are left."""
    process = start(project)
    try:
        assert wait_until(moment, 60)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert time.monotonic() - sent < 15
        wait_until(lambda: not list(processes_with("HABITLAB_TEST", str(project))), 5)
        return process.returncode, list(processes_with("HABITLAB_TEST", str(project)))
    finally:
        for left in processes_with("HABITLAB_TEST", str(project)):
            left.kill()


def test_a_report_written_as_ctrl_c_comes_has_run(books: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupting(futures, **_: object) -> None:
        wait(futures)
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "wait", interrupting)
    assert make() == {"01-one": "ran", "02-two": "ran", "03-three": "ran"}
    assert json.loads((project / "out" / "run.json").read_text())["reports"]["02-two"]["status"] == "ran"


def test_ctrl_c_keeps_what_was_finished_and_the_next_build_goes_on(books: Path, project: Path) -> None:
    write_notebook(books / "02-two.ipynb", "import time, pathlib; pathlib.Path('started').touch(); time.sleep(99)")
    pages = [project / "out" / f"{name}.html" for name in ("01-one", "03-three")]
    code, left = interrupted(project, lambda: all(page.exists() for page in pages) and (books / "started").exists())
    assert (code, left) == (130, [])
    assert sorted(path.name for path in (project / "out").glob("*-*")) == [
        "01-one.html", "01-one.json", "03-three.html", "03-three.json",
    ]  # fmt: skip
    run = json.loads((project / "out" / "run.json").read_text())
    assert [run["reports"][name]["status"] for name in run["reports"]] == ["ran", "interrupted", "ran"]

    write_notebook(books / "02-two.ipynb", "print('quick')")
    again = start(project)
    assert again.communicate(timeout=60)[0] == "['cached', 'ran', 'cached']\n"


@pytest.mark.long
@pytest.mark.parametrize("after", [0.2, 0.5, 0.8, 1.1, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whenever_it_is_stopped_nothing_is_half_written_and_no_process_is_left(
    books: Path, project: Path, after: float, number: signal.Signals
) -> None:
    process = start(project)
    time.sleep(after)
    process.send_signal(number)
    process.communicate(timeout=30)
    try:
        assert wait_until(lambda: not list(processes_with("HABITLAB_TEST", str(project))))
    finally:
        for left in processes_with("HABITLAB_TEST", str(project)):
            left.kill()
    for page in (project / "out").glob("*.json"):
        json.loads(page.read_text())
    assert start(project).wait(60) == 0
    assert not list((project / "out").glob(".*.tmp"))


# ---------------------------------------------------------------------------------------------- speed, and run.json

NOTHING_TO_DO = """
import json, sys
from pathlib import Path
from habitlab.report import build
build.PACKAGE = Path("package").absolute()
result = build.build_reports((), notebooks_dir=Path("notebooks"), out=Path("out"), jobs=2)
print(json.dumps([[report.status for report in result.reports], sorted(sys.modules)]))
"""


def test_nothing_to_do_loads_no_library_and_takes_a_moment(books: Path, project: Path) -> None:
    assert start(project).wait(60) == 0
    environment = ENVIRONMENT | {"HABITLAB_CACHE": str(project / "cache")}
    command = [sys.executable, "-c", NOTHING_TO_DO]
    before = os.times()
    said = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True).stdout
    after = os.times()
    statuses, modules = json.loads(said)
    assert statuses == ["cached"] * 3
    heavy = {
        "pandas",
        "numpy",
        "matplotlib",
        "papermill",
        "nbclient",
        "nbconvert",
        "nbformat",
        "jinja2",
        "jupyter_client",
    }
    assert not heavy & set(modules)
    # processor time of the whole process, which other work on the machine does not lengthen much
    assert (after.children_user + after.children_system) - (before.children_user + before.children_system) < 2


def test_run_json_tells_what_a_page_must_not(books: Path, project: Path) -> None:
    make("01")
    run = json.loads((project / "out" / "run.json").read_text())
    assert run["out"] == str(project / "out")
    assert run["exit_code"] == 0
    if sys.platform == "linux":
        assert run["kernels"] == "forked"
        assert run["peak_memory_of_build"] > run["reports"]["01-one"]["peak_memory"] / 10 > 0
        assert run["peak_memory_of_parent"] > 0


def test_the_longest_report_of_the_last_build_starts_first(books: Path, project: Path) -> None:
    (project / "out").mkdir()
    took = {"01-one": {"seconds": 1.0}, "03-three": {"seconds": 5.0}}
    (project / "out" / "run.json").write_text(json.dumps({"reports": took}))
    plans = build._plan((), books, None, {})
    assert [plan.name for plan in build._longest_first(plans, project / "out")] == ["02-two", "03-three", "01-one"]


def test_builds_in_a_thread_work_too(books: Path) -> None:
    done: list[dict] = []
    thread = threading.Thread(target=lambda: done.append(make("01")))
    thread.start()
    thread.join(60)
    assert done == [{"01-one": "ran"}]
