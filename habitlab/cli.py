"""The command line: one thin command for each thing HabitLab does.

Every command imports what it needs when it is called, so that a call with nothing to do answers at once.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from habitlab.dataset import Dataset
    from habitlab.dataset.registration import Registration
    from habitlab.recommender.recommendations import Recommendations

BUILT_IN = Path("data/habittrack.db")
PRELOAD = (
    "habitlab.evaluation.claims",
    "habitlab.evaluation.explained",
    "habitlab.evaluation.model_tables",
    "habitlab.dataset.quality",
    "habitlab.report.figures",
    "seaborn",
    "sklearn.ensemble",
)
"""What kernels find loaded: importing it anew would take longer than most notebooks run."""

DONE, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A research workbench for habit data, with reproducible reports.",
    epilog="Any command takes --debug, which shows the traceback of an error.",
)

DataOption = Annotated[Path, typer.Option("--data", help="Dataset: a SQLite file or a Parquet folder.")]
NewDataset = Annotated[Path, typer.Option("--out", help="Where the dataset goes: a .db file or a folder (Parquet).")]


def main() -> None:
    """Run the command line; errors are one or two lines for people, the traceback only with `--debug`."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = app(arguments, standalone_mode=False)
    except (typer.Exit, SystemExit) as exit_:
        code = getattr(exit_, "exit_code", getattr(exit_, "code", DONE))
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted; what was finished is kept", file=sys.stderr)  # noqa: T201
        code = INTERRUPTED
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    sys.exit(code or DONE)


def _explain(error: Exception) -> int:
    show = getattr(error, "show", None)  # an error of the call itself, from typer
    if show is not None:
        show()
        return int(getattr(error, "exit_code", WRONG_CALL))
    print(f"habitlab: {error}", file=sys.stderr)  # noqa: T201
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ValueError)):
        return WRONG_CALL
    if not isinstance(error, (OSError, sqlite3.Error)):
        print("this is a mistake in HabitLab; --debug shows where", file=sys.stderr)  # noqa: T201
    return FAILED


@app.command()
def simulate(
    out: NewDataset,
    users: Annotated[int, typer.Option(help="How many people.")] = 2000,
    days: Annotated[int, typer.Option(help="How many days they are watched.")] = 180,
    seed: Annotated[int, typer.Option(help="Another seed, another population.")] = 0,
    retention: Annotated[str, typer.Option(help="trial: people in a study; wild: people of an app.")] = "trial",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="EFFECT=VALUE", help="Strength of an effect; 0 is off.")
    ] = None,
) -> None:
    """Make a population whose true behaviour is known; the truth is kept beside it."""
    from habitlab.simulation import parse_effects, refuse_real_data, save, simulate

    refuse_real_data(out)
    effects = parse_effects(set_ or [])
    world = simulate(users=users, days=days, seed=seed, effects=effects, retention=retention)
    save(world, out)
    _summarise(world, out)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A tracker's backup or export: a file or a folder.")],
    out: NewDataset,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="loop, loop-csv, habitbull, tickmate, rewire, lifesnaps; else found by looking."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Pseudonym of the person whose tracker this is; `me` when left out.")
    ] = None,
) -> None:
    """Read a tracker's backup into a dataset; into one that exists, it is merged."""
    from datetime import date

    from habitlab.dataset import Dataset
    from habitlab.dataset.importers import import_source
    from habitlab.dataset.merge import alone
    from habitlab.privacy.user_control import leave_out

    with alone(out):  # two imports at once would each miss what the other adds
        before = Dataset.load(out) if out.exists() else None
        result = import_source(source, format=format_, into=before, user=user, today=date.today())
        dataset, gone = leave_out(result.dataset, before, out)
        dataset.save(out)
    _print(str(result.report))
    if gone:
        who = "1 person who asked to be forgotten was" if gone == 1 else f"{gone} people who asked to be forgotten were"
        _print(f"{who} left out; somebody who wants to come back takes another id (`--user`)")
    _summarise(dataset, out)


@app.command()
def check(path: Annotated[Path, typer.Argument(help="A dataset.")]) -> int:
    """Hold a dataset against the contract, and say what is in it."""
    from habitlab.dataset import Dataset, DatasetError

    try:
        dataset = Dataset.load(path)
    except DatasetError as error:
        print(f"habitlab: {error}", file=sys.stderr)  # noqa: T201
        return FAILED
    _summarise(dataset, path)
    _print("the contract holds")
    return DONE


