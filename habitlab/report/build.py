"""Build reports: read the notebooks, find what is already made, run the rest side by side, and publish.

A call that finds everything made imports no data library and starts no process: what is heavy is imported below, in
the functions that run something.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from habitlab.report import cache
from habitlab.report.parameters import SAMPLE, Schema, did_you_mean, locate, read_schema, resolve

if TYPE_CHECKING:
    from habitlab.report.kernels import Kernels

PACKAGE = Path(__file__).resolve().parents[1]
TIMEOUT = 600.0  # seconds for one notebook
_FACTS = ("seconds", "peak_memory", "runtimes")  # what is kept of a run for run.json
_REPORT = re.compile(r"\d\d-[a-z0-9-]+\.ipynb")


@dataclass(frozen=True)
class Report:
    """How one report came about: `status` is "ran", "cached" or "failed" ("interrupted" after Ctrl-C)."""

    name: str
    status: str
    seconds: float = 0.0
    error: str = ""
    page: Path | None = None
    peak_memory: int | None = None
    runtimes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildResult:
    """What a build did; `exit_code` is 0, 1 when a report failed, 130 after Ctrl-C."""

    reports: tuple[Report, ...]
    out: Path
    seconds: float
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code of the command line."""
        if self.interrupted:
            return 130
        return int(any(report.status == "failed" for report in self.reports))


class OutputError(OSError):
    """The folder of reports cannot be written to."""


def build_reports(
    names: Sequence[str] = (),
    *,
    notebooks_dir: Path,
    out: Path,
    data: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    force: bool = False,
    timeout: float = TIMEOUT,
    preload: Sequence[str] = (),
    fork: bool = True,
    progress: bool | None = None,
    lock_file: Path | None = None,
) -> BuildResult:
    """Make the reports of `names` (all when empty) from the notebooks in `notebooks_dir`, into the folder `out`.

    `data` is the parameter `data` of every notebook that has one; a relative path counts from the working directory.
    `overrides` are further parameters, as texts from the command line or as values. `jobs` notebooks run side by side
    (default: one a core), each for `timeout` seconds at most. `preload` names modules that kernels find loaded.
    `progress`: a bar on standard error; by default when that is a terminal. `force` runs what is already made.

    Raises ValueError or FileNotFoundError when the call is wrong, OutputError when `out` cannot be written to.
    """
    started = time.time()
    progress = sys.stderr.isatty() if progress is None else progress
    plans = _plan(names, notebooks_dir, data, dict(overrides or {}))
    with _locked(out):
        cache.remove_drafts(out)
        code = _key(plans, notebooks_dir, lock_file or notebooks_dir.parent / "requirements.lock")
        done = {} if force else {plan.name: report for plan in plans if (report := _from_cache(plan, out))}
        todo = _longest_first([plan for plan in plans if plan.name not in done], out)
        interrupted = False
        facts: dict[str, Any] = {}
        if todo:
            with _progress_bar(todo, progress) as (on_cell, on_report):
                work = _Work(out, notebooks_dir, timeout, on_cell)
                ran, interrupted, facts = _run_all(todo, work, jobs or cores(), preload, fork, on_report)
            done |= ran
        reports = tuple(done.get(plan.name, Report(plan.name, "interrupted")) for plan in plans)
        result = BuildResult(reports, out, time.time() - started, interrupted)
        _write_index(out, notebooks_dir, result, code)
        _write_run(out, result, started, data, facts)
    return result


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------- what to build


@dataclass
class Plan:
    """One report to make. `values` as the kernel gets them, `shown` as a page may show them, without this machine's
    places; `injected` names those that differ from the notebook's defaults.
    """

    name: str
    notebook: dict[str, Any]
    schema: Schema
    values: dict[str, Any]
    shown: dict[str, Any]
    injected: list[str]
    error: str = ""
    counted: dict[str, Any] = field(default_factory=dict)
    run_key: str = ""
    page_key: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)

    def command(self) -> str:
        """The call that makes the report again."""
        words = ["habitlab", "report", self.name]
        for name in self.injected:
            value = self.shown[name]
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            words += ["--data", text] if name == "data" else ["--set", f"{name}={text}"]
        return shlex.join(words)


