"""The recommender: fit once on a dataset, then answer for any of its users, or for somebody new, in milliseconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property, lru_cache
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from habitlab.recommender import choice, context, diversity, draws, exploration
from habitlab.recommender.blend import BESIDE_CONTENT, Blend, overlap, total
from habitlab.recommender.candidates import PARTS, Candidates, with_catalogue
from habitlab.recommender.draws import Drawn
from habitlab.recommender.people import People, answers_of
from habitlab.recommender.recommendations import Item, Note, Recommendations
from habitlab.recommender.since import Since

if TYPE_CHECKING:
    import pandas as pd

    from habitlab.dataset import Dataset
    from habitlab.features.days import Day

Floats = npt.NDArray[np.float64]

MOST_KEPT = 20_000_000
"""Scores of models kept for users of the dataset; of more, each request asks the models."""

MODELS_SUFFIX = ".models"
_BLOCK = 2048
PERSONAL = {"improvement_areas", "activity_preferences", "time_commitment", "preferred_time", "difficulty_preference"}
"""Answers that make a list personal from the first day."""

_INTERVAL_POINTS = 501
_TIED = 1e-6  # scores that differ by less differ by rounding
_NO_WEIGHT = 1e-9  # what a fit leaves of a weight that is none


@dataclass(frozen=True)
class Models:
    """The fitted models that are blended; see `habitlab.models`."""

    content: Any
    similar_people: Any
    success: Any


class Recommender:
    """Blends the models, filters by context and guardrails, and makes a varied list with known propensities.

    Parameters
    ----------
    blend
        Weights of the models.
    diversity
        0 the best scores, 1 nothing but variety; see `diversity.rerank`.
    exploration
        Probability with which the last place is drawn by lot; see `exploration`.
    seed
        Of the models and of the draws.
    models
        Unfitted models instead of the usual ones.
    """

    blend: Blend
    candidates_: Candidates
    people_: People
    version_: str
    """Short hash of everything learnt and set: two recommenders with one version give the same lists."""

    def __init__(
        self,
        blend: Blend | None = None,
        *,
        diversity: float = 0.05,
        exploration: float = 0.1,
        seed: int = 0,
        models: Models | None = None,
    ) -> None:
        """Set the parameters; ValueError for those out of range."""
        self.blend = blend or Blend()
        self.diversity, self.exploration, self.seed = _probability("diversity", diversity), exploration, seed
        _probability("exploration", exploration)
        self._unfitted = models
        self._models_file: str | None = None

    def fit(self, dataset: Dataset, until: Day | None = None) -> Self:
        """Fit the models, and prepare every user, on what happened strictly before the local day `until`.

        Imported trackers get the built-in catalogue as candidates first (`candidates.with_catalogue`). ValueError if
        there are no habits.
        """
        from habitlab.features.days import until_day
        from habitlab.models.interactions import Interactions

        dataset = with_catalogue(dataset)
        if dataset.habits.empty:
            raise ValueError("there are no habits to recommend: the table `habits` of this dataset is empty")
        models = self._unfitted or _usual_models(self.seed)
        self._unfitted = None  # fitted, they are `models_`
        self.models_ = Models(
            content=models.content.fit(dataset, until),
            similar_people=models.similar_people.fit(dataset, until),
            success=models.success.fit(dataset, until),
        )
        self.candidates_ = Candidates.of(dataset.habits)
        interactions = Interactions.read(dataset, until)
        self.people_ = People.read(dataset, self.candidates_, interactions, until)
        self.day_ = until_day(until, dataset.habit_tracking)
        self._habits = _rows(dataset.habits)
        self._everybody = self.people_.weekdays.mean(axis=0) if len(self.people_.ids) else np.zeros(7)
        self._notes = tuple(_notes(dataset, self.models_))
        self._prepare(dataset)
        return self

    @cached_property
    def models_(self) -> Models:
        """The fitted models; they are read from their file when somebody new asks, for they take long to import."""
        from habitlab.models import storage

        if self._models_file is None:
            raise ValueError(
                "this recommender is not fitted, or its models were not saved with it: use Recommender.save"
            )
        return storage.load(self._models_file, kind="models")

    def save(self, path: str | Path) -> None:
        """Write to `path`, and the models, which only new people need, beside it with the suffix `.models`."""
        from habitlab.models import storage

        path = Path(path)
        storage.save(self.models_, path.with_suffix(MODELS_SUFFIX), kind="models")
        storage.save(self, path, kind="recommender")

    @classmethod
    def load(cls, path: str | Path) -> Recommender:
        """Read what `save` wrote; raises as `habitlab.models.storage.load` does."""
        from habitlab.models import storage

        found: Recommender = storage.load(path, kind="recommender")
        found._models_file = str(Path(path).with_suffix(MODELS_SUFFIX))
        return found

    def _prepare(self, dataset: Dataset) -> None:
        models, candidates = self.models_, self.candidates_
        self._block_weights = {
            name: float(weight) for name, weight in models.content.weights_.items() if weight > _NO_WEIGHT
        }
        self.alike_ = diversity.similarity(
            candidates.category, candidates.activities, candidates.minutes, _text_vectors(models.content)
        )
        self._chances = np.linspace(0.0, 1.0, _INTERVAL_POINTS)
        self._interval: Floats | None = None
        if hasattr(models.success, "score_interval"):
            self._interval = np.stack(models.success.score_interval(self._chances))
        self._kept: npt.NDArray[np.float32] | None = None
        users, parts = len(self.people_.ids), len(self._block_weights) + 2
        if users * len(candidates) * parts <= MOST_KEPT:
            kept = np.empty((users, parts, len(candidates)), dtype=np.float32)
            for block in _blocks(users):
                kept[block] = self._ask(self.people_.ids[block])
            self._kept = kept
        self._unprofiled = np.flatnonzero(~self.people_.profiled)
        self._kept_answers: npt.NDArray[np.float32] | None = None
        if self._kept is not None:
            self._kept_answers = np.empty((len(self._unprofiled), parts, len(candidates)), dtype=np.float32)
            for block in _blocks(len(self._unprofiled)):
                self._kept_answers[block] = self._ask_answers(self._unprofiled[block])
        self.version_ = self._hash()

    def _hash(self) -> str:
        digest = hashlib.sha256(json.dumps([asdict(self.blend), *self._settings()], sort_keys=True).encode())
        for thing in (self.candidates_, self.people_):
            for name, array in sorted(vars(thing).items()):
                digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        for array in (self.alike_, self._kept, self._kept_answers, self._interval):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]

    def _settings(self) -> list[Any]:
        return [self.diversity, self.exploration, self.seed, self.day_, self._block_weights]

    def _ask(self, user_ids: Sequence[str] | npt.NDArray[np.str_]) -> Floats:
        """Scores of the models (users, parts, habits): blocks of content, similar people, success."""
        ids = [str(user) for user in user_ids]
        similarities = self.models_.content.similarities(ids)
        rest = (self.models_.similar_people.score(ids), self.models_.success.score(ids))
        return np.stack([*(similarities[name] for name in self._block_weights), *rest], axis=1)

    def rows(self, user_ids: Sequence[str] | None = None) -> npt.NDArray[np.int64]:
        """Where users stand among those of the dataset (n,); ValueError naming the nearest for an unknown one."""
        if user_ids is None:
            return np.arange(len(self.people_.ids))
        if isinstance(user_ids, str):
            raise ValueError(f"give a list of user ids, not one text: [{user_ids!r}]")
        known = self._places
        for user in user_ids:
            if user not in known:
                near = get_close_matches(str(user), known, n=3, cutoff=0.5)
                hint = f"; nearest: {', '.join(near)}" if near else ""
                raise ValueError(f"no user {str(user)!r} in this dataset{hint}")
        return np.array([known[user] for user in user_ids], dtype=np.int64)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {str(user): row for row, user in enumerate(self.people_.ids)}

    @property
    def user_ids_(self) -> npt.NDArray[np.object_]:
        """Ids of all users (users,), in the order of the dataset."""
        return self.people_.ids.astype(object)

    @property
    def habit_ids_(self) -> npt.NDArray[np.object_]:
        """Ids of all candidates (habits,): those of the dataset in its order, then the catalogue's."""
        return self.candidates_.ids.astype(object)

    def contributions(self, user_ids: Sequence[str] | None = None) -> dict[str, Floats]:
        """Parts of each score by name (users, habits); they add up to `score`. ValueError for unknown users."""
        return self._contributions_of(self.rows(user_ids))

    def _contributions_of(self, rows: npt.NDArray[np.int64]) -> dict[str, Floats]:
        return self._blended(self._raw(rows), self.people_, rows)

    def _raw(self, rows: npt.NDArray[np.int64]) -> Floats:
        # Asked or kept, in whatever block: the models differ in the last bit by block, which single precision forgets.
        kept = self._ask(self.people_.ids[rows]).astype(np.float32) if self._kept is None else self._kept[rows]
        return kept.astype(np.float64)

    def _raw_of_answers(self, rows: npt.NDArray[np.int64]) -> Floats:
        """The same for people of whom nothing is known but what they told, and nobody is compared with them."""
        if self._kept_answers is None or not np.isin(rows, self._unprofiled).all():  # some withdrew it since the fit
            return self._ask_answers(rows).astype(np.float32).astype(np.float64)
        return self._kept_answers[np.searchsorted(self._unprofiled, rows)].astype(np.float64)

    def _ask_answers(self, rows: npt.NDArray[np.int64]) -> Floats:
        import pandas as pd

        told = pd.DataFrame([self.people_.profile(row) for row in rows.tolist()], dtype=object)
        return self._ask_profiles(_with_ids(told), None)

    def _blended(self, raw: Floats, people: People, rows: npt.NDArray[np.int64]) -> dict[str, Floats]:
        return self.blend.contributions(
            {name: raw[:, number] for number, name in enumerate(self._block_weights)},
            self._block_weights,
            similar_people=raw[:, -2],
            success=raw[:, -1],
            preference=overlap(people.liked[rows], self.candidates_.activities),
            misfit=context.misfit(people.age[rows], self.candidates_),
            evidence=people.evidence[rows],
        )

    def score(self, user_ids: Sequence[str] | None = None) -> Floats:
        """Score every habit for these users (users, habits), in [0, 1]; None is all. ValueError for unknown users."""
        rows = self.rows(user_ids)
        scores = np.empty((len(rows), len(self.candidates_)))
        for block in _blocks(len(rows)):
            scores[block] = total(self._contributions_of(rows[block]))
        return scores

    def score_profiles(self, users: pd.DataFrame, consent: npt.NDArray[np.bool_] | None = None) -> Floats:
        """Score every habit for people who have just registered (n, habits), from columns of the table `users`.

        `consent` (n,): who agrees to be compared with similar users; nobody unless it is said.
        """
        users = _with_ids(users)
        people = People.strangers(users, self.candidates_, self._everybody)
        return total(self._blended(self._ask_profiles(users, consent), people, np.arange(len(users))))

    def _ask_profiles(self, users: pd.DataFrame, consent: npt.NDArray[np.bool_] | None) -> Floats:
        similarities = self.models_.content.similarities(users)
        similar_people = self.models_.similar_people.score_profiles(users, consent=consent)
        rest = similar_people, self.models_.success.score_profiles(users)
        return np.stack([*(similarities[name] for name in self._block_weights), *rest], axis=1)

    def recommend(
        self,
        user: str | Mapping[str, Any] | pd.DataFrame,
        k: int = 5,
        at: datetime | str | None = None,
        lang: str = "en",
        *,
        tomorrow: bool = False,
        since: Since | None = None,
        profiled: bool = True,
    ) -> Recommendations:
        """Recommend k habits to one person.

        Parameters
        ----------
        user
            An id of the dataset; or a new person: a registration record, or a row of the table `users`, as a mapping or
            a one-row DataFrame. Who allows `similar_users` in their `consents` is compared with people like them.
        k
            How many; fewer come back, with a warning that says why, where fewer are eligible.
        at
            Moment of viewing on the person's own clock, without a zone; text like 2026-01-05T07:30 is read. None: the
            time of day filters nothing, and days count to the last one of the data.
        lang
            Language of the names; where a habit has no name in it, it keeps the other one.
        tomorrow
            Plan habits whose part of the day is over for another day instead of leaving them out.
        since
            What this person did since the fit; see `Since`.
        profiled
            False: nothing is concluded from what this person does. The list follows from what they told, as somebody's
            who is new; what they hold, rejected and gave up is left out as ever.

        Raises
        ------
        ValueError
            An unknown user, k below 1, or a moment with a zone.
        """
        drawn = self.draw(user, k, at, tomorrow=tomorrow, since=since, profiled=profiled)
        return self.tell(drawn, lang)[0][0]

    def draw(
        self,
        user: str | Mapping[str, Any] | pd.DataFrame,
        k: int = 5,
        at: datetime | str | None = None,
        *,
        tomorrow: bool = False,
        since: Since | None = None,
        profiled: bool = True,
    ) -> Drawn:
        """Draw the list that `recommend` tells, still without words of any language; raises as it does."""
        _check_number(k)
        moment = read_moment(at)
        compared = False
        if isinstance(user, str):
            row, people = self.rows([user]), self.people_
            raw = self._raw(row) if profiled else self._raw_of_answers(row)
        else:
            users, consent = _one_row(user)
            row, people = np.arange(1), People.strangers(users, self.candidates_, self._everybody)
            raw = self._ask_profiles(users, consent)
            compared = bool(consent[0]) and getattr(self.models_.similar_people, "neighbours_", None) is not None
        if since is not None or not profiled:
            since = since or Since()
            people, row = since.of(people, int(row[0]), self.candidates_), np.arange(1)
            if profiled:
                raw = since.shifted(raw, self.candidates_)
            else:
                people = people.unprofiled(self._everybody)
        records = self._draw(people, row, raw, k, [moment], tomorrow=tomorrow)
        records["compared"] = compared
        return _drawn(people, row, k, [moment], records)

    def recommend_as_allowed(
        self, user: Any, k: int = 5, at: datetime | str | None = None, lang: str = "en", *, tomorrow: bool = False
    ) -> Recommendations:
        """As `recommend`; but who refused personalisation gets the list of somebody of whom nothing is known.

        That holds for the consents of the dataset, and for those of a new person. Who does not allow conclusions from
        what they do (`people.may_be_profiled`) gets a list that draws none.
        """
        from habitlab.dataset.vocabulary import Purpose

        if isinstance(user, str):
            refused = bool(self.people_.opted_out[self.rows([user])][0])
        else:
            told = user.get("consents") if isinstance(user, Mapping) else getattr(user, "consents", None)
            refused = isinstance(told, Mapping) and told.get(Purpose.PERSONALISATION) is False
        if not refused:
            if isinstance(user, str) and not self.people_.profiled[self.rows([user])][0]:
                found = self.recommend(user, k, at, lang, tomorrow=tomorrow, profiled=False)
                return replace(found, notes=(Note("unprofiled"), *found.notes))
            return self.recommend(user, k, at, lang, tomorrow=tomorrow)
        if not isinstance(user, str):
            _one_row(user)  # raises for what is no registration, as ever
        found = self.recommend({}, k, at, lang, tomorrow=tomorrow)
        notes = (Note("opted_out"), *(note for note in found.notes if note.key != "impersonal"))
        return replace(found, user_id=user if isinstance(user, str) else found.user_id, notes=notes)

    def recommend_many(
        self,
        user_ids: Sequence[str] | None = None,
        k: int = 5,
        at: Sequence[datetime | str | None] = (None,),
        lang: str = "en",
        *,
        tomorrow: bool = False,
        since: Mapping[str, Since] | None = None,
        unprofiled: Set[str] = frozenset(),
    ) -> Iterator[list[Recommendations]]:
        """Recommend to many users of the dataset: for each, in their order, a list for every moment of `at`.

        Each list is the one that `recommend` returns, to the last bit; but a block of people is scored, filtered and
        varied at once, and scored once for all moments. `user_ids`: None is everybody. `since`: of those who did
        something since the fit, by their id. `unprofiled`: those of whom nothing is concluded from what they do. Raises
        as `recommend` does.
        """
        drawn = self.draw_many(user_ids, k, at, tomorrow=tomorrow, since=since, unprofiled=unprofiled)
        for block in drawn:
            yield from self.tell(block, lang)

    def draw_many(
        self,
        user_ids: Sequence[str] | None = None,
        k: int = 5,
        at: Sequence[datetime | str | None] = (None,),
        *,
        tomorrow: bool = False,
        since: Mapping[str, Since] | None = None,
        unprofiled: Set[str] = frozenset(),
    ) -> Iterator[Drawn]:
        """Draw the lists that `recommend_many` tells, a block of people after the other; raises as it does."""
        _check_number(k)
        moments = [read_moment(moment) for moment in at]
        rows, happened = self.rows(user_ids), since or {}
        for block in _blocks(len(rows)):
            yield self._draw_block(rows[block], k, moments, tomorrow, happened, unprofiled)

    def _draw_block(
        self,
        rows: npt.NDArray[np.int64],
        k: int,
        moments: Sequence[datetime | None],
        tomorrow: bool,
        since: Mapping[str, Since],
        unprofiled: Set[str],
    ) -> Drawn:
        ids = self.people_.ids[rows].tolist()
        careful = [place for place, user in enumerate(ids) if user in unprofiled and user not in since]
        both = [place for place, user in enumerate(ids) if user in unprofiled and user in since]
        moved = [place for place, user in enumerate(ids) if user in since and user not in unprofiled]
        others = [place for place, user in enumerate(ids) if user not in since and user not in unprofiled]
        records = np.zeros((len(rows), len(moments)), dtype=self.record(k))

        def alone(places: list[int]) -> People:
            happened = [(since[ids[place]], int(rows[place])) for place in places]
            return People.joined([one.of(self.people_, row, self.candidates_) for one, row in happened])

        def draw(places: list[int], people: People, where: npt.NDArray[np.int64], raw: Floats) -> None:
            records[places] = self._draw(people, where, raw, k, moments, tomorrow=tomorrow)

        if others:
            draw(others, self.people_, rows[others], self._raw(rows[others]))
        if moved:
            raw = self._raw(rows[moved])
            shifted = [since[ids[place]].shifted(raw[[n]], self.candidates_) for n, place in enumerate(moved)]
            draw(moved, alone(moved), np.arange(len(moved)), np.concatenate(shifted))
        if careful:
            people = self.people_.unprofiled(self._everybody)
            draw(careful, people, rows[careful], self._raw_of_answers(rows[careful]))
        if both:
            people = alone(both).unprofiled(self._everybody)
            draw(both, people, np.arange(len(both)), self._raw_of_answers(rows[both]))
        return _drawn(self.people_, rows, k, moments, records)

    def record(self, k: int) -> np.dtype[np.void]:
        """Return the form in which lists of k habits are kept; see `draws.record`."""
        return draws.record(min(k, len(self.candidates_)), len(self._parts))

    @property
    def _parts(self) -> tuple[str, ...]:
        return (*self._block_weights, *BESIDE_CONTENT)

    def _draw(
        self,
        people: People,
        rows: npt.NDArray[np.int64],
        raw: Floats,
        k: int,
        moments: Sequence[datetime | None],
        *,
        tomorrow: bool,
    ) -> draws.Records:
        """Lists of a block of people for each of the moments (people, moments); `raw` as `_ask` returns it."""
        named = self._blended(raw, people, rows)
        score, group = total(named), people.group(rows, len(self.candidates_))
        parts = [named[name] for name in self._parts]
        weight = self.blend.weights(people.evidence[rows])["success"][:, None]
        chance = np.divide(named["success"], weight, out=np.full(score.shape, np.nan), where=weight > 0)
        chance = np.clip(chance, 0.0, 1.0)
        records = np.zeros((len(rows), len(moments)), dtype=self.record(k))
        records["average"] = np.stack([part.mean(axis=1) for part in parts], axis=1)[:, None]
        records["acted"] = (people.evidence[rows] > 0)[:, None]
        records["ageless"] = np.isnan(group.age)[:, None]
        ids = people.ids[rows].tolist()
        for number, at in enumerate(moments):
            stamp = None if at is None else at.isoformat()
            chosen = choice.choose(
                score,
                group,
                self.candidates_,
                self.alike_,
                [exploration.lots(self.seed, user, stamp) for user in ids],
                k=k,
                day=self.day_ if at is None else context.day_number(at),
                at=at,
                tomorrow=tomorrow,
                varied=self.diversity,
                epsilon=self.exploration,
            )
            draws.fill(records[:, number], chosen, score, chance, parts)
        return records

    def tell(self, drawn: Drawn, lang: str = "en") -> list[list[Recommendations]]:
        """Return the lists of each person for each moment; ValueError for what no list of this recommender can hold."""
        habits = drawn.records["habits"]
        if drawn.records.dtype != self.record(drawn.k) or (habits >= len(self.candidates_)).any():
            raise ValueError("these lists are none of this recommender")
        items = {habit: self._item(habit, lang) for habit in np.unique(habits[habits >= 0]).tolist()}
        lists, intervals = drawn.lists(), self._between(drawn.records["chance"])
        return [
            [
                self._told(one, between, items, drawn.k, user, zone, person, at, lang)
                for one, between, at in zip(several, betweens, drawn.moments, strict=True)
            ]
            for several, betweens, user, zone, person in zip(
                lists, intervals, drawn.user_ids, drawn.zones, map(answers_of, drawn.people), strict=True
            )
        ]

    def _told(
        self,
        one: Mapping[str, Any],
        intervals: Sequence[Sequence[float]],
        items: Mapping[int, Item],
        k: int,
        user: str,
        zone: str,
        person: Mapping[str, Any],
        at: datetime | None,
        lang: str,
    ) -> Recommendations:
        """Return the list of a record; `items` without what is somebody's."""
        length, parts = sum(habit >= 0 for habit in one["habits"]), self._parts
        filtered = {reason: count for reason, count in zip(context.REASONS, one["taken"], strict=True) if count}
        return Recommendations(
            user_id=user,
            items=tuple(
                replace(
                    items[habit],
                    rank=place + 1,
                    reasons=[],
                    score=one["score"][place],
                    success_probability=None if isnan(one["chance"][place]) else one["chance"][place],
                    contributions=dict(zip(parts, one["parts"][place], strict=True)),
                    propensity=one["propensity"][place],
                    by_lot=one["by_lot"] and place == length - 1,
                    weekday=one["weekday"][place],
                    starts=context.date_of(one["starts"][place]),
                    success_interval=None if isnan(low) else (low, high),
                )
                for place, (habit, (low, high)) in enumerate(zip(one["habits"][:length], intervals, strict=False))
            ),
            filtered=filtered,
            model_version=self.version_,
            notes=(
                *self._notes,
                *([Note("impersonal")] if PERSONAL.isdisjoint(person) else []),
                *([Note("ageless")] if one["ageless"] and "age" in filtered else []),
                *([Note("tied", {"habits": one["eligible"]})] if one["eligible"] > 1 and one["spread"] < _TIED else []),
                *_shortage(k, length, len(self.candidates_), filtered),
            ),
            at=at,
            shown_at=_instant(at, zone),
            policy=f"blend {self.version_}, last place by lot {self.exploration:g}",
            language=lang,
            person=person,
            neutral=dict(zip(parts, one["average"], strict=True)),
            has_history=one["acted"],
            compared=one["compared"],
        )

    def _item(self, habit: int, lang: str) -> Item:
        """An item without what is somebody's."""
        candidates = self.candidates_
        return Item(
            rank=0,
            habit_id=str(candidates.ids[habit]),
            name=candidates.name(habit, lang),
            score=0.0,
            success_probability=None,
            contributions={},
            part_of_day=None if candidates.part[habit] < 0 else PARTS[candidates.part[habit]],
            habit=_habit(self._habits[habit]),
        )

    def _between(self, chances: Floats) -> list[Any]:
        """Interval of each probability (..., 2), as nested lists; NaN where none is known."""
        bounds = np.full((*chances.shape, 2), np.nan)
        if self._interval is not None:
            low, high = (np.interp(chances, self._chances, bound) for bound in self._interval)
            bounds = np.stack([np.minimum(low, chances), np.maximum(high, chances)], axis=-1)
        return bounds.tolist()


