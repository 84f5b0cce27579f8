"""Small groups in what is published: a cell of few people is hidden, and what would give it away as well.

The rule, for every report with its figures and CSVs: of people told apart by something personal (gender, age,
experience, whether they answered a question ...) neither number nor mean is shown when they are fewer than `FEWEST`.
All people of a dataset together are no such group: whoever imports a tracker of their own sees all of it.

A hidden cell can be had back from a total and the cells beside it. So a line of a table (a row, a column) never has
exactly one hidden cell, nor hidden cells that together hold fewer people than the limit, and no hidden cell follows
from all totals together: the next smallest is hidden too (complementary suppression; Hundepool et al. 2012, Statistical
Disclosure Control, chapter 4). Where a line holds nobody but the hidden group, its own total must not be shown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from habitlab.dataset.dataset import Dataset
from habitlab.dataset.schema import MissingColumn

FEWEST = 10
"""People below whom a group is not shown."""

Bools = npt.NDArray[np.bool_]


def hidden(counts: npt.ArrayLike, fewest: int = FEWEST, *, totals: bool = True) -> Bools:
    """Say which cells to hide: (groups,) for a list, (rows, columns) for a table.

    Parameters
    ----------
    counts
        People in each cell. A cell of nobody is shown where nothing else is hidden: it tells of nobody. It never serves
        to hide another one.
    totals
        Whether totals of rows and columns are shown or known; else only small cells are hidden.

    Raises
    ------
    ValueError
        A count is negative or no whole number.
    """
    table = np.atleast_2d(np.asarray(counts, dtype=float))
    if not (np.isfinite(table).all() and (table >= 0).all() and (table == np.floor(table)).all()):
        raise ValueError("counts of people are whole numbers, 0 or more")
    hide = (table > 0) & (table < fewest)
    if totals:
        flat = np.ndim(counts) < 2  # a list has one total, that of its only line
        while True:
            before = hide.sum()
            _complete(table, hide, fewest)
            if not flat:
                _complete(table.T, hide.T, fewest)
            if hide.sum() == before and not _open_one(table, hide, flat=flat):
                break
    return hide.reshape(np.shape(counts))


def _complete(table: npt.NDArray[np.float64], hide: Bools, fewest: int) -> None:
    """Hide one more cell in each line that would give itself away, in place."""
    for line, concealed in zip(table, hide, strict=True):
        while concealed.any() and (concealed.sum() < 2 or line[concealed].sum() < fewest):
            others = np.flatnonzero(~concealed & (line > 0))
            if not others.size:
                concealed[:] = True  # alone in its line: the total is hidden with it
                break
            concealed[others[np.argmin(line[others])]] = True


def _open_one(table: npt.NDArray[np.float64], hide: Bools, *, flat: bool) -> bool:
    """Hide one more cell beside one that all totals together give away, in place; whether there was any."""
    known = recoverable(table[0] if flat else table, hide[0] if flat else hide).reshape(hide.shape)
    for row, column in np.argwhere(known & (table > 0)):
        beside = np.zeros_like(hide)
        beside[row], beside[:, column] = True, True
        places = np.argwhere(beside & ~hide & (table > 0))
        if len(places):
            hide[tuple(places[np.argmin(table[tuple(places.T)])])] = True
            return True
    return False


def suppress(
    frame: pd.DataFrame, count: str, values: list[str], *, by: tuple[str, str] | None = None, fewest: int = FEWEST,
    totals: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Return a table without what small groups would tell, with a column `suppressed`.

    Parameters
    ----------
    frame
        A row a group.
    count
        Column with the number of people; it is hidden as well.
    values
        Columns with what is told of the group.
    by
        The two columns that span a table, where rows are its cells; None for a list with one total.
    """
    if by is None:
        hide = hidden(frame[count].to_numpy(), fewest, totals=totals)
    else:
        row, rows = pd.factorize(frame[by[0]])
        column, columns = pd.factorize(frame[by[1]])
        table = np.zeros((len(rows), len(columns)))
        table[row, column] = frame[count]
        hide = hidden(table, fewest, totals=totals)[row, column]
    shown: dict[str, Any] = {name: frame[name].astype("float64").mask(hide) for name in [count, *values]}
    return frame.assign(**shown, suppressed=hide)


def may_show_one(dataset: Dataset) -> None:
    """Raise `MissingColumn` where single people must not be shown: only made-up ones, and oneself, may be.

    One person is the smallest group there is.
    """
    if not dataset.simulated and len(dataset.users) > 1:
        people = f"{len(dataset.users):,} real people"
        raise MissingColumn(f"single people are withheld: shown of simulated data or one's own, not of {people}")


def recoverable(counts: npt.ArrayLike, hide: npt.ArrayLike) -> Bools:
    """Say which hidden cells follow exactly from the shown ones and all totals: none should.

    By linear algebra: the hidden cells are the unknowns, rows and columns the equations, and an unknown follows if
    every solution agrees on it. Whole numbers and signs can tell more, so this is a lower limit of what can be known.
    """
    table, concealed = np.atleast_2d(np.asarray(counts, dtype=float)), np.atleast_2d(np.asarray(hide, dtype=bool))
    row, column = np.nonzero(concealed)
    equations = [row == line for line in range(len(table))]
    if np.ndim(counts) == 2:
        equations += [column == line for line in range(table.shape[1])]
    system = np.array(equations, dtype=float).reshape(len(equations), len(row))
    found = np.zeros(concealed.shape, dtype=bool)
    if len(row):
        _, sizes, directions = np.linalg.svd(system, full_matrices=True)
        free = directions[int((sizes > 1e-9).sum()) :]
        found[row, column] = np.abs(free).sum(axis=0) < 1e-9 if len(free) else True
    return found.reshape(np.shape(counts))
