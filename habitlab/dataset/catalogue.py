"""The built-in habit catalogue: real, safe habits in English and Russian, balanced so that effects can be told apart.

In every category the bands of minutes hold the same number of habits, and difficulty, target and time of day are
spread alike over categories and minutes: duration, difficulty and category are not confounded by construction.
"""

import re
import unicodedata
from importlib.resources import files

import pandas as pd

from habitlab.dataset.schema import TABLES, coerce

_LIST_SEPARATOR = ";"


def load_catalogue() -> pd.DataFrame:
    """Return the catalogue as a `habits` table: a row per habit, in the dtypes of the contract.

    Lists are Python lists (no prerequisite is an empty list); `unit`, `target_value` and `target_direction` are
    missing for habits that are done or not done.
    """
    with (files("habitlab.dataset") / "catalogue.csv").open(encoding="utf-8") as file:
        habits = pd.read_csv(file, dtype={"habit_id": "str"}, keep_default_na=False, na_values=[""])
    lists = [name for name, column in TABLES["habits"].columns.items() if column.kind == "list"]
    for name in lists:
        habits[name] = [text.split(_LIST_SEPARATOR) if text else [] for text in habits[name].fillna("")]
    return coerce("habits", habits)


def normalise_name(name: str) -> str:
    """Return a name in the form in which two names of one habit are equal.

    Unicode NFKC, case folded, `ё` as `е`, everything but letters and digits as one space. A name without any letter
    or digit (an emoji) stays as it is.

    >>> normalise_name("  Drink WATER, after waking! ")
    'drink water after waking'
    """
    folded = unicodedata.normalize("NFKC", name).casefold().replace("ё", "е")
    return re.sub(r"[\W_]+", " ", folded).strip() or folded.strip()