def _drawn(
    people: People, rows: npt.NDArray[np.int64], k: int, moments: Sequence[datetime | None], records: draws.Records
) -> Drawn:
    ids, zones, told = people.ids[rows], people.zone[rows], people.profiles[rows]
    return Drawn(ids.tolist(), zones.tolist(), told.tolist(), moments, k, records)


def _check_number(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k is the number of habits, 1 or more; got {k!r}")


@lru_cache(maxsize=4096)
def _habit(row: str) -> dict[str, Any]:
    """Read a row of `_rows`; whoever asks gets the same one, which nobody changes."""
    found: dict[str, Any] = json.loads(row)
    return found


def read_moment(at: datetime | str | None) -> datetime | None:
    """Return a moment on a person's own clock; ValueError for text that is none, or for one with a zone."""
    if at is None:
        return None
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError as error:
            raise ValueError(f"{at!r} is not a moment like 2026-01-05T07:30") from error
    if at.tzinfo is not None:
        raise ValueError(f"the moment is on the person's own clock, without a zone, like 2026-01-05T07:30; got {at}")
    return at


def _usual_models(seed: int) -> Models:
    from habitlab.models.collaborative import CollaborativeModel
    from habitlab.models.content import ContentModel
    from habitlab.models.success import SuccessModel

    return Models(ContentModel(), CollaborativeModel(seed=seed), SuccessModel(seed=seed))


def _text_vectors(content: Any) -> Floats | None:
    """Texts of habits as the content model places them (habits, d); None where it has none."""
    if not hasattr(content, "habit_vectors"):
        return None
    vectors = content.habit_vectors()
    text = vectors[[name for name in vectors.columns if name.split("=")[0] == "text"]]
    return text.fillna(0.0).to_numpy() if text.shape[1] else None


def _rows(habits: pd.DataFrame) -> list[str]:
    """Rows of the table `habits` as JSON, without what is missing."""
    table = habits.astype(object)
    rows = table.where(table.notna(), None).to_dict("records")
    return [
        json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False, default=str) for row in rows
    ]


