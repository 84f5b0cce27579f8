"""Metrics of ranked lists against RecTools and ranx, on the same lists of 100,000 users and 500 habits.

Run `python benchmarks/metrics.py [USERS]`. The two do not install beside our numpy and pandas: the first run makes an
environment of their own in the user's cache folder (600 MB; ranx compiles for a minute or two). Lists and relevant
habits go to both sides through one file; each side runs in a process of its own, BLAS on one thread and numba on two.
Times are the best of several: by the clock, and in processor time, which others on the machine disturb less (not for
ranx, which uses two threads). Then the bootstrap over users, and the memory of our side, also at ten times this size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ITEMS, K = 500, 10
PEERS = ("rectools==0.19.0", "ranx==0.3.21")


def make(users: int, path: Path) -> None:
    """Write top-10 lists, one to ten relevant items a user (popular ones more often), and item vectors."""
    generator = np.random.default_rng(0)
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.7
    noise = generator.gumbel(size=(min(users, 5000), ITEMS)).astype(np.float32)
    # Gumbel noise on the log of popularity draws without repeats; the next users' lists are shifted copies.
    first = np.argsort(-(np.log(popularity) + noise), axis=1)[:, :K]
    relevant = np.argsort(-(np.log(popularity) + noise[::-1]), axis=1)[:, :K]
    shift = generator.integers(0, ITEMS, users)
    row = np.arange(users) % len(first)
    number = generator.integers(1, K + 1, users)
    kept = np.arange(K) < number[:, None]
    np.savez(
        path,
        lists=(first[row] + shift[:, None]) % ITEMS,
        user=np.repeat(np.arange(users), number),
        item=((relevant[row] + shift[:, None]) % ITEMS)[kept],
        vectors=(generator.random((ITEMS, 20)) < 0.2).astype(float),
    )


def best(call: Callable[[], object], times: int) -> tuple[float, float]:
    """Seconds of the fastest call, by the clock and of the processor."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter(), time.process_time()
        call()
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(clock for clock, _ in seconds), min(processor for _, processor in seconds)


