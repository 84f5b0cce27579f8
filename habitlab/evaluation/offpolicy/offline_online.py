"""Which offline number predicts what really happens? Policies run for real in simulated worlds, beside what logs say.

In each world people register and live with their habits. From the day `DAY` on nothing is known: the policies are
fitted to what came before (global temporal split), and each gives everybody a list. Then

- the truth: the list is shown for real on that day, `online.run_lists`, over the world's own noise;
- offline metrics: the list is held against what people took up later, from slates of the logging policies;
- off-policy estimates: the logged answers from that day on are weighed as if a habit of the list, drawn by lot, had
  stood in the place (`online.list_policy`);
- a trial: what came of the lists in one draw of the noise, the same people getting every list.

The logging policies are two, given to people by lot: random slates, and slates that favour popular habits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from habitlab.dataset import Dataset
from habitlab.evaluation import leaderboard, metrics, splits
from habitlab.evaluation.offpolicy import METHODS, estimate_quietly, online, reward_model
from habitlab.evaluation.offpolicy.online import SlateLog
from habitlab.evaluation.splits import Split
from habitlab.features.days import Day
from habitlab.models.baselines import AsWritten, Popularity, Random
from habitlab.models.pairs import success_labels
from habitlab.recommender.recommend import Recommender
from habitlab.simulation import World, make_world, populate
from habitlab.simulation.people import FIRST_DAY
from habitlab.simulation.truth import WINDOW, success_probability

Floats = npt.NDArray[np.float64]

DAYS, DAY, K = 180, 75, 10
"""Days of a world, the day on which the lists are shown, and their length."""

ORACLE = "knows the truth"
"""The best list there is; nobody can make it, so that it is left out of comparisons of rank."""

POLICIES = ("random", "popularity", "content", "similar people", "success", "blend", "as written", ORACLE)

OF_ADOPTED, OF_KEPT = "adopted later", "kept later"
ALONE, WEIGHED_ADOPTED, WEIGHED_KEPT = "the list alone", "off-policy, adopted", "off-policy, kept"
TRIAL = "a trial"
"""What a number is held against, or comes from."""

_LOWER_IS_BETTER = ("gini", "miscalibration")
_RELEVANCE = ("precision", "recall", "capped_recall", "hit_rate", "average_precision", "reciprocal_rank", "ndcg")


@dataclass(frozen=True)
class Worlds:
    """What happened and what was said, one row a policy of a world and ... in each frame.

    `truth`: world, policy, adopted, kept (expected of 100 people who are there), people. `said`: world, policy, group,
    number, value (more is better, or said to be). `weighed`: world, policy, target, outcome, method, value, ci_low,
    ci_high, truth (NaN where it is not known exactly), usable, effective, rows, largest_weight, warning. `logs`: world,
    policy, log, ndcg, mean (of the logged answers to habits of its list), snips.
    """

    truth: pd.DataFrame
    said: pd.DataFrame
    weighed: pd.DataFrame
    logs: pd.DataFrame


def run_worlds(
    worlds: int, users: int, *, seed: int = 0, effects: Mapping[str, float] | None = None, retention: str = "trial"
) -> Worlds:
    """Run every policy in so many worlds of so many users, and say what each log would have said.

    World w has the seed `seed` + 1000 + w. Raises ValueError for fewer than one world, or as `make_world` does.
    """
    if worlds < 1:
        raise ValueError(f"worlds is the number of worlds, 1 or more; got {worlds}")
    found = []
    for number in range(worlds):
        world = make_world(users, DAYS, seed + 1000 + number, effects, retention)
        found.append([frame.assign(world=number) for frame in one_world(world)])
    return Worlds(*(pd.concat(frames, ignore_index=True) for frames in zip(*found, strict=True)))


def like(dataset: Dataset, worlds: int | None, users: int | None, *, seed: int = 0) -> Worlds:
    """Run worlds with the planted effects and the retention of a simulated dataset; of a real one, with the usual ones.

    None: 12 worlds of 500 users, or 2 of 300 where the dataset is real or itself smaller than a world.
    """
    planted = dataset.metadata.get("simulation", {})
    usual = (12, 500) if planted and len(dataset.users) >= 500 else (2, 300)
    size = worlds or usual[0], users or usual[1]
    return run_worlds(*size, seed=seed, effects=planted.get("effects"), retention=planted.get("retention", "trial"))


def one_world(world: World, day: int = DAY, k: int = K) -> tuple[pd.DataFrame, ...]:
    """Run every policy in one world; the frames of `Worlds`, without the column world."""
    dataset, until = populate(world), pd.Timestamp(FIRST_DAY) + pd.Timedelta(days=day)
    split = splits.temporal(dataset, until)
    moment = online.Moment.of(world, day)
    scores = score_all(world, split.train, moment, until)
    lists = {name: leaderboard.top_k(np.where(moment.allowed, one, -np.inf), k)[0] for name, one in scores.items()}
    ran = {name: online.run_lists(world, one, day=day) for name, one in lists.items()}
    random, popular = (online.slate_log(world, since=day, popular=which) for which in (False, True))
    labels = success_labels(dataset)
    scorers = {
        name: _Fixed(np.where(moment.allowed, one, -np.inf), pd.Index(world.user_ids), split.habit_ids)
        for name, one in scores.items()
    }
    adopted = leaderboard.per_user(scorers, dataset, split, k)
    weighed = _weigh(scores, random, _kept(random, labels), k)
    said = pd.concat(
        [_metrics(adopted, scorers, dataset, split, labels, k), _by_estimates(weighed), _by_trial(ran, moment)],
        ignore_index=True,
    )
    truth = pd.DataFrame(
        {
            "policy": list(ran),
            "adopted": [100 * one["expected_adoptions"].sum() / moment.here.sum() for one in ran.values()],
            "kept": [100 * one["expected_successes"].sum() / moment.here.sum() for one in ran.values()],
            "people": int(moment.here.sum()),
        }
    )
    logs = pd.concat(
        [
            _of_log(name, log, adopted, scores, np.isin(split.user_ids, world.user_ids[np.unique(log.user)]), k)
            for name, log in (("random", random), ("popular", popular))
        ],
        ignore_index=True,
    )
    return truth, said, weighed, logs


def score_all(world: World, train: Dataset, moment: online.Moment, until: Day) -> dict[str, Floats]:
    """Score every habit for everybody by each policy (users, habits), fitted to `train`, the time before `until`."""
    recommender = Recommender(seed=world.seed).fit(train, until)
    models = recommender.models_
    user, habit = (places.ravel() for places in np.indices(moment.allowed.shape))
    success = success_probability(world, user, habit, moment.start[user], moment.held[user] + 1)
    scores = (
        Random(world.seed).fit(train, until).score(),
        Popularity().fit(train, until).score(),
        models.content.score(),
        models.similar_people.score(),
        models.success.score(),
        recommender.score(),
        AsWritten().fit(train, until).raw(),
        moment.chances * success.reshape(moment.allowed.shape),
    )
    return dict(zip(POLICIES, scores, strict=True))


@dataclass(eq=False)
class _Fixed:
    """Scores that are made already, as a model that `leaderboard` can ask."""

    scores: Floats
    users: pd.Index
    habit_ids_: Any

    def fit(self, dataset: Dataset, until: Day | None = None) -> _Fixed:
        return self

    def score(self, user_ids: list[str]) -> Floats:
        return self.scores[self.users.get_indexer(pd.Index(user_ids))]


def _metrics(
    adopted: pd.DataFrame, scorers: Mapping[str, _Fixed], dataset: Dataset, split: Split, labels: pd.DataFrame, k: int
) -> pd.DataFrame:
    """Every offline metric of every policy: held against what was adopted later, what of it was kept, and alone."""
    good = labels[labels["success"]]
    users, habits = pd.Index(split.user_ids), pd.Index(split.habit_ids)
    row, column = users.get_indexer(pd.Index(good["user_id"])), habits.get_indexer(pd.Index(good["habit_id"]))
    known = row >= 0
    shape = split.relevant.shape
    successes = sparse.csr_array((np.ones(int(known.sum())), (row[known], column[known])), shape=shape)
    relevant = sparse.csr_array(split.relevant.multiply(successes > 0))
    relevant.eliminate_zeros()
    kept = leaderboard.per_user(scorers, dataset, replace(split, relevant=relevant), k)
    rows = []
    for name, scorer in scorers.items():
        listed = leaderboard.recommend(name, scorer, split, k)
        for values, group in ((adopted, OF_ADOPTED), (kept, OF_KEPT)):
            for metric, value in values[name].mean().items():
                short = str(metric).partition("@")[0]
                against = short in _RELEVANCE or short == "serendipity"
                if against or group == OF_ADOPTED:
                    sign = -1.0 if short in _LOWER_IS_BETTER else 1.0
                    rows.append((name, group if against else ALONE, short, sign * value))
        rows.append((name, ALONE, "catalogue_coverage", metrics.catalogue_coverage(listed, shape[1])))
        rows.append((name, ALONE, "gini", -metrics.gini(listed, shape[1])))
    frame = pd.DataFrame(rows, columns=["policy", "group", "number", "value"])
    return frame.assign(number=frame["number"].str.replace("_", " "))


def _kept(log: SlateLog, labels: pd.DataFrame) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Rows whose outcome the data can know, and of all rows whether the habit was adopted and kept."""
    mature = log.day + WINDOW[1] <= DAYS
    habits = log.allowed.shape[1]
    good = labels.loc[labels["success"], "user"] * habits + labels.loc[labels["success"], "habit"]
    return mature, log.reward * np.isin(log.user * habits + log.habit, good)