def _notes(dataset: Dataset, models: Models) -> Iterator[Note]:
    """What this dataset cannot give, for everybody alike."""
    if getattr(models.success, "fallback_", ""):
        yield Note("same_chance", {"adoptions": models.success.counts_["pairs"]})
    if len(dataset.users) < 2:
        yield Note("alone")


def _shortage(k: int, found: int, habits: int, filtered: Mapping[str, int]) -> Iterator[Note]:
    if not found:
        yield Note("emptied", {"habits": habits, "last": list(filtered)[-1]})
    elif found < k:
        yield Note("few", {"k": k, "found": found, "habits": habits})


@lru_cache(maxsize=1024)
def _instant(at: datetime | None, zone: str) -> datetime | None:
    if at is None or not zone:
        return None
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return at.replace(tzinfo=ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError):
        return None


def _one_row(user: Mapping[str, Any] | pd.DataFrame | Any) -> tuple[pd.DataFrame, npt.NDArray[np.bool_]]:
    """Return a new person as a one-row table in the dtypes of the contract, and consent to be compared (1,).

    A registration has been checked before.
    """
    import pandas as pd

    from habitlab.dataset import Dataset, check
    from habitlab.dataset.schema import TABLES
    from habitlab.dataset.vocabulary import Purpose

    if hasattr(user, "to_row"):
        record: Any = user
        return _with_ids(record.to_row()), np.array([record.granted(Purpose.SIMILAR_USERS)])
    compared = False
    if isinstance(user, Mapping):
        user = dict(user)
        consents = user.pop("consents", None) or {}
        if not isinstance(consents, Mapping):
            raise ValueError(f"consents are told by purpose, such as {{'similar users': True}}; got {consents!r}")
        compared = consents.get(Purpose.SIMILAR_USERS) is True
        user = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in user.items()}, index=[0])
    if not isinstance(user, pd.DataFrame) or len(user) != 1:
        raise ValueError("a new person is a row of the table `users`: a mapping of its columns, or a one-row DataFrame")
    columns = list(TABLES["users"].columns)
    for name in user.columns:
        if name not in columns:
            near = get_close_matches(str(name), columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(columns)}"
            raise ValueError(f"unknown answer {name!r}{hint}")
    users = _with_ids(user)
    check(Dataset(users=users))
    return users, np.array([compared])


def _with_ids(users: pd.DataFrame) -> pd.DataFrame:
    """Bring answers to the dtypes of the contract; people without an id are called `new`."""
    from habitlab.dataset.schema import coerce

    if "user_id" not in users or users["user_id"].isna().any():
        users = users.assign(user_id="new")
    return coerce("users", users.reset_index(drop=True))


def _blocks(count: int) -> Iterator[slice]:
    return (slice(begin, begin + _BLOCK) for begin in range(0, count, _BLOCK))


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a number from 0 to 1; got {value:g}")
    return value
