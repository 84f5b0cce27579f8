"""Run one notebook with papermill, in a kernel of our own choice, and judge the run by what the notebook holds.

No status of papermill's is trusted: it calls a notebook complete that left by `sys.exit(0)` or whose kernel was
killed. A run is good when every code cell has been executed and none holds an error.
"""

import logging
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, papermill_engines

from habitlab.report.kernels import Kernels
from habitlab.report.normalise import METADATA

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_OUTPUT_SECONDS = 60  # nbclient waits 4 s for the rest of a cell's output, too little for large ones on a busy machine
_silent = logging.getLogger("habitlab.report.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it would say, we say in the report


@dataclass(frozen=True)
class Run:
    """One run: the notebook as far as it came, seconds, peak memory in bytes, and what went wrong, if anything did."""

    notebook: nbformat.NotebookNode
    seconds: float
    peak_memory: int | None
    failure: str = ""


def run_notebook(
    notebook: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    kernels: Kernels,
    folder: Path,
    timeout: float,
    on_cell: Callable[[], None] = lambda: None,
) -> Run:
    """Run a notebook (nbformat 4 JSON) in `folder` with the parameters in `overrides`; never raises for its failure.

    `timeout` limits the whole run, in seconds; `on_cell` is called after each executed cell.
    """
    started = time.monotonic()
    work = nbformat.from_dict(dict(notebook))
    work.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(work.cells, start=1):
        cell.id = f"cell-{number:03d}"  # copied cells may share one, of which nbformat complains
    kept = _Kept(work)
    failure = ""
    try:
        papermill.execute_notebook(
            work,
            None,
            parameters=dict(overrides),
            engine_name="habitlab",
            progress_bar=False,
            kept=kept,
            kernels=kernels,
            folder=folder,
            deadline=started + timeout,
            on_cell=on_cell,
        )
    except _FailedError as error:
        failure = str(error)
    except CellTimeoutError:
        failure = f"stopped in code cell {kept.cell} at the time limit of {timeout:g} s"
    except DeadKernelError:
        failure = f"the kernel {_how_it_ended(kept.exit_code)} in code cell {kept.cell}"
    except RuntimeError as error:  # the kernel died, or did not answer, before the first cell
        failure = f"the kernel did not start ({error})"
    return Run(kept.notebook, time.monotonic() - started, kept.peak_memory, failure)


def judge(notebook: Mapping[str, Any]) -> str:
    """What is wrong with an executed notebook, in a line; empty when nothing is."""
    cells = [cell for cell in notebook["cells"] if _runs(cell)]
    unrun = sum(cell.get("execution_count") is None for cell in cells)
    left = f"; {unrun} cell{'s' if unrun > 1 else ''} after it not run" if unrun else ""
    for number, cell in enumerate(cells, start=1 - any(_injected(cell) for cell in cells)):
        for output in cell.get("outputs", ()):
            if output["output_type"] == "error":
                said = _ANSI.sub("", output["evalue"]).strip().partition("\n")[0]
                if output["ename"] == "SystemExit":
                    return f"code cell {number} called sys.exit({said}){left}"
                return f"code cell {number} raised {output['ename']}: {said}{left}"
    return f"{unrun} of {len(cells)} code cells did not run" if unrun else ""


def _runs(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool("".join(cell["source"]).strip())


def _injected(cell: Mapping[str, Any]) -> bool:
    """Whether papermill put the cell in; it is not counted, so that numbers are those that the author sees."""
    return "injected-parameters" in cell.get("metadata", {}).get("tags", ())


class _FailedError(Exception):
    """The notebook ran and is not good."""


@dataclass
class _Kept:
    """What remains of a run, however it ends."""

    notebook: nbformat.NotebookNode
    cell: int = 0  # the last one sent to the kernel, counted among the author's code cells
    peak_memory: int | None = None
    exit_code: int | None = None


class _Engine(Engine):
    """Papermill's engine interface over kernels of ours."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
        """Run the notebook of `nb_man`; raises where the run is not good."""
        kept: _Kept = options["kept"]
        kept.notebook = nb_man.nb
        deadline: float = options["deadline"]
        manager = options["kernels"].manager()
        provisioner = manager.provisioner

        def sent(cell: Any, **_: Any) -> None:
            kept.cell += not _injected(cell)

        def executed(**_: Any) -> None:
            provisioner.note_memory()
            options["on_cell"]()

        client = PapermillNotebookClient(
            nb_man,
            km=manager,
            log=_silent,
            iopub_timeout=_OUTPUT_SECONDS,
            startup_timeout=max(1, min(60, int(deadline - time.monotonic()))),
            timeout_func=lambda cell: max(0.1, deadline - time.monotonic()),
            shutdown_kernel="immediate",
            on_cell_execute=sent,
            on_cell_executed=executed,
        )
        try:
            client.execute(cleanup_kc=True, cwd=str(options["folder"]))
        finally:
            kept.peak_memory, kept.exit_code = provisioner.peak_memory, provisioner.exit_code
        if failure := judge(nb_man.nb):
            raise _FailedError(failure)


papermill_engines.register("habitlab", _Engine)


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "was killed (signal 9, often the system's answer when memory runs out)"
    if exit_code is not None and exit_code < 0:
        return f"died of signal {-exit_code} ({signal.Signals(-exit_code).name})"
    if exit_code == 0:
        return "was left by exit() or os._exit(0)"
    return f"ended with exit code {exit_code}" if exit_code is not None else "died"
