"""What the names of metrics hide: toolkits compute different things by one name, here for the same lists.

Who computes what, and how it was found out, stands in `docs/metrics.md`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.evaluation import leaderboard, metrics
from habitlab.evaluation.ranked_lists import checked, found_blocks
from habitlab.evaluation.splits import Split
from habitlab.evaluation.tables import exact


def definitions(listed: npt.NDArray[np.int32], split: Split, k: int, **draw: Any) -> pd.DataFrame:
    """Mean of metrics of one name by definitions that differ, on the same lists (`docs/metrics.md`).

    Columns: metric, definition, toolkits, estimate, ci_low, ci_high, n, ours (bool).
    """
    lists, truth = checked(listed, split.relevant, k)
    hit = np.concatenate([found for _, found in found_blocks(lists, truth, k, gains=False)]).astype(float)
    hit = np.pad(hit, ((0, 0), (0, k - hit.shape[1])))
    number, rank = truth.number.astype(float), np.arange(1, k + 1)
    ours = metrics.several_at_k(
        lists, split.relevant, k, ["ndcg", "recall", "capped_recall", "precision", "average_precision"]
    )
    discount, lenient = 1 / np.log2(rank + 1), 1 / np.log2(np.maximum(rank, 2))
    best_of = np.append(0, np.cumsum(lenient))[np.minimum(truth.number, k)]
    precisions = (np.cumsum(hit, axis=1) / rank * hit).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = [
            ("NDCG", "best list: own habits", "HabitLab, ranx, RecBole, scikit-learn", ours["ndcg"]),
            ("NDCG", "best list: k habits", "RecTools", hit @ discount / discount.sum()),
            ("NDCG", "ranks 1 and 2 alike", "LensKit", hit @ lenient / best_of),
            ("NDCG", "0 if nothing was taken up", "ranx, over all queries", np.nan_to_num(ours["ndcg"])),
            ("recall", "hits / relevant", "HabitLab, RecTools, ranx, RecBole", ours["recall"]),
            ("recall", "hits / min(k, relevant)", "LensKit; here capped recall", ours["capped_recall"]),
            ("precision", "hits / k", "HabitLab, RecTools, ranx, RecBole", ours["precision"]),
            ("precision", "hits / min(k, relevant)", "RecTools with r_precision", ours["capped_recall"]),
            ("average precision", "/ min(k, relevant)", "HabitLab, RecBole", ours["average_precision"]),
            ("average precision", "/ relevant", "RecTools, ranx, Evidently", precisions / number),
            ("average precision", "/ k", "RecTools with divide_by_k", precisions / k),
        ]
    table = pd.DataFrame(rows, columns=["metric", "definition", "toolkits", "values"])
    undefined = np.isnan(ours["ndcg"])
    values = np.column_stack([
        values if "0 if" in definition else np.where(undefined, np.nan, values)
        for definition, values in zip(table["definition"], table["values"], strict=True)
    ])  # fmt: skip
    level = draw.pop("level")
    means = leaderboard.means(values, **draw)
    ends = [mean.interval(level) for mean in means]
    return table.drop(columns="values").assign(
        estimate=[mean.estimate[0] for mean in means],
        ci_low=[low[0] for low, _ in ends],
        ci_high=[high[0] for _, high in ends],
        n=[mean.n for mean in means],
        ours=table["toolkits"].str.startswith("HabitLab"),
    )


def spread(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Findings of `definitions`: the lowest, our and the highest NDCG of the same lists, and who computes them."""
    rows = table[table["metric"] == "NDCG"]
    found = {
        "ndcg_lowest": (rows.loc[rows["estimate"].idxmin()], "The lowest NDCG of these lists"),
        "ndcg_ours": (rows[rows["ours"]].iloc[0], "Our NDCG of these lists"),
        "ndcg_highest": (rows.loc[rows["estimate"].idxmax()], "The highest NDCG of these lists"),
    }
    how = "the same lists of the blend, other definitions"
    return [
        exact(key, f"{label} ({row['toolkits']}: {row['definition']})", row["estimate"], n=int(row["n"]), method=how)
        for key, (row, label) in found.items()
    ]
