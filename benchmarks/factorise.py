"""Truncated SVD and EASE of 100,000 users x 500 habits, beside scikit-learn's TruncatedSVD on the same matrix.

Run `python benchmarks/factorise.py [USERS] [ITEMS]`: one thread, wall-clock seconds, peak memory of the process.
"""

from __future__ import annotations

import argparse
import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import resource
import time

import numpy as np
from scipy import sparse

from habitlab.models.collaborative import ease, truncated_svd


def main() -> None:
    """Time each factorisation three times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("users", type=int, nargs="?", default=100_000)
    parser.add_argument("items", type=int, nargs="?", default=500)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    shape = (options.users, options.items)
    matrix = sparse.csr_array(sparse.random_array(shape, density=6 / options.items, format="csr", rng=generator))

    from sklearn.decomposition import TruncatedSVD

    solvers = {
        "truncated SVD": lambda: truncated_svd(matrix, 20),
        "EASE": lambda: ease(matrix),
        "scikit-learn's TruncatedSVD": lambda: TruncatedSVD(20, random_state=0).fit(matrix),
    }
    for name, solve in solvers.items():
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            solve()
            seconds.append(time.perf_counter() - start)
        print(f"{name:28} {min(seconds):6.2f} s (worst {max(seconds):.2f} s)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.users:,} users x {options.items:,} items, {matrix.nnz:,} interactions; peak {peak:.2f} GB in all")


if __name__ == "__main__":
    main()
