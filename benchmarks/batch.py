"""Lists for 100,000 people: scoring alone, beside scoring, filtering, varying and drawing; and then words and writing.

Run `python benchmarks/batch.py [--users N] [--data PATH]`. The people of the data are asked for again and again until
there are enough, and no scores are kept, so that the models are asked for each of them, as they are where there are
100,000 people. Every side runs in a process of its own with one thread: processor time, and peak memory above what the
fitted recommender takes. `--users 0` asks for everybody once.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SIDES = ("score", "one moment", "three moments", "words and JSON", "writing")
BLOCK = 500
DAY = date(2024, 7, 1)


def measure(side: str, data: str, users: int) -> None:
    """Print processor seconds of so many people, and peak memory above the recommender in MB."""
    from habitlab.explanations.reasons import explain_list
    from habitlab.recommender.fitted import fitted
    from habitlab.serving import lists, state
    from habitlab.serving.live import Live
    from habitlab.serving.store import PUT, row_of

    recommender = fitted(data)
    recommender.__dict__["_kept"] = None
    ids = recommender.user_ids_.tolist()
    moments = lists.moments(DAY)
    recommender.recommend(ids[0])  # what has to be read once
    gc.freeze()  # as the batch does

    def blocks() -> Iterator[list[str]]:
        for begin in range(0, users, BLOCK):
            yield [ids[number % len(ids)] for number in range(begin, min(begin + BLOCK, users))]

    _reset_peak()
    before, seconds = _peak(), 0.0
    folder = tempfile.TemporaryDirectory(prefix="habitlab-batch-")
    live = Live(recommender)
    connection = state.connect(folder.name)
    for block in blocks():
        start = time.process_time()
        if side == "score":
            recommender.score(block)
            seconds += time.process_time() - start
            continue
        asked = moments[:1] if side == "one moment" else moments
        found = list(recommender.recommend_many(block, 5, asked))
        if side in ("one moment", "three moments"):
            seconds += time.process_time() - start
            continue
        start = time.process_time()
        ready = []
        for user, several in zip(block, found, strict=True):
            for moment, one in zip(asked, several, strict=True):
                key = lists.Key(user, live.key, 0, lists.name(5, "en", moment))
                ready.append((key, lists.Ready.of(explain_list(one, "en"), key)))
        if side == "writing":
            start = time.process_time()
            now = datetime.now(UTC)
            with state.transaction(connection):
                rows = [row_of(key, one.pack(), now, None, 1) for key, one in ready]
                connection.executemany(PUT, rows)
        seconds += time.process_time() - start
    connection.close()
    folder.cleanup()
    print(seconds, _peak() - before)


def _reset_peak() -> None:
    """Have the kernel forget the peak so far: that of reading the recommender."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> float:
    """Peak memory since, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10


def main() -> None:
    """Run all sides one after the other, print rates, ratios and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--data", default="data/habittrack.db")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.data, options.users)
        return
    rates = {}
    for side in SIDES:
        command = [sys.executable, __file__, "--users", str(options.users), "--data", options.data, "--side", side]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | THREADS).stdout
        seconds, memory = map(float, output.split())
        rates[side] = options.users / seconds
        print(f"{side:15} {seconds:7.1f} s  {rates[side]:8,.0f} people a second  {memory:5.0f} MB", flush=True)
    for side in ("one moment", "three moments"):
        print(f"{side}: {rates[side] / rates['score']:.2f} of the rate of scoring alone")


if __name__ == "__main__":
    main()
