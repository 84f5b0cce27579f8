"""Completion rates that do not trust three days as much as three hundred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats


@dataclass(frozen=True)
class RatePrior:
    """Beta distribution of the completion rate over user-habit pairs; alpha + beta is its weight in days.

    The default, Beta(1, 1), knows nothing of any data: each rate is equally likely.
    """

    alpha: float = 1.0
    beta: float = 1.0

    @classmethod
    def fit(cls, done: np.ndarray, counted: np.ndarray) -> RatePrior:
        """Maximum-likelihood Beta-binomial fit to `done` of `counted` days, one element a pair.

        Source: Skellam 1948, J. R. Stat. Soc. B 10:257. The weight alpha + beta is kept between 0.1 and 10,000 days,
        for pairs that are all alike have no finite one. Fewer than two pairs with a counted day give the default.
        """
        known = np.asarray(counted) > 0
        cases, weight = np.unique(
            np.column_stack([np.asarray(done)[known], np.asarray(counted)[known]]).astype(float),
            axis=0,
            return_counts=True,
        )
        if weight.sum() < 2:
            return cls()
        done, counted = cases.T
        rate = np.clip(weight @ done / (weight @ counted), 1e-3, 1 - 1e-3)

        def loss(x: np.ndarray) -> float:
            mean, size = special.expit(x[0]), np.exp(x[1])
            alpha, beta = mean * size, (1 - mean) * size
            likelihood = special.betaln(alpha + done, beta + counted - done) - special.betaln(alpha, beta)
            return float(-(weight @ likelihood) / weight.sum())

        bounds = [(-9.0, 9.0), (np.log(0.1), np.log(1e4))]
        mean, size = optimize.minimize(loss, [special.logit(rate), np.log(5.0)], bounds=bounds).x
        return cls(float(special.expit(mean) * np.exp(size)), float(special.expit(-mean) * np.exp(size)))

    def shrink(self, done: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """Posterior mean (alpha + done) / (alpha + beta + counted)."""
        return (self.alpha + done) / (self.alpha + self.beta + counted)

    def interval(self, done: np.ndarray, counted: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Equal-tailed posterior interval at `level` (0 < level < 1): low, high."""
        if not 0 < level < 1:
            raise ValueError(f"level is a share between 0 and 1, such as 0.95; got {level}")
        alpha, beta = self.alpha + done, self.beta + counted - done
        return stats.beta.ppf((1 - level) / 2, alpha, beta), stats.beta.ppf((1 + level) / 2, alpha, beta)