def report_notebooks(notebooks_dir: Path) -> list[Path]:
    """The notebooks that are reports, in reading order: `NN-name.ipynb`."""
    if not notebooks_dir.is_dir():
        raise FileNotFoundError(f"there is no folder of notebooks at {notebooks_dir}")
    found = sorted(path for path in notebooks_dir.iterdir() if _REPORT.fullmatch(path.name))
    if not found:
        raise FileNotFoundError(f"no notebook in {notebooks_dir} is a report; one is called like 01-data-quality.ipynb")
    return found


def select(names: Iterable[str], notebooks: Sequence[Path]) -> list[Path]:
    """The notebooks that `names` mean: a number (`03`), a name, or the beginning of one; all for no names.

    Raises ValueError for a name that means none of them, or several.
    """
    by_stem = {path.stem: path for path in notebooks}
    chosen: set[str] = set()
    for given in names:
        name = given.removesuffix(".ipynb").lower()
        if re.fullmatch(r"\d", name):
            name = f"0{name}"
        exact = [stem for stem in by_stem if name in (stem, stem[:2], stem[3:])]
        found = exact or [stem for stem in by_stem if name and (stem.startswith(name) or stem[3:].startswith(name))]
        if not found:
            words = [word for stem in by_stem for word in (stem, stem[3:])]
            hint = did_you_mean(name, words)
            raise ValueError(
                f"no report is called `{given}`{hint if 'did you' in hint else did_you_mean('', list(by_stem))}"
            )
        if len(found) > 1:
            raise ValueError(f"`{given}` may mean {' or '.join(found)}")
        chosen.add(found[0])
    return [path for stem, path in by_stem.items() if stem in chosen or not chosen]


def _plan(names: Sequence[str], notebooks_dir: Path, data: str | Path | None, overrides: dict[str, Any]) -> list[Plan]:
    """Read the chosen notebooks and settle their parameters. A notebook that cannot be read gets an `error`."""
    plans = []
    for path in select(names, report_notebooks(notebooks_dir)):
        plan = Plan(path.stem, {"cells": []}, {}, {}, {}, [])
        try:
            plan.notebook = _read_notebook(path)
            plan.schema = read_schema(plan.notebook, path.stem)
        except (OSError, ValueError) as error:
            plan.error = str(error)
        plans.append(plan)
    schemas = {plan.name: plan.schema for plan in plans}
    if data is not None and any("data" in schema for schema in schemas.values()):
        overrides = {"data": str(data)} | overrides
    if not any(schemas.values()) and any(plan.error for plan in plans):
        overrides = {}  # what the names should have been, nobody can tell: the reports say why
    for name, values in resolve(schemas, overrides).items():
        plan = next(plan for plan in plans if plan.name == name)
        plan.values, plan.shown = values, dict(values)
        for parameter in plan.schema.values():
            value = values[parameter.name]
            if parameter.name in overrides and parameter.is_path and value not in (None, SAMPLE):
                plan.values[parameter.name], plan.shown[parameter.name] = _given_path(value)
            if values[parameter.name] != parameter.default:
                plan.injected.append(parameter.name)
    return plans


def _given_path(value: str) -> tuple[str, str]:
    """A path that the user gave: absolute for the kernel, and as a page may show it."""
    place = locate(value, Path.cwd())
    assert place is not None
    if not place.exists():
        raise FileNotFoundError(f"there is no {place}; a path is wanted, or the word `{SAMPLE}`")
    if not os.access(place, os.R_OK):
        raise PermissionError(f"{place} may not be read")
    written = Path(value)
    # A page is the same on every machine, so that it may not name a folder of this one.
    return str(place), place.name if written.is_absolute() or value.startswith("~") else written.as_posix()


def _read_notebook(path: Path) -> dict[str, Any]:
    try:
        notebook = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is not a notebook: {error}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError(f"{path.name} is not a notebook of format 4: it has no list of cells")
    return notebook


