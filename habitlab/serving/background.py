"""Work that goes on beside the requests."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Callable


def repeat(
    work: Callable[[], object], every: float, stop: threading.Event, *, name: str, failing: Callable[[Exception], None]
) -> threading.Thread:
    """Do `work` every so many seconds in a thread until `stop`; `failing` hears of the first failure of each row."""

    def run() -> None:
        told = False
        while not stop.wait(every):
            try:
                work()
                told = False
            except (sqlite3.Error, OSError, ValueError) as error:
                if not told:
                    failing(error)
                told = True

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def settle() -> None:
    """Keep the collector off all that lives now, above all the model: to look through it stops every answer for 0.2 s.

    What was kept off before and is garbage by now, such as a former model, goes.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
