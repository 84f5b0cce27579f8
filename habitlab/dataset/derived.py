"""Scales derived from stored columns: defined once here, used by the simulated world and by every analysis."""

import numpy as np
import pandas as pd

MINUTE_BANDS = ("under 5", "5 to 15", "15 to 20", "20 to 30", "over 30")
"""Bands of a habit's minutes. Both ends of "5 to 15" belong to it; of the later ones only the upper end does."""

COMMITMENT_BANDS = ("very low", "low", "medium", "high")
"""Bands of a user's minutes a day: up to 5, up to 10, up to 20, more; the form's options without its gaps."""

_MINUTE_EDGES = (15.0, 20.0, 30.0)  # upper ends, inclusive, after the open end at 5
_COMMITMENT_EDGES = (5.0, 10.0, 20.0)  # upper ends, inclusive


def minutes_code(minutes: pd.Series) -> pd.Series:
    """Ordinal code 1-5 of a habit's minutes, the position in `MINUTE_BANDS`; missing stays missing (float64)."""
    values = minutes.to_numpy(dtype=float, na_value=np.nan)
    code = 1.0 + (values >= 5) + np.searchsorted(_MINUTE_EDGES, values, side="left")
    return pd.Series(np.where(np.isnan(values), np.nan, code), index=minutes.index, name="minutes_code")


def minutes_band(minutes: pd.Series) -> pd.Series:
    """Ordered category of a habit's minutes with the labels of `MINUTE_BANDS`; missing stays missing."""
    code = minutes_code(minutes).fillna(0).to_numpy(dtype=int) - 1
    bands = pd.Categorical.from_codes(code, categories=list(MINUTE_BANDS), ordered=True)
    return pd.Series(bands, index=minutes.index, name="minutes_band")


def commitment_code(time_commitment: pd.Series) -> pd.Series:
    """Ordinal code 1-4 of a user's minutes a day, the position in `COMMITMENT_BANDS` (float64, NaN if missing)."""
    values = time_commitment.to_numpy(dtype=float, na_value=np.nan)
    code = 1.0 + np.searchsorted(_COMMITMENT_EDGES, values, side="left")
    return pd.Series(np.where(np.isnan(values), np.nan, code), index=time_commitment.index, name="commitment_code")


def complexity(habits: pd.DataFrame) -> pd.Series:
    """Ordinal complexity 1-5 of each habit: difficulty (1-5) and minutes band (1-5), weighted alike.

    Their sum runs from 2 to 10; 2-3, 4-5, 6, 7-8 and 9-10 are codes 1 to 5, so that the scale is symmetric.
    Needs the columns `difficulty` and `minutes`; NaN where either is missing (float64, index of `habits`).
    """
    difficulty = habits["difficulty"].to_numpy(dtype=float, na_value=np.nan)
    total = difficulty + minutes_code(habits["minutes"]).to_numpy()
    code = 1.0 + np.searchsorted((3.0, 5.0, 6.0, 8.0), total, side="left")
    return pd.Series(np.where(np.isnan(total), np.nan, code), index=habits.index, name="complexity")


AGE_BANDS = {"under 18": 13, "18 to 24": 18, "25 to 39": 25, "40 to 59": 40, "60 and over": 60}
"""Bands of a user's age, each with its first year; the last one is open."""


def age_band(age: pd.Series) -> pd.Series:
    """Ordered category of users' ages with the labels of `AGE_BANDS`; missing, and below the first, stays missing."""
    return pd.cut(age, [*AGE_BANDS.values(), np.inf], labels=list(AGE_BANDS), right=False).rename("age_band")