@app.command()
def report(
    names: Annotated[
        list[str] | None, typer.Argument(help="Reports, like 03 or 02-user-behaviour; all when none.")
    ] = None,
    data: DataOption = BUILT_IN,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="PARAM=VALUE", help="A parameter of the notebooks.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Notebooks side by side; as many as cores when left out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("reports"),
    force: Annotated[bool, typer.Option("--force", help="Run also what is already made.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds one notebook may take.")] = 600,
) -> int:
    """Run notebooks and publish them as HTML; what has not changed is not run."""
    from habitlab.report.build import build_reports
    from habitlab.report.parameters import SAMPLE, parse_assignments

    if str(data) != SAMPLE:
        _need_data(data)
    if data.is_file():
        _look(data)
    result = build_reports(
        names or [],
        notebooks_dir=_notebooks(),
        out=out,
        data=str(data),
        overrides=parse_assignments(set_ or []),
        jobs=jobs,
        force=force,
        timeout=timeout,
        preload=PRELOAD,
    )
    for one in result.reports:
        error = f": {one.error}" if one.error else ""
        _print(f"{one.name}  {one.status}{f' in {one.seconds:.1f} s' if one.status == 'ran' else ''}{error}")
    _print(f"{out / 'index.html'} ({result.seconds:.1f} s)")
    return result.exit_code