def _key(plans: Sequence[Plan], notebooks_dir: Path, lock_file: Path) -> str:
    """Give each plan its keys and its provenance; the hash of the package's source."""
    hashes = cache.Hashes.load()
    code, template = cache.folder_digest(PACKAGE), cache.folder_digest(PACKAGE / "report" / "template")
    lock = hashes.of(lock_file)
    for plan in plans:
        if plan.error:
            continue
        plan.counted = cache.counted(plan.values, plan.schema, notebooks_dir, hashes)
        plan.run_key = cache.run_key(plan.notebook, counted=plan.counted, injected=plan.injected, code=code, lock=lock)
        data = plan.values.get("data", SAMPLE)
        content = hashes.of(locate(data, notebooks_dir)) if data != SAMPLE else SAMPLE  # type: ignore[arg-type]
        plan.provenance = {
            "data": content if isinstance(content, str) else cache.digest(content),
            "code": code,
            "template": template,
            "notebook": cache.notebook_digest(plan.notebook),
            "lock": lock,
            **({"seed": plan.values["seed"]} if "seed" in plan.values else {}),
            "command": plan.command(),
        }
        plan.page_key = cache.digest([plan.run_key, plan.name, plan.shown])
    hashes.save()
    return code


def _longest_first(plans: list[Plan], out: Path) -> list[Plan]:
    """In the order that ends soonest: what took longest last time first, and what is new before it."""
    took = {name: report.get("seconds", 0) for name, report in _last_run(out).items()}
    return sorted(plans, key=lambda plan: -(took.get(plan.name) or float("inf")))


# ---------------------------------------------------------------------------------------------- running


@dataclass(frozen=True)
class _Work:
    """What every notebook of a build has in common."""

    out: Path
    notebooks_dir: Path
    timeout: float
    on_cell: Callable[[str], None]
    stopping: threading.Event = field(default_factory=threading.Event)


def _run_all(
    plans: Sequence[Plan],
    work: _Work,
    jobs: int,
    preload: Sequence[str],
    fork: bool,
    on_report: Callable[[Report], None],
) -> tuple[dict[str, Report], bool, dict[str, Any]]:
    """Run plans side by side: what was finished, whether Ctrl-C came, and facts for run.json. Leaves no process."""
    done: dict[str, Report] = {}
    futures: set[Future[Report]] = set()
    kernels = None
    interrupted = False
    try:
        from habitlab.report.kernels import Kernels

        with closing(Kernels(preload, fork=fork)) as kernels, ThreadPoolExecutor(max_workers=jobs) as pool:
            try:
                from habitlab.report import execute, page  # noqa: F401  (while the kernels' parent preloads)

                futures = left = {pool.submit(_make, plan, work, kernels) for plan in plans}
                while left:
                    finished, left = wait(left, return_when=FIRST_COMPLETED)
                    for future in finished:
                        report = future.result()
                        done[report.name] = report
                        on_report(report)
            finally:
                work.stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                kernels.close()  # the threads see their kernels die, and end
    except KeyboardInterrupt:
        interrupted = True
        # What was being written when Ctrl-C came stands there now.
        ended = (future for future in futures if future.done() and not future.cancelled() and not future.exception())
        done |= {future.result().name: future.result() for future in ended}
    facts: dict[str, Any] = {}
    if kernels:
        facts["kernels"] = f"ordinary ({kernels.why_ordinary})" if kernels.why_ordinary else "forked"
        facts["peak_memory_of_parent"] = kernels.peak_memory_of_parent
    return done, interrupted, facts


def _make(plan: Plan, work: _Work, kernels: "Kernels") -> Report:
    """Run one notebook and publish its report, or its failure."""
    from habitlab.report.execute import run_notebook
    from habitlab.report.findings import runtimes_of
    from habitlab.report.normalise import normalise

    if plan.error:
        return _publish_failure(plan, work.out, None, plan.error)
    run = run_notebook(
        plan.notebook,
        {name: plan.values[name] for name in plan.injected},
        kernels=kernels,
        folder=work.notebooks_dir,
        timeout=work.timeout,
        on_cell=lambda: work.on_cell(plan.name),
    )
    if work.stopping.is_set():
        return Report(plan.name, "interrupted", run.seconds)
    places = {
        plan.values[name]: _token(name)
        for name in plan.injected
        if plan.schema[name].is_path and isinstance(plan.values[name], str)
    }
    notebook = normalise(run.notebook, places)
    facts = {
        "seconds": round(run.seconds, 3),
        "peak_memory": run.peak_memory,
        "runtimes": runtimes_of(run.notebook),
    }
    failure = run.failure or _changed_meanwhile(plan, work.notebooks_dir)
    if failure:
        return _publish_failure(plan, work.out, notebook, failure, **facts)
    cache.store(plan.run_key, {"notebook": notebook, **facts})
    return _publish(plan, work.out, notebook, "ran", facts)


