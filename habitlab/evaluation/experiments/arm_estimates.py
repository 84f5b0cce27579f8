"""Two samples, one value a unit each: what they differ by, with interval and test.

For means, ratios and proportions, for units in one arm or in both, with or without a covariate. `experiments` brings
rows together by unit and calls these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UNLIKELY = 0.001
"""P-value below which randomisation is taken to be broken."""


@dataclass(frozen=True)
class ArmEstimate:
    """What the arm differs by from the control; fields as in `experiments.Comparison`, NaN where unknown."""

    difference: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    p_value: float = float("nan")
    method: str = "none"
    means: tuple[float, float] = (float("nan"), float("nan"))
    standard_error: float = float("nan")
    degrees: float = float("nan")
    hedges_g: float = float("nan")
    risk_ratio: tuple[float, float, float] = (float("nan"), float("nan"), float("nan"))
    variance_kept: float = 1.0


def linearised(top: Floats, bottom: Floats, analysed: Bools) -> Floats:
    """Values by unit (units, 2) whose means are the arms' ratios and whose spread is that of the delta method."""
    top, bottom = np.where(analysed, top, 0), np.where(analysed, bottom, 0)
    n, whole = analysed.sum(axis=0), bottom.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = top.sum(axis=0) / whole
        return ratio + (top - ratio * bottom) / (whole / n)


def cuped(samples: list[Floats], x: list[Floats], within: bool, notes: list[str]) -> tuple[list[Floats], float]:
    """Samples less what the covariate foretells, and the share of variance that is left."""
    known = np.concatenate([part[np.isfinite(part)] for part in x])
    middle = 0.0 if within else (float(known.mean()) if len(known) else 0.0)
    x = [np.where(np.isfinite(part), part, middle) for part in x]
    away = np.concatenate([part - part.mean() for part in x])
    spread = (away**2).sum()
    if spread <= 1e-18 * max(1.0, float((np.concatenate(x) ** 2).sum())):
        notes.append("the covariate does not vary" + (" within units" if within else "") + ": no adjustment")
        return samples, 1.0
    if not within and min(map(len, x)) > 1 and stats.ttest_ind(*x, equal_var=False).pvalue < UNLIKELY:
        notes.append("the covariate differs between the arms: it must be known before exposure")
    centred = np.concatenate([part - part.mean() for part in samples])
    slope = (centred * away).sum() / spread
    adjusted = [part - slope * (one - middle) for part, one in zip(samples, x, strict=True)]
    before = (centred**2).sum()
    after = sum(((part - part.mean()) ** 2).sum() for part in adjusted)
    return adjusted, float(after / before) if before > 0 else 1.0


def welch(
    samples: list[Floats],
    scale: float,
    means: tuple[float, float],
    level: float,
    method: str,
    kept: float,
    ratio: bool,
    notes: list[str],
) -> ArmEstimate:
    """Welch's test of two samples, or the t-test of one sample of differences."""
    sizes = np.array([len(sample) for sample in samples])
    centre = np.array([sample.mean() for sample in samples])
    difference = float(centre[-1] - (centre[0] if len(samples) == 2 else 0.0))
    if sizes.min() < 2:
        notes.append("a single unit: its spread cannot be told, so there is no interval")
        return ArmEstimate(difference, method=method, means=means, variance_kept=kept)
    variance = np.array([sample.var(ddof=1) for sample in samples])
    if (variance <= (1e-10 * max(scale, 1e-300)) ** 2).all():
        notes.append("the outcome does not vary within arms: there is no interval and no test")
        return ArmEstimate(difference, method=method, means=means, variance_kept=kept)
    share = variance / sizes
    error = float(np.sqrt(share.sum()))
    # The covariate's slope was estimated from the same units.
    degrees = float(1 / ((share / share.sum()) ** 2 / (sizes - 1)).sum()) - (kept < 1)
    degrees = max(degrees, 1.0)
    reach = float(stats.t.ppf((1 + level) / 2, degrees)) * error
    p_value = float(2 * stats.t.sf(abs(difference) / error, degrees))
    standardised = float("nan")
    if len(samples) == 2 and not ratio:
        pooled = float(np.sqrt(((sizes - 1) * variance).sum() / (sizes.sum() - 2) / max(kept, 1e-300)))
        standardised = float(difference / pooled * (1 - 3 / (4 * (sizes.sum() - 2) - 1)))
    return ArmEstimate(
        difference,
        difference - reach,
        difference + reach,
        p_value,
        method,
        means,
        error,
        degrees,
        hedges_g=standardised,
        variance_kept=kept,
    )