def _look(data: Path) -> None:
    """Refuse what is no dataset at all before any notebook runs; opening it with all checks would take a while."""
    advice = "`habitlab import` reads a tracker's backup or export"
    if data.open("rb").read(16) != b"SQLite format 3\0":
        raise ValueError(f"{data} is neither a SQLite database nor a folder; {advice}")
    try:
        with closing(sqlite3.connect(f"{data.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error as error:
        raise ValueError(f"{data} is a damaged SQLite database: {error}") from error
    if "habit_tracking" not in tables:
        raise ValueError(f"{data} is not a HabitLab dataset: it has no table habit_tracking; {advice}")


@app.command()
def recommend(
    user: Annotated[
        str,
        typer.Argument(
            metavar="USER", help="An id of the dataset; or a registration record: a file *.json, - for standard input."
        ),
    ],
    data: DataOption = BUILT_IN,
    k: Annotated[int, typer.Option("--k", help="How many habits.")] = 5,
    lang: Annotated[str, typer.Option(help="Language of names and reasons: en or ru.")] = "en",
    at: Annotated[
        str | None, typer.Option(help="Moment on the user's own clock, like 2026-01-05T07:30; now when left out.")
    ] = None,
    tomorrow: Annotated[
        bool, typer.Option("--tomorrow", help="Plan habits whose part of the day is over for another day.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recommend habits to a user or to somebody new, and say why."""
    import json
    from datetime import datetime

    from habitlab.explanations.reasons import explain_list
    from habitlab.recommender.fitted import fitted

    record = _record(user)
    if str(data) == "sample":
        from habitlab import open_dataset

        source: Dataset | Path = open_dataset()
    else:
        _need_data(data)
        source = data
    moment = at or datetime.now().isoformat(timespec="minutes")
    found = fitted(source, tell=_note).recommend_as_allowed(record or user, k, moment, lang, tomorrow=tomorrow)
    answer = explain_list(found, lang)
    for warning in answer.warnings:
        _note(warning)
    if json_:
        _print(json.dumps(answer.to_json(), ensure_ascii=False, indent=2))
    else:
        _show(answer)


def _record(user: str) -> Registration | None:
    """Return the registration record at a path that ends in .json, or on standard input; None for an id."""
    if user != "-" and not user.lower().endswith(".json"):
        return None
    from habitlab.dataset.registration import Registration

    return Registration.from_json(sys.stdin.read() if user == "-" else Path(user))


def _show(answer: Recommendations) -> None:
    """Print a list as a table where a person looks at it, else as plain text."""
    from habitlab.explanations.reasons import as_table, say_filtered, say_slot
    from habitlab.explanations.wording import language

    code = answer.language
    headings, rows = as_table(answer)
    slots = [say_slot(item, code) for item in answer.items]
    if sys.stdout.isatty() and rows:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_lines=True)
        for heading, share in zip(headings, (None, 2, 5, 1, None), strict=True):
            table.add_column(heading, ratio=share)
        for (rank, name, reasons, *numbers), slot in zip(rows, slots, strict=True):
            table.add_row(*map(Text, (rank, name, f"{reasons}\n{slot}", *numbers)))  # brackets in names are no markup
        Console().print(table)
    else:
        for (rank, name, reasons, chance, score), slot in zip(rows, slots, strict=True):
            told = "; ".join(f"{h}: {text}" for h, text in zip(headings[-2:], (chance, score), strict=True) if text)
            lines = [f"{rank}. {name}", told, *reasons.split("\n"), slot]
            _print("\n   ".join(lines))
    words, scores = language(code), [item.score for item in answer.items]
    if scores != sorted(scores, reverse=True):
        _print(words.say("table.order"))
    if answer.filtered:
        _print(f"{words.say('playground.left_out')} {say_filtered(answer.filtered, words)}")


@app.command()
def monitor(
    data: DataOption = BUILT_IN,
    folder: Annotated[Path | None, typer.Option("--state", help="Folder of the service; beside the data.")] = None,
    days: Annotated[float, typer.Option(min=0, help="Alert of what came in so many last days.")] = 3,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Post alerts there, too.")] = None,
) -> int:
    """Look at the log of the service: latency, hits, adoption, drift. Exit 1 when there is something to look at."""
    from datetime import UTC, datetime, timedelta

    import pandas as pd

    from habitlab import open_dataset
    from habitlab.serving import monitoring, state
    from habitlab.serving.monitoring import alerts, replay

    if str(data) != "sample":
        _need_data(data)
    place, now = state.folder(data, folder), datetime.now(UTC)
    sinks = {"file": alerts.to_file(place / state.LOGS / "alerts.jsonl")}
    if webhook is not None:
        sinks["webhook"] = alerts.to_webhook(webhook)
    log = replay.read_log(place, open_dataset(str(data), everybody=True), pd.Timestamp(now))
    found = monitoring.check(log, since=pd.Timestamp(now - timedelta(days=days)))
    _print(monitoring.as_text(log, found))  # first: it is told where nothing can be sent or written
    sent = alerts.send(found.alerts, sinks, place / state.LOGS / "alerts.json", now)
    for name, why in sent.failed.items():
        _note(f"alerts could not be sent to the {name}, next time again: {why}")
    return FAILED if found.alerts else DONE


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to bind to; off loopback a token is needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to bind to.")] = 8000,
    redis: Annotated[
        str | None, typer.Option(metavar="URL", help="Redis as first level for all workers, as redis://localhost:6379.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the bearer token that clients have to bring.")
    ] = None,
    data: DataOption = BUILT_IN,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each; few are best, see docs/serving.md.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder of the service; beside the data when left out, as data/habittrack.service."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Requests a second from one address; off loopback 100 when left out.")
    ] = None,
) -> None:
    """Answer requests for recommendations and take events, over HTTP; see docs/serving.md."""
    from habitlab.serving.server import serve

    if str(data) != "sample":
        _need_data(data)
    serve(
        data,
        host=host,
        port=port,
        redis=redis,
        token_file=token_file,
        workers=workers,
        threads=threads,
        state=state,
        rate=rate,
    )


@app.command()
def batch(
    data: DataOption = BUILT_IN,
    folder: Annotated[Path | None, typer.Option("--state", help="Folder of the service; beside the data.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many habits.")] = 5,
    day: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="Day on people's own clocks, like 2026-01-05; today when left out."),
    ] = None,
    block: Annotated[int, typer.Option(min=1, help="People whose lists are in memory at once.")] = 500,
) -> None:
    """Make everybody's lists of a day ahead. Stopped on the way, call it again; until then the former stay live.

    They serve every language. In the far east a day begins 14 hours before it does in UTC.
    """
    from datetime import date

    from habitlab.serving.batch import run

    try:
        when = date.fromisoformat(day) if day else date.today()
    except ValueError:
        raise ValueError(f"{day!r} is no day like 2026-01-05") from None
    if str(data) != "sample":
        _need_data(data)
    found = run(data, folder, day=when, k=k, block=block, progress=True)
    _print(
        f"{when}: {found.made:,} lists made for {found.people:,} people"
        f"{f', of whom {found.ready:,} had theirs' if found.ready else ''}; they are live"
    )


@app.command()
def retrain(
    data: DataOption = BUILT_IN,
    folder: Annotated[Path | None, typer.Option("--state", help="Folder of the service; beside the data.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the model live that was live before.")] = False,
    margin: Annotated[
        float, typer.Option(help="Gain of NDCG@10 that is asked for; below 0: loss that is borne for a fresher model.")
    ] = 0.0,
    force: Annotated[
        bool, typer.Option("--force", help="Also where nothing changed, or a model made alike was rolled back.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the models.")] = 0,
) -> int:
    """Learn again from the data and what the service was told; what is live changes only for a model shown better."""
    from datetime import UTC, datetime

    from habitlab import open_dataset
    from habitlab.serving import state
    from habitlab.serving.learning import registry
    from habitlab.serving.learning.retrain import Recipe
    from habitlab.serving.learning.retrain import retrain as learn_again

    if str(data) != "sample":
        _need_data(data)
    place = state.folder(data, folder)
    if rollback:
        _print(f"live: {registry.rollback(place)}")
        return DONE
    now, recipe = datetime.now(UTC), Recipe(seed=seed)
    dataset = open_dataset(str(data), everybody=True)
    found = learn_again(dataset, place, now=now, recipe=recipe, margin=margin, force=force, tell=_note)
    _print("\n".join([f"{found.action}; live: {found.live or 'none'}", *(f"  {reason}" for reason in found.reasons)]))
    return DONE