def _changed_meanwhile(plan: Plan, notebooks_dir: Path) -> str:
    """Why a run cannot stand for its key: a file was changed after its content was taken down; empty if none was."""
    now = cache.counted(plan.values, plan.schema, notebooks_dir, cache.Hashes.load())
    changed = [name for name, content in plan.counted.items() if content != now[name]]
    return f"what lies at `{changed[0]}` was changed while this ran: make the report again" if changed else ""


def _token(name: str) -> str:
    """What stands for the path of a parameter in a kept run, which may be shown under another path later."""
    return f"habitlab-path-of-{name}-"


# ---------------------------------------------------------------------------------------------- publishing


def _from_cache(plan: Plan, out: Path) -> Report | None:
    """Publish what was made before, without running anything; None where it was not."""
    if plan.error:
        return None
    entry = cache.fetch(plan.page_key)
    try:
        if entry is not None:
            _write(plan, out, entry["html"], entry["json"])
            return Report(plan.name, "cached", page=_page(out, plan), **{name: entry[name] for name in _FACTS})
        run = cache.fetch(plan.run_key)
        if run is not None:  # the same content under another path: only the page is new
            return _publish(plan, out, run["notebook"], "cached", {name: run[name] for name in _FACTS})
    except (KeyError, TypeError):
        pass  # kept by another version of this module
    return None


def _publish(plan: Plan, out: Path, notebook: Mapping[str, Any], status: str, facts: Mapping[str, Any]) -> Report:
    """Render a good run, keep the page, and write it."""
    from habitlab.report import page

    text = json.dumps(notebook, ensure_ascii=False)
    for name in plan.injected:
        if plan.schema[name].is_path:
            text = text.replace(_token(name), json.dumps(plan.shown[name], ensure_ascii=False)[1:-1])
    notebook = json.loads(text)
    try:
        html, record = page.render(notebook, name=plan.name, parameters=plan.shown, provenance=plan.provenance)
    except Exception as error:  # records that contradict each other, or a mistake of ours: the other reports go on
        reason = str(error) if isinstance(error, ValueError) else traceback.format_exc().strip()
        return _publish_failure(plan, out, notebook, f"no page can be made of it: {reason}", **facts)
    entry = {"html": html, "json": page.json_text(record), **facts}
    cache.store(plan.page_key, entry)
    _write(plan, out, entry["html"], entry["json"])
    return Report(plan.name, status, page=_page(out, plan), **facts)


def _publish_failure(plan: Plan, out: Path, notebook: Mapping[str, Any] | None, error: str, **facts: Any) -> Report:
    """Write the page of a failure beside the last good report, which stays."""
    from habitlab.report import page

    last_good = _page(out, plan)
    shows_itself = notebook is not None and any(
        output["output_type"] == "error" for cell in notebook["cells"] for output in cell.get("outputs", ())
    )
    html = page.render_failure(
        notebook,
        name=plan.name,
        error="" if shows_itself else error,
        last_good=last_good.name if last_good.exists() else "",
        parameters=plan.shown,
        provenance=plan.provenance,
    )
    failure_page = out / f"{plan.name}.failed.html"
    _write_file(failure_page, html)
    summary = error.splitlines()[-1 if "Traceback" in error else 0]
    return Report(plan.name, "failed", error=summary, page=failure_page, **facts)


def _page(out: Path, plan: Plan) -> Path:
    return out / f"{plan.name}.html"


def _write(plan: Plan, out: Path, html: str, record: str) -> None:
    """Write a good report where it is not there already, and take away the page of an earlier failure."""
    _write_file(_page(out, plan), html)  # the larger of the two first: on a full disk both stay as they were
    _write_file(out / f"{plan.name}.json", record)
    with _output(out):
        (out / f"{plan.name}.failed.html").unlink(missing_ok=True)


