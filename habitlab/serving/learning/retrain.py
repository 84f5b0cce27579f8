"""Learn again from what happened since, and put the new model live only where it is better and does no harm.

The challenger and the live model, the champion, are compared at several days of the past that roll on with the data:
at each, both are fitted to what each would have known then, and their lists are held against what people adopted in the
four weeks after. Differences are by person. What is live changes only where the interval of the difference lies above
the margin and every guardrail is shown safe; both are logged either way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from habitlab.dataset import Dataset, MissingColumn
from habitlab.evaluation import fairness, leaderboard, splits
from habitlab.evaluation.experiments.rollout import Decision, Guardrail, decide
from habitlab.recommender import guardrails
from habitlab.recommender.blend import Blend
from habitlab.recommender.candidates import with_catalogue
from habitlab.recommender.recommend import Models, Recommender
from habitlab.serving import forgotten
from habitlab.serving.learning import feedback, model_card, registry
from habitlab.serving.learning.extract import Extract, extract, mark
from habitlab.serving.learning.registry import RegistryError
from habitlab.serving.state import stamp

LOG = logging.getLogger(__name__)

K = 10
ORIGINS, HORIZON_DAYS = 3, 28
MARGINS = {"fairness": 0.02, "diversity": 0.02, "minors": 0.001, "support cases": 0.001}
"""Harm that is tolerated: of NDCG for a group, of the mean difference within a list, of a share of lists, of cases."""
MOST_CHECKED = 300
YOUNGEST = 13.0
_MINOR = {"age": 14, "improvement_areas": ["health", "physical"], "time_commitment": 30}


@dataclass(frozen=True)
class Recipe:
    """How a model is made: two models of one recipe on the same data are the same.

    `recent_days` and `old_share`: of adoptions longer ago a share is learnt from, weighing the more for it.
    """

    blend: Blend = field(default_factory=Blend)
    diversity: float = 0.05
    exploration: float = 0.1
    seed: int = 0
    recent_days: int | None = 365
    old_share: float = 0.5

    def unfitted(self) -> Recommender:
        """Return the recommender to fit."""
        from habitlab.models.collaborative import CollaborativeModel
        from habitlab.models.content import ContentModel
        from habitlab.models.success import SuccessModel

        success = SuccessModel(self.seed, recent_days=self.recent_days, old_share=self.old_share)
        models = Models(ContentModel(), CollaborativeModel(seed=self.seed), success)
        kept = {"diversity": self.diversity, "exploration": self.exploration, "seed": self.seed}
        return Recommender(self.blend, models=models, **kept)  # type: ignore[arg-type]

    @classmethod
    def of(cls, lineage: Mapping[str, Any]) -> Recipe:
        """Read the recipe of a registered version; RegistryError where its lineage has none."""
        try:
            told = dict(lineage["recipe"])
            return cls(**{**told, "blend": Blend(**told["blend"])})
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError("the lineage of this version does not tell how it was made") from error


@dataclass(frozen=True)
class Interval:
    """A difference, challenger less champion, with its interval."""

    difference: float
    ci_low: float
    ci_high: float
    level: float = 0.95


@dataclass(frozen=True, eq=False)
class Comparison:
    """Champion against challenger.

    `by_person`: every metric of each, as `leaderboard.per_user`, the mean over the days at which they were there;
    `differences`: as `leaderboard.differences`; `origins`: those days.
    """

    by_person: pd.DataFrame
    differences: pd.DataFrame
    origins: tuple[pd.Timestamp, ...]

    def interval(self, metric: str, level: float = 0.95) -> Interval:
        """Return the difference in one metric."""
        row = self.differences.set_index("metric").loc[metric]
        return Interval(float(row["estimate"]), float(row["ci_low"]), float(row["ci_high"]), level)


def origins_of(dataset: Dataset, number: int = ORIGINS, horizon: int = HORIZON_DAYS) -> tuple[pd.Timestamp, ...]:
    """Return days that are each followed by `horizon` days of data, the last as late as can be; they do not overlap.

    With every day of new data they move on, so that no test set is used for ever. ValueError without a day of data.
    """
    tracking = dataset.habit_tracking
    if tracking.empty:
        raise ValueError("there is no tracked day to compare models on")
    first, end = tracking["date"].min(), tracking["date"].max() + pd.Timedelta(days=1)
    days = [end - pd.Timedelta(days=horizon * (place + 1)) for place in range(number)]
    return tuple(day for day in reversed(days) if day >= first + pd.Timedelta(days=horizon))


def compare(
    dataset: Dataset,
    champion: Callable[[], Recommender],
    challenger: Callable[[], Recommender],
    *,
    champion_until: pd.Timestamp | None = None,
    origins: Sequence[pd.Timestamp] | None = None,
    horizon: int = HORIZON_DAYS,
    k: int = K,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Fit both at every origin to what came before, and hold their lists against the `horizon` days after.

    `champion_until`: the day to which the champion was fitted; at later origins it knows no more, as the model that is
    live would not. ValueError where there is no origin: the data are too short.
    """
    days = tuple(origins if origins is not None else origins_of(dataset, horizon=horizon))
    if not days:
        raise ValueError(f"the data are too short to compare models: {2 * horizon} days are needed")
    parts = []
    for day in days:
        split = splits.temporal(splits.before(dataset, day + pd.Timedelta(days=horizon)), day)
        known = day if champion_until is None else min(day, champion_until)
        models = {
            "champion": champion().fit(splits.before(split.train, known), until=known),
            "challenger": challenger().fit(split.train, until=day),
        }
        parts.append(leaderboard.per_user(models, dataset, split, k))
    values = pd.concat(parts).groupby(level=0).mean()
    values.columns = parts[0].columns
    table = leaderboard.differences(values, "champion", level=level, resamples=resamples, seed=seed)
    return Comparison(values, table, days)