def frames(data: dict[str, np.ndarray], *, text: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Long tables of lists and relevant items, with whole numbers or with texts as ids."""
    users, places = data["lists"].shape
    lists = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), places),
            "habit_id": data["lists"].ravel(),
            "rank": np.tile(np.arange(1, places + 1), users),
        }
    )
    truth = pd.DataFrame({"user_id": data["user"], "habit_id": data["item"]})
    if text:
        user = pd.Series([f"u{i:07d}" for i in range(users)])
        habit = pd.Series([f"h{i:03d}" for i in range(ITEMS)])
        for frame in (lists, truth):
            frame["user_id"] = user.take(frame["user_id"]).array
            frame["habit_id"] = habit.take(frame["habit_id"]).array
    return lists, truth


def ours(data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Values and seconds of our side."""
    from scipy import sparse

    from habitlab.evaluation import metrics
    from habitlab.evaluation.leaderboard import means

    lists = data["lists"]
    ones = np.ones(len(data["user"]))
    relevant = sparse.csr_array((ones, (data["user"], data["item"])), shape=(len(lists), ITEMS))
    three, names = (metrics.precision_at_k, metrics.recall_at_k, metrics.ndcg_at_k), ("precision", "recall", "ndcg")
    found = {
        "precision": metrics.mean_over_users(three[0](lists, relevant, K)).mean,
        "recall": metrics.mean_over_users(three[1](lists, relevant, K)).mean,
        "ndcg": metrics.mean_over_users(three[2](lists, relevant, K)).mean,
        "diversity": metrics.mean_over_users(metrics.intra_list_diversity(lists, data["vectors"])).mean,
        "seconds of three calls": best(lambda: [metric(lists, relevant, K) for metric in three], 9),
        "seconds of arrays": best(lambda: metrics.several_at_k(lists, relevant, K, names), 9),
        "seconds of diversity": best(lambda: metrics.intra_list_diversity(lists, data["vectors"]), 5),
    }
    for kind, text in (("numbers", False), ("texts", True)):
        tables = frames(data, text=text)

        def from_tables(tables: tuple[pd.DataFrame, pd.DataFrame] = tables) -> None:
            ranked = metrics.from_frames(*tables)
            metrics.several_at_k(ranked.recommended, ranked.relevant, K, names)

        found[f"seconds of tables of {kind}"] = best(from_tables, 5)
    values = np.random.default_rng(0).random((len(lists), 10))
    found["seconds of bootstrap"] = best(lambda: [mean.interval() for mean in means(values, resamples=2000)], 2)
    return found


def memory(data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Peak memory in MB above the inputs and the metric's own output, for the metric that needs most."""
    from scipy import sparse

    from habitlab.evaluation import metrics

    lists = data["lists"]
    relevant = sparse.csr_array((np.ones(len(data["user"])), (data["user"], data["item"])), shape=(len(lists), ITEMS))
    relevant.sum_duplicates()
    graded, popularity, names = relevant * 2.0, np.full(ITEMS, 0.5), np.arange(ITEMS) % 8
    accuracy = ("precision", "recall", "capped_recall", "hit_rate", "average_precision", "reciprocal_rank", "ndcg")
    calls: dict[str, Callable[[], object]] = {
        "all of accuracy": lambda: metrics.several_at_k(lists, relevant, K, accuracy),
        "graded ndcg": lambda: metrics.ndcg_at_k(lists, graded, K),
        "serendipity": lambda: metrics.serendipity_at_k(lists, relevant, popularity, K),
        "diversity": lambda: metrics.intra_list_diversity(lists, data["vectors"]),
        "novelty": lambda: metrics.novelty(lists, popularity),
        "category coverage": lambda: metrics.category_coverage(lists, names),
        "miscalibration": lambda: metrics.miscalibration(lists, relevant, names),
        "exposure": lambda: metrics.exposure(lists, ITEMS),
        "gini": lambda: metrics.gini(lists, ITEMS),
        "catalogue coverage": lambda: metrics.catalogue_coverage(lists, ITEMS),
    }
    above = {}
    for name, call in calls.items():
        call()  # what is imported or set up at the first call is no memory of the metric
        tracemalloc.start()
        kept = call()
        output, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        above[name] = (peak - output) / 2**20
        del kept
    return {"above": max(above.values()), "of": max(above, key=above.__getitem__)}


def rectools(data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Values and seconds of RecTools, with NDCG and distance set to our definitions."""
    from rectools import Columns
    from rectools.metrics import NDCG, IntraListDiversity, Precision, Recall, calc_metrics
    from rectools.metrics.distances import PairwiseDistanceCalculator

    three = {"precision": Precision(k=K), "recall": Recall(k=K), "ndcg": NDCG(k=K, divide_by_achievable=True)}
    unit = data["vectors"] / np.maximum(np.linalg.norm(data["vectors"], axis=1, keepdims=True), 1e-300)
    distance = 1 - unit @ unit.T

    class Cosine(PairwiseDistanceCalculator):
        """Looks distances up in a table, which is faster than its own ways."""

        def _get_distances_for_item_pairs(self, items_0: np.ndarray, items_1: np.ndarray) -> np.ndarray:
            return distance[items_0.astype(int), items_1.astype(int)]

    names = {"habit_id": Columns.Item, "rank": Columns.Rank, "user_id": Columns.User}
    found: dict[str, Any] = {}
    for kind, text in (("numbers", False), ("texts", True)):
        lists, truth = (frame.rename(columns=names) for frame in frames(data, text=text))

        def calculate(lists: pd.DataFrame = lists, truth: pd.DataFrame = truth) -> None:
            found.update(calc_metrics(three, lists, truth))

        found[f"seconds of tables of {kind}"] = best(calculate, 3)
    diversity = IntraListDiversity(k=K, distance_calculator=Cosine())
    lists = frames(data, text=False)[0].rename(columns=names)
    found["seconds of diversity"] = best(lambda: found.update(diversity=diversity.calc(lists)), 1)
    return found


def ranx(data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Values and seconds of ranx, compiled, on two threads, its objects built."""
    from ranx import Qrels, Run, evaluate

    users = len(data["lists"])
    truth: dict[str, dict[str, int]] = {f"u{i}": {} for i in range(users)}
    for user, item in zip(data["user"], data["item"], strict=True):
        truth[f"u{user}"][f"h{item}"] = 1
    lists = {f"u{i}": {f"h{h}": float(K - r) for r, h in enumerate(row)} for i, row in enumerate(data["lists"])}
    qrels, run = Qrels(truth), Run(lists)
    names = {"precision": f"precision@{K}", "recall": f"recall@{K}", "ndcg": f"ndcg@{K}"}
    values = evaluate(qrels, run, list(names.values()), threads=2)  # compiles
    found = {name: float(values[theirs]) for name, theirs in names.items()}
    found["seconds of arrays"] = best(lambda: evaluate(qrels, run, list(names.values()), threads=2), 3)
    return found


SIDES = {"ours": ours, "memory": memory, "rectools": rectools, "ranx": ranx}


def measure(side: str, path: Path, python: Path | str = sys.executable) -> dict[str, Any]:
    """Run one side in a process of its own."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    command = [str(python), __file__, "--side", side, "--file", str(path)]
    done = subprocess.run(command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peers() -> Path:
    """Interpreter of the peers' environment; made if it is not there."""
    from habitlab.places import cache_folder

    folder = cache_folder() / "benchmark-peers"
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making an environment for {' and '.join(PEERS)} in {folder}")
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *PEERS], check=True)
    return python


def main() -> None:
    """Run all sides, print times, ratios and differences of values."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("users", type=int, nargs="?", default=100_000)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        with np.load(options.file) as stored:
            data = {name: stored[name] for name in stored.files}
        print(json.dumps(SIDES[options.side](data)))
        return
    python = peers()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lists.npz"
        make(options.users, path)
        print(f"precision, recall and NDCG@{K} of {options.users:,} users and {ITEMS} habits; seconds, best of several")
        mine, slow, compiled = measure("ours", path), measure("rectools", path, python), measure("ranx", path, python)
        again = measure("ours", path)
        for name, theirs in (("RecTools", slow), ("ranx", compiled)):
            for key in ("precision", "recall", "ndcg", "diversity"):
                if key in theirs and abs(theirs[key] - mine[key]) > 1e-9:
                    print(f"{key} differs: ours {mine[key]!r}, {name} {theirs[key]!r}")
        numbers, texts, diversity = "seconds of tables of numbers", "seconds of tables of texts", "seconds of diversity"
        arrays = "seconds of arrays"
        for what, key, theirs, aim in (
            ("arrays against RecTools, numbers", arrays, slow[numbers], 20),
            ("arrays against RecTools, texts", arrays, slow[texts], 20),
            ("arrays, a call a metric, RecTools", "seconds of three calls", slow[numbers], 20),
            ("the same, RecTools with texts", "seconds of three calls", slow[texts], 20),
            ("arrays against ranx", arrays, compiled[arrays], 40),
            ("arrays, a call a metric, ranx", "seconds of three calls", compiled[arrays], 40),
            ("tables of numbers against RecTools", numbers, slow[numbers], 4),
            ("tables of texts against RecTools", texts, slow[texts], 4),
            ("diversity against RecTools", diversity, slow[diversity], 100),
        ):
            clock, processor = (min(mine[key][part], again[key][part]) for part in (0, 1))
            by_processor = f", {theirs[1] / processor:.0f} in processor time" if theirs is not compiled[arrays] else ""
            print(
                f"{what:36} ours {clock:.4f} s ({processor:.4f} of the processor), theirs {theirs[0]:.3f} s: "
                f"{theirs[0] / clock:.0f} times{by_processor} (aim {aim})"
            )
        clock, processor = mine["seconds of bootstrap"]
        print(f"2,000 resamples, 10 metrics: {clock:.2f} s ({processor:.2f} of the processor) (aim 3)")
        for users in (options.users, 10 * options.users):
            make(users, path)
            most = measure("memory", path)
            print(
                f"memory above inputs and outputs, {users:,} users: {most['above']:.1f} MB for {most['of']} "
                f"(an output {users * 8 / 2**20:.1f} MB; aim 300, and no growth)"
            )


if __name__ == "__main__":
    main()
