"""Boosted trees as plain arrays: stored without pickle, scored without importing scikit-learn, explained by shap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from habitlab.models import Floats

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

Ints = npt.NDArray[np.int64]

_FEW = 4096  # rows below which numpy is faster than to import and call scikit-learn
_LEAF = -1


@dataclass(frozen=True, eq=False)
class Trees:
    """A sum of binary trees over numeric features; the value of a row is `base` plus its leaf of every tree.

    Nodes of all trees stand one after the other (nodes,), each tree's from its root on; `roots` (trees,) says where
    they begin. A row goes to node `left` where its feature is at most `threshold`, or missing and `missing_left`,
    otherwise to the node behind that one. A leaf has feature -1 and leads to itself. `value` is that of leaves, `count`
    the training rows of each node, `depth` the longest way to a leaf.
    """

    base: float
    depth: int
    features: int
    roots: Ints
    feature: Ints
    threshold: Floats
    missing_left: npt.NDArray[np.bool_]
    left: Ints
    value: Floats
    count: Floats

    @classmethod
    def of(cls, model: HistGradientBoostingClassifier) -> Trees:
        """Take over a fitted binary classifier without categorical features: what it raises to log-odds."""
        if model.is_categorical_ is not None and model.is_categorical_.any():
            raise ValueError(
                "trees over categorical features are not supported: give ordered numbers or one column each"
            )
        parts = [_by_depth(stage[0].nodes) for stage in model._predictors]
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        roots, nodes = np.cumsum(sizes) - sizes, np.concatenate(parts)
        leaf = nodes["is_leaf"].astype(bool)
        return cls(
            base=float(np.ravel(model._baseline_prediction)[0]),
            depth=int(nodes["depth"].max()),
            features=int(model.n_features_in_),
            roots=roots,
            feature=np.where(leaf, _LEAF, nodes["feature_idx"]),
            # A leaf leads every row to itself, which is to its own left.
            threshold=np.where(leaf, np.inf, nodes["num_threshold"]),
            missing_left=leaf | nodes["missing_go_to_left"].astype(bool),
            left=np.where(leaf, np.arange(len(nodes)), nodes["left"] + np.repeat(roots, sizes)),
            value=nodes["value"].astype(np.float64),
            count=nodes["count"].astype(np.float64),
        )

    def log_odds(self, columns: Floats) -> Floats:
        """Value of each row (n,); `columns` (features, n), NaN where missing.

        Raises
        ------
        ValueError
            A feature is infinite, or there are more or fewer features than the trees know.
        """
        if len(columns) != self.features:
            raise ValueError(f"the trees were grown on {self.features} features; got {len(columns)}")
        if np.isinf(columns).any():
            raise ValueError(
                f"{int(np.isinf(columns).any(axis=1).sum())} features hold infinite values; missing is NaN"
            )
        return self._few(columns) if columns.shape[1] <= _FEW else self._many(columns)

    def _few(self, columns: Floats) -> Floats:
        n = columns.shape[1]
        # Missing values as they go left (-inf is below every threshold) and as they go right (NaN is below none).
        both = np.concatenate([columns, np.where(np.isnan(columns), -np.inf, columns)])
        place = np.maximum(self.feature, 0) + np.where(self.missing_left, len(columns), 0)
        values, offset, row = both.ravel(), place * n, np.arange(n)
        node = self.left[self.roots, None] + ~(both[place[self.roots]] <= self.threshold[self.roots, None])
        node = np.where(self.feature[self.roots, None] == _LEAF, self.roots[:, None], node)
        for _ in range(self.depth - 1):
            goes_right = ~(values.take(offset.take(node) + row) <= self.threshold.take(node))
            node = self.left.take(node) + goes_right
        total = np.full(n, self.base)
        for values in self.value.take(node):  # tree by tree, so that the last bits are those of the compiled walk
            total += values
        return total

    def _many(self, columns: Floats) -> Floats:
        # The compiled walk of scikit-learn is several times faster, but its import takes a second.
        from sklearn.ensemble._hist_gradient_boosting.predictor import PREDICTOR_RECORD_DTYPE, TreePredictor

        rows = np.ascontiguousarray(columns.T)
        nodes = np.zeros(len(self.value), dtype=PREDICTOR_RECORD_DTYPE)
        shift = np.repeat(self.roots, np.diff(self.roots, append=len(self.value)))
        nodes["is_leaf"], nodes["feature_idx"] = self.feature == _LEAF, np.maximum(self.feature, 0)
        nodes["num_threshold"], nodes["missing_go_to_left"] = self.threshold, self.missing_left
        nodes["left"], nodes["right"], nodes["value"] = self.left - shift, self.left - shift + 1, self.value
        none = np.zeros((0, 8), dtype=np.uint32)
        total = np.full(len(rows), self.base)
        for begin, stop in zip(self.roots, [*self.roots[1:], len(nodes)], strict=True):
            tree = TreePredictor(nodes[begin:stop], none, none)
            total += tree.predict(rows, none, np.zeros(self.features, dtype=np.uint32), 1)
        return total

    def for_shap(self) -> dict[str, Any]:
        """Return the trees as `shap.TreeExplainer` takes them."""
        trees = []
        for begin, stop in zip(self.roots, [*self.roots[1:], len(self.value)], strict=True):
            here = slice(begin, stop)
            leaf = self.feature[here] == _LEAF
            left = np.where(leaf, _LEAF, self.left[here] - begin)
            right = np.where(leaf, _LEAF, left + 1)
            trees.append(
                {
                    "children_left": left.astype(np.int32),
                    "children_right": right.astype(np.int32),
                    "children_default": np.where(self.missing_left[here], left, right).astype(np.int32),
                    "features": self.feature[here].astype(np.int32),
                    "thresholds": np.where(leaf, 0.0, self.threshold[here]),
                    "values": self.value[here][:, None],
                    "node_sample_weight": self.count[here],
                }
            )
        return {"trees": trees, "base_offset": self.base, "tree_output": "log_odds", "objective": "binary_crossentropy",
                "input_dtype": np.float64, "internal_dtype": np.float64}  # fmt: skip


def _by_depth(nodes: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Put the nodes of one tree into order from the root on, the two children of a node side by side."""
    order = [0]
    left = np.zeros(len(nodes), dtype=nodes["left"].dtype)
    for place, node in enumerate(order):  # grows while it is read
        if not nodes["is_leaf"][node]:
            left[place] = len(order)
            order += [int(nodes["left"][node]), int(nodes["right"][node])]
    ordered = nodes[order]
    ordered["left"] = left
    return ordered