# What must not get worse


def fairness_guardrail(dataset: Dataset, values: pd.DataFrame, metric: str, level: float = 0.95) -> Guardrail:
    """No group of gender or age loses: the interval of the group that may lose most, corrected for their number.

    Raises MissingColumn where nobody's group is known.
    """
    gain = (values["challenger"][metric] - values["champion"][metric]).rename("gain").reset_index()
    people = fairness.people(dataset).merge(gain, on="user_id")
    dimensions = [name for name in people.columns if name in ("gender", "age_band")]
    if not dimensions:
        raise MissingColumn("needs `gender` or `age` in `users`; this dataset has neither")
    number = sum(people[name].nunique() for name in dimensions)
    found = fairness.audit(people, outcome="gain", groups=dimensions, level=1 - (1 - level) / max(number, 1)).groups
    shown = found[~found["suppressed"]].dropna(subset=["ci_low"])
    if shown.empty:
        return Guardrail("fairness", Interval(np.nan, np.nan, np.nan, level), MARGINS["fairness"])
    worst = shown.loc[shown["ci_low"].idxmin()]
    harm = Interval(float(worst["estimate"]), float(worst["ci_low"]), float(shown["ci_high"].min()), level)
    return Guardrail("fairness", _tolerated(harm, MARGINS["fairness"]), MARGINS["fairness"])


