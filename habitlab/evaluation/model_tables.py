"""What report 04 shows of the fitted models: their insides as tables, and their worth as findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse, special

from habitlab.dataset import Dataset, MissingColumn
from habitlab.dataset.analyses import FEWEST
from habitlab.dataset.small_groups import suppress
from habitlab.evaluation import estimates, leaderboard, splits
from habitlab.evaluation.estimates import Estimate, Floats, Resampled
from habitlab.evaluation.leaderboard import Scorer
from habitlab.evaluation.splits import Split
from habitlab.evaluation.tables import exact
from habitlab.features.abandonment import AbandonmentHazard, integrated_brier_score, kaplan_meier, time_dependent_auc
from habitlab.features.as_of import end_of, event_days
from habitlab.features.interaction import cross_habit_influence
from habitlab.models import reliability
from habitlab.models.collaborative import CollaborativeModel
from habitlab.models.content import WEIGHTS, ContentModel
from habitlab.models.interactions import LIVED
from habitlab.models.pairs import FEATURES, NAMES, LabelledPairs, label_pairs
from habitlab.models.reliability import Evaluation
from habitlab.models.success import Fitted, too_few, train
from habitlab.recommender.candidates import with_catalogue

_USERS_OF_SPECTRUM = 5000  # enough for a few hundred habits, and shuffled in a moment
_DRAWS_OF_SURVIVAL = 200  # of people, for scores that have no closed form in sums


def history_until(dataset: Dataset, share: float) -> Split:
    """Temporal split at the day on which this share of the tracked days is over.

    Of fewer than ten people, or where nothing comes before that day, everything is known and nothing is left to
    predict: the split has no users.
    """
    day = dataset.habit_tracking["date"]
    if len(dataset.users) >= FEWEST and len(day):
        until = (day.min() + share * (day.max() - day.min())).normalize()
        if until > day.min():
            return splits.temporal(dataset, until)
    nobody = sparse.csr_array((0, len(dataset.habits)))
    habits = dataset.habits["habit_id"].to_numpy(dtype=object)
    return Split(dataset, nobody, nobody.astype(bool), np.array([], dtype=object), habits, None)


def ndcg(models: Mapping[str, Scorer], dataset: Dataset, split: Split, k: int = 10) -> pd.DataFrame:
    """NDCG@k of each user, as `leaderboard.per_user`; those without a later adoption are NaN.

    Raises `MissingColumn` where fewer than ten people take up another habit later.
    """
    people = int((np.diff(split.relevant.indptr) > 0).sum())
    if people < FEWEST:
        when = "later" if split.until is None else f"from {split.until:%Y-%m-%d} on"
        raise MissingColumn(
            f"needs people who took up another habit {when}: {people} did, at least {FEWEST} are needed"
        )
    values = leaderboard.per_user(models, dataset, split, k)
    return values.loc[:, values.columns.get_level_values("metric") == f"ndcg@{k}"]


def compared(values: pd.DataFrame, references: Sequence[str], **draw: Any) -> pd.DataFrame:
    """Every model less each of the `references`, one below the other; see `leaderboard.differences`."""
    return pd.concat([leaderboard.differences(values, one, **draw) for one in references], ignore_index=True)


def chosen(
    table: pd.DataFrame, *, key: str, label: str, unit: str, method: str, level: float, **where: Any
) -> Estimate:
    """Make an `Estimate` of the one row of a tidy frame (estimate, ci_low, ci_high, n) with these values.

    Raises `MissingColumn` where no row fits.
    """
    fits = np.logical_and.reduce([table[column] == value for column, value in where.items()], axis=0)
    rows = table[fits] if where else table
    if len(rows) != 1:
        raise MissingColumn(f"needs data on {' and '.join(map(str, where.values()))}; there are {len(rows)} rows")
    row = rows.iloc[0]
    known = np.isfinite(row["ci_low"])
    return Estimate(
        key=key,
        label=label,
        estimate=float(row["estimate"]),
        ci_low=float(row["ci_low"]),
        ci_high=float(row["ci_high"]),
        level=level,
        n=int(row["n"]),
        unit=unit,
        method=method,
        reason="" if known else "does not vary between users, or too few of them are there",
    )


# What the models learn


def block_weights(content: ContentModel) -> pd.DataFrame:
    """Weight of each block of the content model: block, by judgement, learnt; heaviest first."""
    rows = [(block, WEIGHTS[block], weight) for block, weight in content.weights_.items()]
    table = pd.DataFrame(rows, columns=["block", "by judgement", "learnt"]).sort_values("learnt", ascending=False)
    return table.assign(block=table["block"].str.replace("_", " ")).reset_index(drop=True)


def heaviest(weights: pd.DataFrame, content: ContentModel, split: Split) -> dict[str, Any]:
    """Finding: the block of `block_weights` that weighs most."""
    first, pairs = weights.iloc[0], len(split.train.adoptions)
    method = "non-negative least squares within users, mixed with the weights by judgement" if pairs else "by judgement"
    label = f"The block that weighs most is {first['block']}"
    return exact("heaviest_block", label, float(first["learnt"]), n=pairs, method=method)


def spectrum(model: CollaborativeModel, *, shuffles: int = 20, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """How much of what people have in common each factor holds, and how much it would hold by chance.

    Eigenvalues of the correlations between habits over people with any, as shares of their sum. By chance: the `level`
    quantile of the same when each habit is dealt out to these people anew (parallel analysis; Horn 1965,
    doi:10.1007/BF02289447). Columns: factor, share, by_chance; `attrs["above"]` counts the factors, from the first on,
    that hold more than by chance.
    """
    generator = np.random.default_rng(seed)
    held = np.flatnonzero(np.diff(model.matrix_.indptr))
    if len(held) < FEWEST:
        raise MissingColumn(f"needs people with habits: {len(held)} have any, at least {FEWEST} are needed")
    people = np.sort(generator.choice(held, min(len(held), _USERS_OF_SPECTRUM), replace=False))
    matrix = model.matrix_[people].toarray()
    matrix = matrix - matrix.mean(axis=0)
    length = np.sqrt((matrix**2).sum(axis=0))
    matrix = matrix[:, length > 1e-9] / length[length > 1e-9]
    if matrix.shape[1] < 2:
        raise MissingColumn("needs two habits or more that some people have and others do not")

    def shares(matrix: Floats) -> Floats:
        values = np.maximum(np.linalg.eigvalsh(matrix.T @ matrix)[::-1], 0)
        return values / values.sum()

    chance = np.quantile([shares(generator.permuted(matrix, axis=0)) for _ in range(shuffles)], level, axis=0)
    own = shares(matrix)
    table = pd.DataFrame({"factor": np.arange(1, len(own) + 1), "share": own, "by_chance": chance})
    table.attrs["above"] = int(np.argmin(np.append(own > chance, False)))
    return table


def factors_found(spectrum: pd.DataFrame, model: CollaborativeModel) -> dict[str, Any]:
    """Finding: how many factors of a `spectrum` hold more than chance."""
    label, method = "Factors that hold more than chance", "parallel analysis of the correlations between habits"
    return exact("factors", label, spectrum.attrs["above"], n=len(spectrum), method=method)


def companions(model: CollaborativeModel, dataset: Dataset, *, count: int = 6, most: int = 3) -> pd.DataFrame:
    """For the most adopted habit of `count` categories: which others speak for it, and by how much the odds rise.

    Columns: habit, category, speaks most for (names and odds ratios), against somebody without any habit.
    """
    table = with_catalogue(dataset).habits.set_index("habit_id").loc[model.habit_ids_.tolist()]
    names = _names(table)
    kind = table["category"].astype(object).to_numpy() if "category" in table else np.full(len(table), None)
    adopters = np.asarray((model.matrix_ >= LIVED).sum(axis=0)).ravel()
    order = np.argsort(-adopters, kind="stable")
    first = pd.Series(kind[order]).fillna("not known")
    rows = order[~first.duplicated().to_numpy()][:count]
    rows = rows[adopters[rows] > 0]
    if not len(rows):
        raise MissingColumn("needs habits that somebody adopted; there are none")
    alone = np.zeros((len(rows) + 1, len(names)))
    alone[np.arange(len(rows)), rows] = 1.0
    odds = special.logit(np.clip(model.fold_in(alone), 1e-9, 1 - 1e-9))
    gain = np.exp(odds[:-1] - odds[-1])
    gain[np.arange(len(rows)), rows] = -np.inf
    best = np.argsort(-gain, axis=1, kind="stable")[:, :most]
    found = [
        "; ".join(f"{names[other]} ({gain[row, other]:.2g})" for other in others if np.isfinite(gain[row, other]))
        for row, others in enumerate(best)
    ]
    return pd.DataFrame({"habit": names[rows], "category": kind[rows], "speaks most for (odds ratio)": found})


def learnable(dataset: Dataset) -> LabelledPairs:
    """Pairs with their label; raises `MissingColumn` where there are too few for a success model."""
    pairs = label_pairs(dataset)
    if reason := too_few(pairs):
        raise MissingColumn(f"needs adoptions whose outcome is known: {reason}")
    return pairs


def importance(
    pairs: LabelledPairs, *, share: float = 0.6, repeats: int = 3, level: float, resamples: int, seed: int
) -> pd.DataFrame:
    """How much worse the success model predicts people it has not seen when a feature is shuffled among them.

    Permutation importance (Breiman 2001, doi:10.1023/A:1010933404324) on the pairs of users held out: rise of the
    log loss, mean over `repeats` shuffles; interval by user. It is fitted on a `share` of the users.

    Returns
    -------
    DataFrame, most important first: feature, meaning, estimate, ci_low, ci_high (nats), odds_ratio (of success, from
    the feature's 10th to its 90th percentile with all else as it is, mean over pairs; NaN for the category), n (users).
    A feature that no tree asks for has exactly 0 and no interval.
    """
    generator = np.random.default_rng(seed)
    users = generator.permutation(np.unique(pairs.user))
    known = np.isin(pairs.user, users[: round(share * len(users))])
    if reason := too_few(pairs, known):
        raise MissingColumn(f"needs more people to learn from: {reason}")
    fitted = train(pairs, known, seed)
    return importance_of(fitted, pairs, ~known, repeats=repeats, level=level, resamples=resamples, seed=seed)


def importance_of(
    fitted: Fitted, pairs: LabelledPairs, test: npt.NDArray[np.bool_], *, repeats: int, level: float, resamples: int,
    seed: int,
) -> pd.DataFrame:  # fmt: skip
    """`importance` of a fitted model on these pairs."""
    generator = np.random.default_rng(seed)
    columns = pairs.columns[:, test].copy()
    columns[NAMES.index("habit_success")] = fitted.habit_success[pairs.table["habit"].to_numpy()[test]]
    success, user = pairs.success[test], pairs.user[test]

    def loss(columns: Floats) -> Floats:
        chance = np.clip(fitted.probability(columns), 1e-9, 1 - 1e-9)
        return -np.where(success == 1, np.log(chance), np.log1p(-chance))

    as_is, rises, ratios = loss(columns), np.zeros((len(NAMES), len(success))), np.full(len(NAMES), np.nan)
    for number, name in enumerate(NAMES):
        values = columns[number].copy()
        for _ in range(repeats):
            columns[number] = generator.permutation(values)
            rises[number] += (loss(columns) - as_is) / repeats
        if name != "category" and np.isfinite(values).any():
            ends = []
            for end in np.nanquantile(values, [0.1, 0.9]):
                columns[number] = end
                ends.append(special.logit(np.clip(fitted.probability(columns), 1e-9, 1 - 1e-9)).mean())
            ratios[number] = np.exp(ends[1] - ends[0])
        columns[number] = values
    sums = estimates.cluster_sums(user, *rises, np.ones(len(success)))
    found = estimates.resample(sums, lambda sums: sums[:, :-1] / sums[:, -1:], resamples=resamples, seed=seed)
    low, high = found.interval(level)
    table = pd.DataFrame(
        {
            "feature": NAMES,
            "meaning": [FEATURES[name] for name in NAMES],
            "estimate": found.estimate,
            "ci_low": low,
            "ci_high": high,
            "odds_ratio": ratios,
            "n": found.n,
        }
    )
    return table.sort_values("estimate", ascending=False, kind="stable", ignore_index=True)


def most_important(table: pd.DataFrame, *, level: float) -> list[Any]:
    """Findings of `importance`: the feature that matters most, and how many cannot be told from none."""
    method = "permutation importance on users held out"
    label = f"What the success model goes by most: {table['meaning'].iloc[0]}"
    best = chosen(table[:1], key="important", label=label, unit="", method=method, level=level)
    idle = int((~(table["ci_low"] > 0)).sum())
    label = "Features whose importance cannot be told from none"
    return [best, exact("unused", label, idle, n=len(table), method=f"interval of the {method}")]


# May the probabilities be trusted?

METRICS = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "auc": "AUC",
    "average_precision": "average precision",
    "ece": "calibration error",
    "slope": "reliability slope",
    "squared_error_to_truth": "squared error to the truth",
}


def judged(dataset: Dataset, *, level: float, resamples: int, seed: int) -> Evaluation:
    """`reliability.evaluate` on a temporal split; raises `MissingColumn` where too few pairs can be judged."""
    learnable(dataset)
    return reliability.evaluate(dataset, resamples=resamples, level=level, seed=seed)


def trust(evaluation: Evaluation) -> list[Estimate]:
    """Headline findings of an evaluation: AUC and reliability slope of the success model."""
    return [
        _of_model(evaluation, metric, key=key, label=f"{label} of the success model")
        for metric, key, label in (("auc", "auc", "AUC"), ("slope", "slope", "Reliability slope"))
    ]


def against(evaluation: Evaluation, *, level: float, resamples: int, seed: int) -> list[Estimate]:
    """Findings of an evaluation at the same `level`: log loss of the success model less that of its rivals, and how far
    its probabilities are off, bin by bin and on the whole.
    """
    draw: dict[str, Any] = {"resamples": resamples, "seed": seed}
    table = evaluation.differences.assign(n=evaluation.differences["users"])
    how: dict[str, Any] = {"unit": "", "method": _HELD_OUT + ", paired", "level": level}
    found = [
        chosen(table, key=f"log_loss_{key}", label=f"Log loss of the success model less that of {words}", against=name,
               metric="log_loss", **how)
        for key, name, words in (
            ("base_rate", reliability.BASE, "the base rate"),
            ("logistic", reliability.LOGISTIC, "logistic regression"),
        )
    ]  # fmt: skip
    told = evaluation.predictions
    gap = estimates.ratio(told["success"] - told[reliability.MODEL], 1.0, told["user_id"], **draw)
    label = "Share that succeeded less the mean of what the success model predicted"
    surplus = estimates.estimate_of(
        gap, key="surplus", label=label, level=level, unit="share difference", method=_HELD_OUT
    )
    error = _of_model(evaluation, "ece", key="calibration_error", label="Calibration error of the success model")
    return [*found, error, surplus]


_HELD_OUT = "pairs of users not learnt from, adopted later if there are enough; by user"


def _of_model(evaluation: Evaluation, metric: str, *, key: str, label: str) -> Estimate:
    table = evaluation.metrics.assign(n=evaluation.metrics["users"])
    level = float(table["level"].iloc[0])
    return chosen(
        table, key=key, label=label, unit="", method=_HELD_OUT, level=level, model=reliability.MODEL, metric=metric
    )


def scores_of_models(evaluation: Evaluation) -> pd.DataFrame:
    """Metrics of each model side by side: a row for each metric, a column for each model; base rate and truth last."""
    table = evaluation.metrics.pivot_table(index="metric", columns="model", values="estimate")
    order = [
        reliability.MODEL, reliability.LOGISTIC, reliability.PLAIN, reliability.ISOTONIC, reliability.BASE,
        reliability.TRUTH,
    ]  # fmt: skip
    table = table.reindex(index=[name for name in METRICS if name in table.index])
    table = table[[name for name in order if name in table]].rename(index=METRICS)
    return table.rename_axis(index=None, columns=None).reset_index(names="metric")


def reliability_curve(
    evaluation: Evaluation, models: Sequence[str], *, bins: int = 10, level: float, resamples: int, seed: int
) -> pd.DataFrame:
    """Observed share of successes by predicted probability, in bins with about as many pairs each.

    Columns: model, predicted (mean of the bin), estimate (observed), ci_low, ci_high (by user), truth (mean true
    probability of the bin, NaN where nobody knows it), n (pairs), users.
    """
    told = evaluation.predictions
    parts = []
    for model in (name for name in models if name in told):
        code = pd.qcut(told[model], bins, labels=False, duplicates="drop").to_numpy()
        number = int(code.max()) + 1
        found = estimates.ratio(
            told["success"].to_numpy(dtype=float), 1.0, told["user_id"].to_numpy(), group=code, groups=number,
            resamples=resamples, seed=seed,
        )  # fmt: skip
        low, high = found.interval(level)
        grouped = told.groupby(code)
        parts.append(
            pd.DataFrame(
                {
                    "model": model,
                    "predicted": grouped[model].mean(),
                    "estimate": found.estimate,
                    "ci_low": low,
                    "ci_high": high,
                    "truth": grouped[reliability.TRUTH].mean() if reliability.TRUTH in told else np.nan,
                    "n": grouped.size(),
                    "users": grouped["user_id"].nunique(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def calibration_by_group(evaluation: Evaluation) -> pd.DataFrame:
    """`evaluation.groups` without what would tell of fewer than ten people: its numbers are NaN, `suppressed` true."""
    table = evaluation.groups
    numbers = [name for name in table.columns if name not in ("dimension", "group", "users")]
    parts = [suppress(rows, "users", numbers) for _, rows in table.groupby("dimension", sort=False)]
    return pd.concat(parts) if parts else table.assign(suppressed=False)


def groups_to_judge(evaluation: Evaluation) -> pd.DataFrame:
    """Groups with enough people and pairs to have a reliability slope: label, slope, slope_low, slope_high, n (pairs),
    users.
    """
    table = calibration_by_group(evaluation)
    table = table[table["slope"].notna()]
    if table.empty:
        fewest = reliability.FEWEST_OF_GROUP
        raise MissingColumn(f"needs groups of {fewest} held-out pairs or more by gender or age; there is none")
    label = table["dimension"] + ": " + table["group"]
    counts = table[["n", "users"]].astype(int)
    return table.assign(label=label, **counts)[["label", "slope", "slope_low", "slope_high", "n", "users"]]


# When habits are given up


def abandonment(
    dataset: Dataset, split: Split, *, weeks: int = 8, resamples: int, level: float, seed: int
) -> pd.DataFrame:
    """Hold the hazard model, fitted before the split's day, against what became of the habits held on that day.

    Kaplan-Meier as the rival: how long habits held `weeks` weeks earlier have lasted since, the same for every habit.

    Returns
    -------
    DataFrame, a row each: `hazard_auc`, chance that of two habits the one given up within `weeks` weeks was the riskier
    one (time-dependent AUC); `hazard_brier`, integrated Brier score less that of Kaplan-Meier, below 0 where the model
    is better. Columns: name, estimate, ci_low, ci_high (percentiles of a bootstrap by user), n (users), pairs.
    `attrs["curves"]`: group (third by predicted risk), week, predicted, observed, ci_low, ci_high.

    Raises
    ------
    MissingColumn
        The data do not say when habits were given up, or too few were.
    """
    if split.until is None:
        raise MissingColumn("needs a history that goes on after the day until which models learn")
    day, end = end_of(split.train, split.until), end_of(dataset, None)
    start, stop = (event_days(dataset, "adoptions", column) for column in ("adopted_at", "abandoned_at"))
    held = (start < day) & ~(stop < day)
    known = held & (stop < end)
    if known.sum() < FEWEST or ((start < day) & (stop < day)).sum() < FEWEST:
        raise MissingColumn(
            "needs habits that were given up, and when (`adoptions.abandoned_at`), before and after "
            f"{split.until:%Y-%m-%d}; there are too few"
        )
    horizons = np.minimum(7.0 * np.arange(1, weeks + 1), end - day)
    horizons = horizons[: max(1, int((end - day) // 7))]
    model = AbandonmentHazard().fit(split.train, split.until)
    predicted = model.predict_survival(split.train, split.until, len(horizons)).to_numpy()
    rows = dataset.adoptions[held]
    time, event = np.minimum(stop, end)[held] - day, known[held]
    earlier = day - int(horizons[-1])
    before = (start < earlier) & ~(stop < earlier)
    baseline = np.tile(
        kaplan_meier(np.minimum(stop, day)[before] - earlier, (stop < day)[before], horizons - 1), (len(rows), 1)
    )
    user = pd.factorize(rows["user_id"])[0]
    rising = len(horizons) > 1

    def scores(pairs: npt.NDArray[np.intp]) -> tuple[float, float]:
        auc = time_dependent_auc(time[pairs], event[pairs], predicted[pairs, -1], horizons[-1] - 1)
        if not rising:
            return auc, float("nan")
        ours, rival = (
            integrated_brier_score(time[pairs], event[pairs], chances[pairs], horizons - 1)
            for chances in (predicted, baseline)
        )
        return auc, ours - rival

    generator, mine = np.random.default_rng(seed), np.argsort(user, kind="stable")
    first = np.searchsorted(user[mine], np.arange(user.max() + 2))
    draws = []
    for _ in range(min(resamples, _DRAWS_OF_SURVIVAL)):
        people = generator.integers(0, user.max() + 1, user.max() + 1)
        draws.append(scores(np.concatenate([mine[first[one] : first[one + 1]] for one in people])))
    low, high = np.nanquantile(np.array(draws), [(1 - level) / 2, (1 + level) / 2], axis=0)
    table = pd.DataFrame(
        {
            "name": ["hazard_auc", "hazard_brier"],
            "estimate": scores(np.arange(len(rows))),
            "ci_low": low,
            "ci_high": high,
            "n": int(user.max()) + 1,
            "pairs": len(rows),
        }
    )
    third = pd.qcut(-predicted[:, -1], 3, labels=False, duplicates="drop")
    names = ["lowest third of risk", "middle third", "highest third"][: int(third.max()) + 1]
    seen = estimates.kaplan_meier(
        time, event, third, user, groups=len(names), days=int(horizons[-1]), resamples=resamples, seed=seed
    )
    table.attrs["curves"] = _curves(predicted, third, names, horizons, seen, level)
    return table


def _curves(
    predicted: Floats, third: npt.NDArray, names: list[str], horizons: Floats, seen: Resampled, level: float
) -> pd.DataFrame:
    low, high = seen.interval(level)
    parts = []
    for number, name in enumerate(names):
        at = number * int(horizons[-1]) + horizons.astype(int) - 1
        parts.append(
            pd.DataFrame(
                {
                    "group": name,
                    "week": np.arange(1, len(horizons) + 1),
                    "predicted": predicted[third == number].mean(axis=0),
                    "observed": seen.estimate[at],
                    "ci_low": low[at],
                    "ci_high": high[at],
                    "habits": int((third == number).sum()),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def abandonment_found(table: pd.DataFrame, *, level: float) -> list[Estimate]:
    """Findings of `abandonment`."""
    parts = {
        "hazard_auc": ("The habit given up was the riskier one of two", "share", "time-dependent AUC"),
        "hazard_brier": (
            "Integrated Brier score of the hazard model less that of Kaplan-Meier", "", "weighted for censoring",
        ),
    }  # fmt: skip
    return [
        chosen(
            table, key=key, label=label, unit=unit, method=f"{method}; habits held on one day", level=level, name=key
        )
        for key, (label, unit, method) in parts.items()
    ]


# What one habit does to another


def influence(dataset: Dataset, *, level: float, fewest: int = 20) -> pd.DataFrame:
    """`interaction.cross_habit_influence` with the names of habits, most often held first."""
    table = cross_habit_influence(dataset, fewest=fewest, level=level)
    if table.empty:
        raise MissingColumn(f"needs habits that {fewest} people or more held beside others; there are none")
    table.insert(1, "habit", _names(dataset.habits.set_index("habit_id").loc[table["habit_id"]]))
    table = table.sort_values("exposed", ascending=False, kind="stable", ignore_index=True)
    adopters, trackers = (set(dataset.table(name)["user_id"]) for name in ("adoptions", "habit_tracking"))
    table.attrs["users"] = len(adopters & trackers)
    return table


def _names(habits: pd.DataFrame) -> npt.NDArray[np.object_]:
    """English name of each habit, else the Russian one, else its id, which is the index."""
    names = pd.Series(habits.index, habits.index, dtype=object)
    for column in ("name_ru", "name_en"):
        if column in habits:
            names = habits[column].astype(object).where(habits[column].notna(), names)
    return names.to_numpy(dtype=object)


def influence_findings(table: pd.DataFrame, truth: float | None, *, level: float) -> list[Any]:
    """Findings of `influence`: one habit more, how many habits stand out, and what is true where that is known.

    `truth` is the true effect of one habit more, whichever: in the simulated world no habit has another one. Intervals
    that do not hold it are then mistakes, of which a share of 1 - `level` is to be expected.
    """
    one = table.iloc[0]
    method = "regression with a mean of its own for each user; sandwich interval by user"
    more = Estimate(
        "one_habit_more", "Completion of a habit in its first 28 days with one more habit held beside it",
        float(one["load"]), float(one["load_low"]), float(one["load_high"]), level, table.attrs["users"],
        "share difference", method,
    )  # fmt: skip
    wide = "intervals by user, habits of habits held beside others by many"
    words = {"naive": "in a naive comparison", "adjusted": "compared within people"}
    found: list[Any] = [more]
    for kind, how in words.items():
        count = apart(table, kind, 0.0)
        found.append(
            exact(f"{kind}_stand_out", f"Habits whose interval lies off 0, {how}", count, n=len(table), method=wide)
        )
    if truth is not None:
        known = "replay of the simulated world"
        found.append(
            exact(
                "one_habit_more_truth",
                "True change of completion with one more habit held",
                truth,
                n=len(table),
                method=known,
                unit="share difference",
            )
        )
        for kind, how in words.items():
            label = f"Intervals that miss the truth, {how}"
            found.append(exact(f"{kind}_wrong", label, apart(table, kind, truth), n=len(table), method=wide))
    return found


def apart(table: pd.DataFrame, kind: str, value: float) -> int:
    """How many of the intervals of `kind` (`naive`, `adjusted`) of `influence` do not hold `value`."""
    return int(((table[f"{kind}_low"] > value) | (table[f"{kind}_high"] < value)).sum())
