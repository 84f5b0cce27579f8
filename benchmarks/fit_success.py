"""The success model on the default data: seconds for each step, and what its probabilities are worth.

Run `python benchmarks/fit_success.py [DATASET]` after `make data`. With the truth beside the dataset it also tells what
the features that are known on registration could say at best: trees fitted to the true probability of every pair, for
users they have not seen.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from habitlab.dataset import Dataset
from habitlab.models.pairs import History, grid_columns, no_history, read_habits, read_profiles
from habitlab.models.reliability import evaluate
from habitlab.models.storage import save
from habitlab.models.success import SuccessModel
from habitlab.simulation import load_truth


def timed(what: str, call: Callable[[], Any], repeat: int = 1) -> Any:
    """Print how long a call takes on average, and return what it returns."""
    begin = time.perf_counter()
    for _ in range(repeat):
        result = call()
    print(f"{what:58} {(time.perf_counter() - begin) / repeat * 1000:10.2f} ms")
    return result


def ceiling(dataset: Dataset, path: Path) -> None:
    """Print the AUC of the true probability, and of the best guess of it from what a form tells."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.metrics import roc_auc_score

    truth = load_truth(path)
    users, habits = len(dataset.users), len(dataset.habits)
    known = read_habits(dataset) | {name: np.full(habits, np.nan) for name in ("habit_completion", "habit_success")}
    columns = grid_columns(read_profiles(dataset.users) | no_history(users), known)
    columns[np.isnan(columns).reshape(len(columns), -1).all(axis=1)] = 0.0
    chance = truth["success_probability"].to_numpy(dtype=float).reshape(users, habits)
    outcome, guess = truth["success"].to_numpy().reshape(users, habits), np.empty((users, habits))
    fold = np.random.default_rng(0).permutation(users) % 3
    for own in range(3):
        seen, new = fold != own, fold == own
        trees = HistGradientBoostingRegressor(max_iter=150, max_leaf_nodes=15)
        trees.fit(columns[:, seen].reshape(len(columns), -1).T, chance[seen].ravel())
        guess[new] = trees.predict(columns[:, new].reshape(len(columns), -1).T).reshape(-1, habits)
    print("\nAUC over all pairs of users and habits, as of registration")
    for name, score in (("true probability", chance), ("best guess of it from the form and the habit", guess)):
        print(f"{name:58} {roc_auc_score(outcome.ravel(), score.ravel()):10.3f}")


def main() -> None:
    """Print it all."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "data/habittrack.db")
    dataset = timed("read the dataset", lambda: Dataset.load(path))
    import sklearn.calibration  # its import is no part of the fit
    import sklearn.ensemble  # noqa: F401

    timed("history of everything", lambda: History(dataset))
    model = timed("fit", lambda: SuccessModel().fit(dataset))
    timed(f"score {len(dataset.users):,} users x {len(dataset.habits)} habits", model.score)
    one = [model.user_ids_[0]]
    model.score(one)
    timed(f"score one user x {len(dataset.habits)} habits", lambda: model.score(one), 200)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "success.model"
        timed("save", lambda: save(model, file, kind="success"))
        script = f"from habitlab.models.storage import load; load({str(file)!r}).score([{one[0]!r}])"
        timed(
            "new process: load, and score one user", lambda: subprocess.run([sys.executable, "-c", script], check=True)
        )
        print(f"{'size of the file':58} {file.stat().st_size / 1e6:10.2f} MB")
    for split in ("grouped", "temporal"):
        begin = time.perf_counter()
        found = evaluate(dataset, split=split, resamples=200)
        cut = "" if found.split == "grouped" else f", from {found.cut:%Y-%m-%d} on"
        print(f"\n{found.split} split{cut}: {len(found.predictions):,} pairs, {time.perf_counter() - begin:.1f} s")
        print(found.note or f"base rate {found.base_rate:.3f}")
        print(found.metrics.pivot_table(index="model", columns="metric", values="estimate").round(4).to_string())
        print(found.differences.drop(columns=["level", "n", "users"]).round(4).to_string(index=False))
        print(found.groups.round(3).to_string(index=False))
    if dataset.simulated:
        ceiling(dataset, path)


if __name__ == "__main__":
    main()