user = typer.Typer(no_args_is_help=True, help="What a person can ask for: all that is known of them, to be forgotten.")
app.add_typer(user, name="user")
UserId = Annotated[str, typer.Argument(metavar="USER_ID", help="The person's id.")]


@user.command("export")
def export_(
    user_id: UserId,
    data: DataOption = BUILT_IN,
    folder: Annotated[Path | None, typer.Option("--state", help="Folder of the service; beside the data.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A file; else it is printed.")] = None,
) -> None:
    """Write everything that is known of a person as JSON: their rows of every table, and the service's."""
    import json

    from habitlab.dataset.sqlite import replacing
    from habitlab.privacy.user_control import export

    _need_data(data)
    text = json.dumps(export(user_id, data, folder), ensure_ascii=False, indent=2)
    if out is None:
        _print(text)
        return
    with replacing(out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    out.chmod(0o600)
    _print(f"{out}: all that is known of {user_id}")


@user.command("forget")
def forget_(
    user_id: UserId,
    data: DataOption = BUILT_IN,
    folder: Annotated[Path | None, typer.Option("--state", help="Folder of the service; beside the data.")] = None,
    redis: Annotated[str | None, typer.Option("--redis", help="URL of the Redis that the service uses.")] = None,
) -> int:
    """Remove a person from data, service, caches and models, and prove it; stopped on the way, call it again."""
    from habitlab.privacy.user_control import forget
    from habitlab.serving import state
    from habitlab.serving.learning import registry

    _need_data(data)
    found = forget(user_id, data, folder, redis=redis, tell=_print)
    for path, where in found.left.items():
        _print(f"STILL THERE: {path}, {where}")
    if found.left:
        return FAILED
    _print(f"{found.searched} files searched, the id stands in none")
    if registry.current(state.folder(data, folder)) is None:
        _print("a running server holds the model that it began with until it is started again")
    return DONE


def _need_data(data: Path) -> None:
    if not data.exists():
        advice = "`make data` makes it" if data == BUILT_IN else "`habitlab import` or `habitlab simulate` makes one"
        raise FileNotFoundError(f"no dataset at {data}; {advice}, or give --data sample for a small simulated one")


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="DIR_A", help="Folder of reports.")],
    after: Annotated[Path, typer.Argument(metavar="DIR_B", help="Another one.")],
) -> None:
    """Say what changed between two runs, number by number."""
    from habitlab.report.compare import as_text, compare

    _print(as_text(compare(before, after), a=str(before), b=str(after)))


@app.command()
def notebooks(
    check: Annotated[bool, typer.Option("--check", help="Only say what is not in the canonical form.")] = False,
) -> int:
    """Run the notebooks on the sample and store them in their canonical form."""
    from habitlab.report import build, notebooks

    paths = sorted(_notebooks().glob("*.ipynb"))
    failures = {} if check else notebooks.refresh(paths, jobs=build.cores(), preload=PRELOAD)
    wrong = [f"{path.name}: {failure}" for path, failure in failures.items() if failure]
    wrong += [f"{path.name} {problem}" for path in paths for problem in notebooks.check(path)]
    for line in wrong:
        _print(line)
    return FAILED if wrong else DONE


def _notebooks() -> Path:
    """Return the folder of notebooks: that of the working directory, or else the one beside the package."""
    for folder in (Path("notebooks"), Path(__file__).resolve().parents[1] / "notebooks"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError("no folder `notebooks` here; run this in a clone of HabitLab")


def _summarise(dataset: Dataset, path: Path) -> None:
    tracking = dataset.habit_tracking
    if tracking.empty:
        period = "no day tracked"
    else:
        period = f"{tracking['date'].min():%Y-%m-%d} to {tracking['date'].max():%Y-%m-%d}"
    kind = "simulated" if dataset.simulated else "real"
    _print(
        f"{path}: {len(dataset.users):,} users, {len(dataset.habits):,} habits, {len(tracking):,} tracked days, "
        f"{period} ({kind} data)"
    )


def _print(text: str) -> None:
    print(text)  # noqa: T201


def _note(text: str) -> None:
    print(f"habitlab: {text}", file=sys.stderr)  # noqa: T201