def proportions(control: Floats, treated: Floats, level: float, notes: list[str]) -> ArmEstimate:
    """Two proportions by score: their interval holds 0 just where the test does not reject."""
    counts = (int(treated.sum()), len(treated), int(control.sum()), len(control))
    p0, p1 = float(control.mean()), float(treated.mean())
    if p0 == p1 and p0 in (0.0, 1.0):
        notes.append(f"every unit of both arms is {p0:g}: the interval says what that many units can exclude")
    low, high = score_interval(*counts, level=level)
    p_value = float(2 * stats.norm.sf(abs(_score(*counts, 0.0)))) if p0 != p1 else 1.0
    risk = (float("nan"),) * 3
    if counts[0] and counts[2]:  # Katz et al. 1978, on the logarithm
        error = np.sqrt((1 - p1) / counts[0] + (1 - p0) / counts[2])
        reach = np.exp(stats.norm.ppf((1 + level) / 2) * error)
        risk = (p1 / p0, float(p1 / p0 / reach), float(p1 / p0 * reach))
    error = float(np.sqrt(p1 * (1 - p1) / counts[1] + p0 * (1 - p0) / counts[3]))
    method = "two proportions, score"
    return ArmEstimate(p1 - p0, low, high, p_value, method, (p0, p1), error, counts[1] + counts[3] - 2, risk_ratio=risk)


def score_interval(x1: int, n1: int, x0: int, n0: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of p1 - p0 by inverting the score test (Miettinen & Nurminen 1985, doi:10.1002/sim.4780040211)."""
    z, difference = stats.norm.ppf((1 + level) / 2), x1 / n1 - x0 / n0

    def end(edge: float) -> float:
        outside, inside = edge, difference
        if abs(_score(x1, n1, x0, n0, edge)) <= z:
            return edge
        for _ in range(60):
            middle = (outside + inside) / 2
            if abs(_score(x1, n1, x0, n0, middle)) > z:
                outside = middle
            else:
                inside = middle
        return inside

    return end(-1.0), end(1.0)


def _score(x1: int, n1: int, x0: int, n0: int, gap: float) -> float:
    """Score statistic of p1 - p0 = gap, both proportions at their likeliest under it: a root of a cubic in p0."""
    away, n, x = x1 / n1 - x0 / n0 - gap, n1 + n0, x1 + x0
    a = ((n1 + 2 * n0) * gap - n - x) / (3 * n)
    b, c = ((n0 * gap - n - 2 * x0) * gap + x) / (3 * n), x0 * gap * (1 - gap) / (2 * n)
    q = a**3 - 1.5 * a * b + c
    radius = np.copysign(np.sqrt(max(a * a - b, 0.0)), q)
    angle = (np.pi + np.arccos(np.clip(q / radius**3, -1, 1))) / 3 if radius else 0.0
    p0 = np.clip(2 * radius * np.cos(angle) - a, max(0.0, -gap), min(1.0, 1.0 - gap))
    p1 = np.clip(p0 + gap, 0.0, 1.0)
    variance = (p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0) * n / (n - 1)
    if variance <= 1e-15:
        return 0.0 if abs(away) < 1e-12 else float(np.copysign(np.inf, away))
    return float(away / np.sqrt(variance))