def _weigh(
    scores: Mapping[str, Floats], log: SlateLog, kept: tuple[npt.NDArray[np.bool_], Floats], k: int
) -> pd.DataFrame:
    """Every off-policy estimate of every policy from the log: any of its k best, by lot, and its best alone."""
    mature, good = kept
    rows: list[dict[str, Any]] = []
    for name, score in scores.items():
        for target, policy in (("any of its list", online.list_policy(log, score, k)), ("its best", None)):
            chance = online.place_policy(log, score) if policy is None else policy
            truth = float(online.true_value(log, chance).mean())
            rows += _estimates(log, log.reward, chance, policy=name, target=target, outcome="adopted", truth=truth)
            if policy is not None:
                later = log.rows(mature)
                told = {"policy": name, "target": target, "outcome": "kept", "truth": np.nan}
                rows += _estimates(later, good[mature], chance[mature], **told)
    return pd.DataFrame(rows)


def _estimates(log: SlateLog, reward: Floats, chance: Floats, **told: Any) -> list[dict[str, Any]]:
    model = reward_model.fit(reward, log.habit, chance, clusters=log.user)
    target = chance[np.arange(len(log)), log.habit]
    rows = []
    for method in METHODS:
        found = estimate_quietly(reward, log.propensity, target, clusters=log.user, method=method, reward_model=model)
        rows.append(
            told
            | {"method": method, "value": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high}
            | {"usable": found.usable, "effective": found.effective_sample_size, "rows": found.n}
            | {"largest_weight": found.max_weight, "warning": "" if found.usable else found.warnings[0]}
        )
    return rows


