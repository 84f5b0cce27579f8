"""Lists for 100,000 people: scoring alone, beside all that a batch does but writing; and then writing.

Run `python benchmarks/batch.py [--users N] [--data PATH]`. The people of the data are asked for again and again until
there are enough, and no scores are kept, so that the models are asked for each of them, as they are where there are
100,000 people. One process with one thread takes a block of people after the other, and does everything with each, so
that whatever else the machine does meets all steps alike: processor time, and peak memory above what the fitted
recommender takes, after a tenth of the people and in the end. `--users 0` asks for everybody once.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
DAY = date(2024, 7, 1)


def measure(data: str, users: int) -> None:
    """Print processor seconds of each step, ratios and peak memory."""
    import gc

    from habitlab.recommender.fitted import fitted
    from habitlab.serving import lists, state
    from habitlab.serving.answers import word
    from habitlab.serving.batch import BLOCK, no_collector
    from habitlab.serving.live import Live
    from habitlab.serving.store import PUT, row_of

    recommender = fitted(data)
    recommender.__dict__["_kept"] = recommender.__dict__["_kept_answers"] = None
    ids, moments = recommender.user_ids_.tolist(), lists.moments(DAY)
    users = users or len(ids)
    people = recommender.people_
    unprofiled = set(people.ids[~people.profiled].tolist())  # whom the batch asks by their answers alone
    list(recommender.draw_many(ids[:BLOCK], unprofiled=unprofiled))  # what has to be read once
    live, seconds = Live(recommender), Counter[str]()

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        start = time.process_time()
        yield
        seconds[step] += time.process_time() - start

    def score(block: list[str]) -> None:
        with timed("scoring alone"):
            recommender.score(block)

    def draw(block: list[str], at: Sequence[datetime]) -> list[list[bytes]]:
        found = recommender.draw_many(block, 5, at, unprofiled=unprofiled)
        return [packed for drawn in found for packed in drawn.pack()]

    reset_peak()
    before, tenth, read = peak(), 0.0, 0
    with (
        tempfile.TemporaryDirectory(prefix="habitlab-batch-") as folder,
        closing(state.connect(folder)) as connection,
        no_collector(),
    ):
        for number, begin in enumerate(range(0, users, BLOCK)):
            block = [ids[place % len(ids)] for place in range(begin, min(begin + BLOCK, users))]
            if number % 2:
                score(block)
            with timed("lists of one moment"):
                draw(block, moments[:1])
            with timed("lists of three moments"):
                found = draw(block, moments)
            if not number % 2:
                score(block)
            with timed("writing three"), state.transaction(connection):
                now, names = datetime.now(UTC), [lists.name(5, moment) for moment in moments]
                rows = [
                    row_of(lists.Key(user, live.key, 0, name), packed, now, None, 1)
                    for user, several in zip(block, found, strict=True)
                    for name, packed in zip(names, several, strict=True)
                ]
                connection.executemany(PUT, rows)
            with timed("words for a read list"):  # of every hundredth person
                for several in found[::100]:
                    word(recommender, lists.Key("somebody", live.key, 0, names[0]), several[0], "en").pack()
                    read += 1
            gc.collect()
            if begin <= users / 10:
                tenth = peak() - before
    words = seconds.pop("words for a read list")
    for step, spent in sorted(seconds.items(), key=lambda one: one[0] != "scoring alone"):
        print(f"{step:24} {spent:7.1f} s  {users / spent:8,.0f} people a second")
    alone = seconds["scoring alone"]
    for step in ("lists of one moment", "lists of three moments"):
        print(f"{step}: {alone / seconds[step]:.2f} of the rate of scoring alone (aim 0.8)")
    whole = seconds["lists of three moments"] + seconds["writing three"]
    print(f"three moments with writing: {alone / whole:.2f}")
    print(f"words and JSON of a list, made when it is read first: {1000 * words / read:.2f} ms")
    print(
        f"memory above the recommender: {tenth:.0f} MB after a tenth of the people, {peak() - before:.0f} MB in the end"
    )


def reset_peak() -> None:
    """Have the kernel forget the peak so far: that of reading the recommender."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> float:
    """Peak memory since, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**10


def main() -> None:
    """Measure with one thread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--data", default="data/habittrack.db")
    options = parser.parse_args()
    if os.environ | THREADS != os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | THREADS)  # before numpy is imported
    measure(options.data, options.users)


if __name__ == "__main__":
    main()