def minors_guardrail(challenger: Recommender, dataset: Dataset) -> Guardrail:
    """Nobody is offered what is unfit for their age, least of all minors: the share of lists with such a habit."""
    habits = with_catalogue(dataset).habits
    allowed = pd.Series(guardrails.safe_from(habits), habits["habit_id"])
    if "min_age" in habits:
        allowed = np.maximum(allowed, habits["min_age"].fillna(0).to_numpy())
    age = dataset.users.set_index("user_id")["age"] if "age" in dataset.users else pd.Series(dtype=float)
    age = age.reindex(challenger.user_ids_.astype(str))
    young = age.index[(age < guardrails.ADULT).to_numpy() | age.isna().to_numpy()]
    checked = [*young[:MOST_CHECKED], *age.index.difference(young, sort=False)[: MOST_CHECKED // 3]]
    lists = [(age[user], challenger.recommend(user, K)) for user in checked]
    lists.append((_MINOR["age"], challenger.recommend(_MINOR, K)))
    unfit = [any(allowed[item.habit_id] > _years(age) for item in one.items) for age, one in lists]
    share = -float(np.mean(unfit))
    return Guardrail("minors", Interval(share, share, share), MARGINS["minors"])


def _tolerated(found: Interval, margin: float) -> Interval:
    """A harm that is shown to be smaller than the margin is none: with many people every difference is significant."""
    return replace(found, ci_high=max(found.ci_high, 0.0)) if found.ci_low > -margin else found


def _years(age: float) -> float:
    """Age that counts: who does not tell it is treated as the youngest who may be here."""
    return YOUNGEST if pd.isna(age) else float(age)


def cases_guardrail(challenger: Recommender, cases: Sequence[feedback.Case]) -> tuple[Guardrail, list[str]]:
    """No case of support comes back: the share of cases that fail, and what failed."""
    failed = [problem for case in cases for problem in feedback.check_case(case, challenger)[:1]]
    share = -len(failed) / max(len(cases), 1)
    return Guardrail("support cases", Interval(share, share, share), MARGINS["support cases"]), failed


def gate(
    comparison: Comparison,
    challenger: Recommender,
    dataset: Dataset,
    *,
    name: str,
    now: datetime,
    cases: Sequence[feedback.Case] = (),
    margin: float = 0.0,
    k: int = K,
    level: float = 0.95,
) -> Decision:
    """Decide by `rollout.decide`: NDCG better by more than `margin`, and fairness, minors, diversity and cases safe.

    A margin below 0 lets a model go live that is not worse by more than that. Where no group is known, fairness is not
    asked for, and the reasons say so.
    """
    metric, rails, notes = f"ndcg@{k}", [], []
    try:
        rails.append(fairness_guardrail(dataset, comparison.by_person, metric, level))
    except MissingColumn as lack:
        notes.append(f"fairness was not checked: {lack}")
    rails.append(minors_guardrail(challenger, dataset))
    if f"intra_list_diversity@{k}" in comparison.differences["metric"].to_numpy():
        varied = comparison.interval(f"intra_list_diversity@{k}", level)
        if np.isnan(varied.ci_low) and varied.difference == 0:  # the same lists
            varied = Interval(0.0, 0.0, 0.0, level)
        rails.append(Guardrail("diversity", _tolerated(varied, MARGINS["diversity"]), MARGINS["diversity"]))
    else:
        notes.append("diversity was not checked: habits have neither category nor kind")
    told, failed = cases_guardrail(challenger, cases)
    rails.append(told)
    found = decide(
        name,
        comparison.interval(metric, level),
        rails,
        decided_at=stamp(now),
        smallest_effect=margin,
        required=[rail.name for rail in rails],
    )
    return replace(found, reasons=(*found.reasons, *notes, *(f"case {problem}" for problem in failed)))


@dataclass(frozen=True)
class Outcome:
    """What became of a run: `action` as the gate's, or "first" and "nothing new"; the version that was made, if any."""

    action: Literal["roll out", "keep control", "wait", "no readout", "first", "nothing new"]
    version: str | None
    live: str | None
    new_events: int
    reasons: tuple[str, ...]
    decision: Decision | None = None


def retrain(
    dataset: Dataset,
    folder: str | Path,
    *,
    now: datetime,
    recipe: Recipe | None = None,
    margin: float = 0.0,
    force: bool = False,
    origins: int = ORIGINS,
    horizon: int = HORIZON_DAYS,
    level: float = 0.95,
    resamples: int = 2000,
    tell: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Fit a challenger to the data and all that the service was told, compare, decide, and log both.

    The first model of all goes live unless it breaks a guardrail of its own (minors, cases). Where neither data nor
    events nor recipe changed since the live version, nothing is made. After a rollback no model of the same code and
    recipe goes live. `force` makes one, and puts it live if it is better, all the same.

    Raises
    ------
    OSError, RegistryError, DatasetError
        What is live stays live.
    """
    known = forgotten.marks(folder)

    def nobody_was_forgotten() -> None:
        if forgotten.marks(folder) != known:
            raise RegistryError("somebody was forgotten while this ran: call it again, and it learns without them")

    told: Extract = extract(folder, dataset)
    tell(f"{told.new:,} events are new, {told.left_out:,} of all are of nobody known")
    recipe = recipe or Recipe()
    live = _live(folder)
    challenger = recipe.unfitted().fit(told.dataset)
    lineage = registry.lineage_of(told.dataset, challenger, fitted_at=now, learnt=told.sequence)
    lineage |= {"recipe": asdict(recipe), "until": challenger.day_}
    same = (
        live is not None and live.lineage.get("data") == lineage["data"] and registry.made_alike(live.lineage, lineage)
    )
    if live is not None and same and not force:
        if told.sequence:
            mark(folder, told.sequence, now)
        return Outcome("nothing new", None, live.name, told.new, ("neither data, code nor recipe changed",))
    cases = feedback.load_cases(folder)
    found: Comparison | ValueError | None = None
    if live is not None:
        tell(f"comparing with version {live.name}")
        found = _against(live, told.dataset, recipe, origins=origins, horizon=horizon, level=level, resamples=resamples)
    card = model_card.write(told.dataset, challenger, lineage)
    version = registry.register(folder, challenger, lineage, card, check=nobody_was_forgotten)
    tell(f"version {version} is registered")
    if live is None:
        own = [minors_guardrail(challenger, told.dataset), cases_guardrail(challenger, cases)[0]]
        broken = [f"guardrail {rail.name} {rail.verdict()}" for rail in own if rail.verdict() != "safe"]
        outcome = Outcome("keep control" if broken else "first", version, None if broken else version, told.new,
                          (*broken, "there was no model to compare with"))  # fmt: skip
    elif isinstance(found, Comparison):
        decision = gate(found, challenger, told.dataset, name=version, now=now, cases=cases, margin=margin, level=level)
        now_live = version if decision.action == "roll out" else live.name
        outcome = Outcome(decision.action, version, now_live, told.new, decision.reasons, decision)
    else:
        outcome = Outcome("no readout", version, live.name, told.new, (str(found),))
    if outcome.live == version and not force and (why := _rolled_back(folder, lineage)):
        outcome = replace(outcome, action="keep control", live=None if live is None else live.name,
                          reasons=(why, *outcome.reasons))  # fmt: skip
    _log(folder, now, live, outcome, found if isinstance(found, Comparison) else None, recipe)
    if live is not None and outcome.decision is not None:
        registry.write_card(folder, version, model_card.compared(card, _findings(outcome, live.name)))
    if outcome.live == version:  # after the log: nothing goes live that no row tells of
        registry.allow(folder, lineage)  # it is forced, or there is nothing to allow
        registry.promote(folder, version)
    if told.sequence:
        mark(folder, told.sequence, now)
    return outcome


def _against(
    live: registry.Version,
    dataset: Dataset,
    recipe: Recipe,
    *,
    origins: int,
    horizon: int,
    level: float,
    resamples: int,
) -> Comparison | ValueError:
    """Compare with the live version, or say why that cannot be: the data are too short, or nobody was there."""
    champion = Recipe.of(live.lineage) if "recipe" in live.lineage else Recipe(recent_days=None)
    try:
        return compare(
            dataset,
            champion.unfitted,
            recipe.unfitted,
            champion_until=pd.Timestamp(live.lineage["until"], unit="D") if "until" in live.lineage else None,
            origins=origins_of(dataset, origins, horizon),
            horizon=horizon,
            level=level,
            resamples=resamples,
        )
    except ValueError as error:
        return error


def _rolled_back(folder: str | Path, lineage: Mapping[str, Any]) -> str:
    """Say that somebody rolled back a model made as this one is, which a run by itself must not undo; empty if not."""
    before = next((one for one in registry.rolled_back(folder) if registry.made_alike(one, lineage)), None)
    if before is None:
        return ""
    name = before["version"]
    return f"version {name}, of the same code and recipe, was rolled back; --force puts this one live all the same"


def _findings(outcome: Outcome, champion: str) -> list[str]:
    """What the comparison found, for the card: the difference, the guardrails, and what was decided."""
    return [f"Compared with {champion} on held-out data; decided: {outcome.action}", *outcome.reasons]


def _live(folder: str | Path) -> registry.Version | None:
    """The version to compare with: the live one, or the last good one before it; None where there is none.

    Where none can be read, the service serves the usual model and there is nothing to compare with, either.
    """
    if registry.current(folder) is None:
        return None
    try:
        return registry.load(folder)[0]
    except RegistryError as error:
        LOG.warning("nothing can be compared with: %s", error)
        return None


def _log(
    folder: str | Path,
    now: datetime,
    champion: registry.Version | None,
    outcome: Outcome,
    found: Comparison | None,
    recipe: Recipe,
) -> None:
    """A row for each of the two, with its own scores and the difference."""
    versions = {} if champion is None else {"champion": champion.name}
    versions |= {"challenger": str(outcome.version)}
    for role, name in versions.items():
        metrics: dict[str, Any] = {"role": role, "action": outcome.action, "live": outcome.live}
        metrics["reasons"] = list(outcome.reasons)
        if found is not None:
            means = found.by_person[role].mean()
            metrics |= {metric: None if np.isnan(value) else float(value) for metric, value in means.items()}
            change = found.interval(f"ndcg@{K}")
            three = (change.difference, change.ci_low, change.ci_high)
            metrics["ndcg difference"] = [None if np.isnan(value) else value for value in three]
            metrics["origins"] = [f"{day:%Y-%m-%d}" for day in found.origins]
            metrics["users"] = len(found.by_person)
        row = {"run_id": f"{stamp(now)} {role} {name}", "model": name, "trained_at": stamp(now)}
        parameters = asdict(recipe) if role == "challenger" else {}
        row |= {"parameters": json.dumps(parameters), "metrics": json.dumps(metrics)}
        registry.log_run(folder, row)
