"""The best 10 of 500 habits for 100,000 users, 20 factors, seen habits left out: HabitLab beside implicit's ALS.

Run `python benchmarks/recommend_all.py [USERS] [ITEMS]`; needs the extra `als`. Each side runs in a process of its own
with one thread, so that its peak memory is its own; times are processor time, best of five, which others on the machine
disturb less. `candidates` are the best 50, what a diversity step starts from; `varied` is that step as well: the 10 of
them that `diversity.rerank` chooses.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SIDES = ("product", "top 10", "candidates", "varied", "implicit")
FACTORS, K, CANDIDATES, DIVERSITY = 20, 10, 50, 0.05


def measure(side: str, users: int, items: int) -> None:
    """Print processor seconds and peak memory above the inputs, in GB; what making the inputs took is counted in."""
    import numpy as np
    from scipy import sparse

    from habitlab.models.ranking import top_k
    from habitlab.recommender import diversity

    generator = np.random.default_rng(0)
    people = generator.normal(size=(users, FACTORS)).astype(np.float32)
    things = generator.normal(size=(items, FACTORS)).astype(np.float32)
    seen = sparse.csr_array(sparse.random_array((users, items), density=6 / items, format="csr", rng=generator))
    seen.data = seen.data.astype(np.float32)
    category = generator.integers(0, 9, items)
    alike = diversity.similarity(category, generator.random((items, 5)) < 0.3, generator.uniform(1, 60, items))
    if side == "implicit":
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(factors=FACTORS, num_threads=1)
        model.user_factors, model.item_factors = people, things
        known = sparse.csr_matrix(seen)
        everyone = np.arange(users)

    def run() -> object:
        if side == "implicit":
            return model.recommend(everyone, known, N=K, filter_already_liked_items=True)
        if side == "product":
            block, transposed = np.empty((512, items), dtype=np.float32), np.ascontiguousarray(things.T)
            for begin in range(0, users, 512):
                some = people[begin : begin + 512]
                np.matmul(some, transposed, out=block[: len(some)])
            return block
        if side == "varied":
            best, score = top_k((people, things), CANDIDATES, seen)
            score = 1 / (1 + np.exp(-score))  # in [0, 1], like likeness
            return diversity.rerank(best, score, alike, category, k=K, diversity=DIVERSITY)
        return top_k((people, things), K if side == "top 10" else CANDIDATES, seen)

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    before = pages * resource.getpagesize() / 2**10
    seconds = []
    for _ in range(5):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(min(seconds), max(seconds), peak)


def main() -> None:
    """Run all sides, print times, ratios and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("users", type=int, nargs="?", default=100_000)
    parser.add_argument("items", type=int, nargs="?", default=500)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.users, options.items)
        return
    results = {}
    for side in SIDES:
        command = [sys.executable, __file__, str(options.users), str(options.items), "--side", side]
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | THREADS).stdout
        results[side] = best, worst, peak = [float(word) for word in output.split()]
        print(f"{side:11} {best:6.3f} s (worst {worst:.3f} s)  peak above the inputs {peak:.2f} GB")
    ours, product = results["top 10"], results["product"]
    theirs = results["implicit"]
    print(
        f"{options.users:,} users x {options.items:,} items, one thread: {theirs[0] / ours[0]:.1f} times faster than "
        f"implicit (worst of ours against its best {theirs[0] / ours[1]:.1f}); {ours[0] / product[0]:.1f} times the "
        f"bare product; {CANDIDATES} candidates {theirs[0] / results['candidates'][0]:.1f} times faster than its {K}, "
        f"{K} varied ones of them {theirs[0] / results['varied'][0]:.1f} times (worst of ours against its best "
        f"{theirs[0] / results['varied'][1]:.1f})"
    )


if __name__ == "__main__":
    main()