def _by_estimates(weighed: pd.DataFrame) -> pd.DataFrame:
    lists = weighed[weighed["target"] == "any of its list"]
    group = lists["outcome"].map({"adopted": WEIGHED_ADOPTED, "kept": WEIGHED_KEPT})
    return pd.DataFrame({"policy": lists["policy"], "group": group, "number": lists["method"], "value": lists["value"]})


def _by_trial(ran: Mapping[str, pd.DataFrame], moment: online.Moment) -> pd.DataFrame:
    rows = [
        (name, TRIAL, what, 100 * one[column].sum() / moment.here.sum())
        for name, one in ran.items()
        for what, column in (("adopted", "adoptions"), ("kept", "successes"))
    ]
    return pd.DataFrame(rows, columns=["policy", "group", "number", "value"])


def _of_log(
    name: str,
    log: SlateLog,
    adopted: pd.DataFrame,
    scores: Mapping[str, Floats],
    here: npt.NDArray[np.bool_],
    k: int,
) -> pd.DataFrame:
    """What the people of one logging policy say of the same lists: NDCG, plain mean of hits, and snips."""
    rows = []
    for policy, score in scores.items():
        chance = online.list_policy(log, score, k)
        target = chance[np.arange(len(log)), log.habit]
        hit = target > 0
        mean = float(log.reward[hit].mean()) if hit.any() else float("nan")
        snips = estimate_quietly(log.reward, log.propensity, target, clusters=log.user).value
        rows.append((policy, name, float(adopted.loc[here, (policy, f"ndcg@{k}")].mean()), mean, snips))
    return pd.DataFrame(rows, columns=["policy", "log", "ndcg", "mean", "snips"])
