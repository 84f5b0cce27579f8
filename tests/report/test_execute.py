"""One notebook in a process of its own: what counts as a good run, and that nothing outlives it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from habitlab.report.execute import run_notebook
from habitlab.report.kernels import Kernels
from habitlab.report.normalise import normalise
from tests.report.engine import ENVIRONMENT, processes_with, wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


def notebook(*sources: str) -> dict:
    empty = {"cell_type": "code", "execution_count": None, "outputs": []}
    cells = [
        empty | {"id": f"c{n}", "metadata": {}, "source": source} for n, source in enumerate(("a: int = 1", *sources))
    ]
    cells[0]["metadata"] = {"tags": ["parameters"]}
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HABITLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def kernels(cache):
    kernels = Kernels(["json"])
    yield kernels
    kernels.close()


def run(kernels: Kernels, *sources: str, timeout: float = 60, **overrides: object):
    return run_notebook(notebook(*sources), overrides, kernels=kernels, folder=Path.cwd(), timeout=timeout)


def test_papermill_puts_parameters_in_and_every_cell_runs(kernels: Kernels, tmp_path: Path) -> None:
    seen: list[int] = []
    done = run_notebook(
        notebook("import os; print(a, os.getcwd())", "", "a + 1"), {"a": 7}, kernels=kernels, folder=tmp_path,
        timeout=60, on_cell=lambda: seen.append(1),
    )  # fmt: skip
    assert done.failure == ""
    assert "injected-parameters" in done.notebook.cells[1].metadata.tags
    assert done.notebook.cells[2].outputs[0].text == f"7 {tmp_path}\n"
    assert done.notebook.cells[4].outputs[0].data["text/plain"] == "8"
    assert len(seen) == 4
    assert done.peak_memory is None or done.peak_memory > 2**20


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "code cell 2 raised ZeroDivisionError: division by zero; 1 cell after it not run"),
        ("import sys; sys.exit(0)", "code cell 2 called sys.exit(0); 1 cell after it not run"),
        ("import os; os._exit(0)", "the kernel was left by exit() or os._exit(0) in code cell 2"),
        ("import os; os.kill(os.getpid(), 9)", "the kernel was killed (signal 9, often"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the kernel died of signal 11 (SIGSEGV)"),
        ("input('?')", "code cell 2 raised StdinNotImplementedError"),
        ("exec('x = = 1')", "code cell 2 raised SyntaxError"),
    ],
)
def test_a_run_that_is_not_good_says_why(kernels: Kernels, source: str, words: str) -> None:
    done = run(kernels, source, "2", a=5)
    assert words in done.failure
    assert done.notebook.cells[3].get("execution_count") is None


@pytest.mark.parametrize("source", ["import time; time.sleep(99)", "while True: pass"])
def test_a_notebook_that_hangs_is_stopped_at_its_limit(kernels: Kernels, source: str) -> None:
    started = time.monotonic()
    done = run(kernels, "print('before')", source, timeout=6)  # a busy machine needs some to start
    assert done.failure == "stopped in code cell 3 at the time limit of 6 s"
    assert time.monotonic() - started < 40
    assert done.notebook.cells[1].outputs[0].text == "before\n"


def test_the_limit_is_for_the_whole_notebook(kernels: Kernels) -> None:
    done = run(kernels, *["import time; time.sleep(2)"] * 4, timeout=6)
    assert "at the time limit of 6 s" in done.failure


@linux
def test_the_libraries_of_the_reports_can_be_preloaded_without_starting_a_thread() -> None:
    """Else every kernel would be an ordinary one, and slow; a new version of a library may bring this about."""
    kernels = Kernels(["pandas", "matplotlib.pyplot", "seaborn", "scipy.stats", "pyarrow.parquet", "sklearn.base"])
    try:
        done = run(kernels, "import sys; print('seaborn' in sys.modules, 'pyarrow' in sys.modules)")
        assert kernels.why_ordinary == ""
        assert done.notebook.cells[1].outputs[0].text == "True True\n"
    finally:
        kernels.close()


def test_an_ordinary_kernel_under_other_settings_says_the_same_as_a_forked_one(kernels: Kernels, monkeypatch) -> None:
    sources = (
        "import os, sys, random\nprint(hash('a'), os.environ['TZ'], sys.argv[1:] and 'arguments', __name__)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()",
        "import pandas as pd\npd.DataFrame({'x': [1.5]}).style",
        "import warnings; warnings.warn('careful'); print(object(), file=sys.stderr)",
        "get_ipython()",
    )
    forked = run(kernels, *sources, a=2)
    for name, value in {
        "PYTHONHASHSEED": "5",
        "TZ": "Asia/Tokyo",
        "MPLBACKEND": "agg",
        "PYTHONWARNINGS": "ignore",
    }.items():
        monkeypatch.setenv(name, value)
    ordinary_kernels = Kernels(fork=False)
    ordinary = run(ordinary_kernels, *sources, a=2)
    ordinary_kernels.close()
    assert forked.failure == ordinary.failure == ""
    assert any("image/png" in output.get("data", {}) for output in forked.notebook.cells[3].outputs)
    assert normalise(forked.notebook) == normalise(ordinary.notebook)


@linux
def test_a_module_that_cannot_be_preloaded_is_left_to_the_notebook() -> None:
    kernels = Kernels(["there_is_no_such_module"])
    assert "ModuleNotFoundError" in run(kernels, "import there_is_no_such_module").failure
    assert kernels.why_ordinary == ""
    kernels.close()


@linux
def test_a_library_that_starts_threads_means_ordinary_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    (tmp_path / "starts_a_thread.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kernels = Kernels(["starts_a_thread"])
    done = run(kernels, "print('fine')")
    assert (done.failure, kernels.why_ordinary) == ("", "2 threads run after importing the libraries")
    kernels.close()


# ---------------------------------------------------------------------------------------------- nothing left behind


def children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Mark all that is started from here on; a function that lists it."""
    monkeypatch.setenv("HABITLAB_TEST", str(tmp_path))
    return lambda: [process for process in processes_with("HABITLAB_TEST", str(tmp_path)) if process.pid != os.getpid()]


