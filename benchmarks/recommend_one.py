"""How long one list takes: fitting, in process, and as a whole `habitlab recommend`.

Times are by the clock, the least of several; for the whole process also those of the processor, which others on the
machine disturb less. For many users at once see `recommend_all.py`.
Usage: python benchmarks/recommend_one.py [PATH]    (default data/habittrack.db; `make data` makes it)
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from habitlab.dataset import Dataset
from habitlab.recommender.recommend import Recommender

PATH = Path(sys.argv[1] if len(sys.argv) > 1 else "data/habittrack.db")
AT = "2024-05-06T08:00"


def seconds(call: Callable[[], object], times: int = 3) -> float:
    """Least time of several."""
    return min(_once(call) for _ in range(times))


def _once(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _processor() -> float:
    """Seconds of processor time that finished processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the times."""
    dataset = Dataset.load(PATH)
    print(f"{len(dataset.users):,} users, {len(dataset.habits)} habits, {len(dataset.habit_tracking):,} tracked days")
    begin = time.perf_counter()
    fitted = Recommender().fit(dataset)
    print(f"fit of everything     {time.perf_counter() - begin:7.2f} s   (at most 20)")

    users = [str(user) for user in fitted.user_ids_[:300]]
    each = seconds(lambda: [fitted.recommend(user, at=AT) for user in users]) / len(users)
    print(f"one list, in process  {1000 * each:7.2f} ms  (at most 5)")
    somebody = {"age": 33, "improvement_areas": ["health"], "time_commitment": 20}
    print(f"somebody new          {1000 * seconds(lambda: fitted.recommend(somebody)):7.2f} ms")

    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"HABITLAB_CACHE": cache, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "habitlab", "recommend", users[0], "--data", str(PATH), "--at", AT, "--json"]

        def call() -> None:
            subprocess.run(command, env=environment, check=True, capture_output=True)

        print(f"first whole process   {_once(call):7.2f} s   (fits)")
        before = _processor()
        wall = seconds(call, times=5)
        processor = (_processor() - before) / 5
        print(f"whole process         {wall:7.2f} s   (at most 3), of that {processor:.2f} s of processor time (mean)")


if __name__ == "__main__":
    main()