def _write_file(path: Path, text: str) -> None:
    content = text.encode()
    with _output(path):
        if not (path.is_file() and path.read_bytes() == content):
            cache.write_atomically(path, content)


@contextmanager
def _output(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; what was there before is kept") from error


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder of reports for this build; a second one waits, and says so."""
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"the reports cannot go to {out}: it is not a folder") from None
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror or error}") from None
    lock = FileLock(out / ".lock")
    with _output(out):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            sys.stderr.write(f"another `habitlab report` is writing to {out}; waiting for it to finish\n")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write_index(out: Path, notebooks_dir: Path, result: BuildResult, code: str) -> None:
    """List every report that is in the folder, whichever call made it."""
    last, now = _last_run(out), {report.name: report for report in result.reports}
    entries: list[dict[str, Any]] = []
    for name in (path.stem for path in report_notebooks(notebooks_dir)):
        failure_page = f"{name}.failed.html"
        failed = (out / failure_page).exists()
        error = now[name].error if name in now else last.get(name, {}).get("error", "")
        entries.append(
            {
                "name": name,
                "report": _read_json(out / f"{name}.json"),
                "failed": failed,
                "error": error if failed else "",
                "failure_page": failure_page if failed else "",
            }
        )
    key = cache.digest(["index", code, entries])
    entry = cache.fetch(key)
    if entry is None or "html" not in entry:
        from habitlab.report import page

        entry = {"html": page.render_index([page.Entry(**one) for one in entries])}
        cache.store(key, entry)
    _write_file(out / "index.html", entry["html"])


def _write_run(
    out: Path, result: BuildResult, started: float, data: str | Path | None, facts: Mapping[str, Any]
) -> None:
    """Write what must not be in a page: when, where, how long, how much memory, which commit."""
    reports = _last_run(out) | {
        report.name: {
            "status": report.status,
            "seconds": report.seconds,
            "peak_memory": report.peak_memory,
            "runtimes": dict(report.runtimes),
            "error": report.error,
        }
        for report in result.reports
    }
    run = {
        "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        "seconds": round(result.seconds, 3),
        "exit_code": result.exit_code,
        "commit": _commit(),
        "python": sys.version.split()[0],
        "out": str(out.absolute()),
        "data": SAMPLE if data in (None, SAMPLE) else str(Path(str(data)).expanduser().absolute()),
        "peak_memory_of_build": _own_peak_memory(),
        **facts,
        "reports": dict(sorted(reports.items())),
    }
    _write_file(out / "run.json", json.dumps(run, indent=2) + "\n")


def _last_run(out: Path) -> dict[str, Any]:
    """The reports of run.json, by name; empty where there is none."""
    run = _read_json(out / "run.json")
    reports = run.get("reports") if isinstance(run, dict) else None
    return reports if isinstance(reports, dict) else {}


def _read_json(path: Path) -> Any:
    with suppress(OSError, ValueError):
        return json.loads(path.read_bytes())
    return None


def _commit() -> str | None:
    """The commit of the source, with `-dirty` where it has been changed; None outside a repository."""
    call = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return None


def _own_peak_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _progress_bar(
    plans: Sequence[Plan], show: bool
) -> Iterator[tuple[Callable[[str], None], Callable[[Report], None]]]:
    """Two functions to call, after each cell and after each report; they draw a bar on standard error."""
    if not show:
        yield (lambda name: None), (lambda report: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    cells = {
        plan.name: 1
        + sum(
            cell.get("cell_type") == "code" and bool("".join(cell["source"]).strip()) for cell in plan.notebook["cells"]
        )
        for plan in plans
    }
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks = {name: bar.add_task(name, total=total, start=False) for name, total in cells.items()}

        def on_cell(name: str) -> None:
            bar.start_task(tasks[name])
            bar.advance(tasks[name])

        def on_report(report: Report) -> None:
            bar.remove_task(tasks[report.name])
            words = f"failed: {report.error}" if report.status == "failed" else f"{report.seconds:.1f} s"
            bar.console.print(f"{report.name}  {words}", markup=False, highlight=False)

        yield on_cell, on_report
