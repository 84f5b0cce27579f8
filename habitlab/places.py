"""Where HabitLab keeps what can be made again."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder named by `HABITLAB_CACHE`, or else a folder of the user's caches."""
    return Path(os.environ.get("HABITLAB_CACHE") or platformdirs.user_cache_dir("habitlab", appauthor=False)).absolute()