@pytest.mark.parametrize("fork", [pytest.param(True, marks=linux), False])
def test_closing_ends_kernels_and_what_they_started(fork: bool, monkeypatch, tmp_path: Path) -> None:
    alive = children(monkeypatch, tmp_path)
    kernels = Kernels(fork=fork)
    done = run(kernels, "import subprocess; subprocess.Popen(['sleep', '300']).pid")
    assert done.failure == ""
    kernels.close()
    assert wait_until(lambda: not alive()), alive()
    assert not kernels.folder.exists()
    kernels.close()  # twice is fine


@pytest.mark.parametrize("fork", [pytest.param(True, marks=linux), False])
def test_closing_in_the_middle_of_a_run_ends_it(fork: bool, monkeypatch, tmp_path: Path) -> None:
    alive = children(monkeypatch, tmp_path)
    kernels = Kernels(fork=fork)
    source = "import subprocess, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"
    runs: list = []
    thread = threading.Thread(target=lambda: runs.append(run(kernels, source)))
    thread.start()
    assert wait_until(lambda: any(process.name() == "sleep" for process in alive()), 60)
    kernels.close()
    assert wait_until(lambda: not alive()), alive()
    thread.join(20)
    assert "the kernel" in runs[0].failure


# A library call that never lets go of the interpreter's lock: no thread of the kernel could notice anything.
KILL_SERVER_AND_HANG = "import ctypes, os; os.kill(os.getppid(), 9); ctypes.PyDLL(None).sleep(100)"


@linux
def test_a_killed_server_takes_its_kernels_along_and_the_next_one_is_ordinary(monkeypatch, tmp_path: Path) -> None:
    alive = children(monkeypatch, tmp_path)
    kernels = Kernels()
    done = run(kernels, KILL_SERVER_AND_HANG)
    assert "the kernel" in done.failure
    assert wait_until(lambda: not alive()), alive()
    assert run(kernels, "1").failure == ""
    assert kernels.why_ordinary == "the process that preloads the libraries has ended"
    kernels.close()


PARENT = """
import sys
from pathlib import Path
from tests.report.test_execute import Kernels, run
kernels = Kernels(["json"], fork=sys.argv[1] == "fork")
run(kernels, "import subprocess; subprocess.Popen(['sleep', '300'])", "import time; time.sleep(300)")
"""


@pytest.mark.parametrize("fork", [pytest.param("fork", marks=linux), pytest.param("ordinary", marks=pytest.mark.long)])
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_killed_parent_leaves_no_kernel(fork: str, number: signal.Signals, tmp_path: Path) -> None:
    environment = ENVIRONMENT | {
        "HABITLAB_TEST": str(tmp_path),
        "HABITLAB_CACHE": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    parent = subprocess.Popen([sys.executable, "-c", PARENT, fork], env=environment, cwd=Path(__file__).parents[2])

    def alive() -> list[psutil.Process]:
        # what an ordinary kernel had started itself, only the fork server can end
        found = processes_with("HABITLAB_TEST", str(tmp_path))
        return [process for process in found if fork == "fork" or process.name() != "sleep"]

    try:
        assert wait_until(lambda: any(p.name() == "sleep" for p in processes_with("HABITLAB_TEST", str(tmp_path))), 60)
        assert len(alive()) >= 2
        parent.send_signal(number)
        parent.wait(10)
        assert wait_until(lambda: not alive()), alive()
        if fork == "fork":
            assert wait_until(lambda: not list(tmp_path.glob("habitlab-*")))
    finally:
        for process in processes_with("HABITLAB_TEST", str(tmp_path)):
            process.kill()
