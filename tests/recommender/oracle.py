"""Slow and obvious versions of what the recommender does fast."""

import numpy as np

from habitlab.recommender import context
from habitlab.recommender.guardrails import ADULT


def rerank(items, scores, alike, category, k, diversity, needed, places):
    """One user's list, a choice at a time."""
    left, chosen = [(h, s) for h, s in zip(items, scores, strict=True) if h >= 0], []
    if diversity == 0:
        return [h for h, _ in left][:k]
    while left and len(chosen) < k:
        kinds = {category[h] for h in chosen}
        allowed = left
        if len(chosen) < places and needed - len(kinds) >= places - len(chosen):
            fresh = [(h, s) for h, s in left if category[h] not in kinds]
            allowed = fresh or left
        values = [
            np.float32(s * (1 - diversity))
            - max((np.float32(alike[h, c]) * np.float32(diversity) for c in chosen), default=np.float32(0))
            for h, s in allowed
        ]
        best = allowed[int(np.argmax(values))]
        chosen.append(best[0])
        left.remove(best)
    return chosen


def inclusion(best, eligible, epsilon):
    """Probability of every eligible habit to stand on the list that is drawn; they add up to k."""
    rest = len(eligible) - len(best) + 1
    chances = {best[-1]: 1 - epsilon + epsilon / rest} | dict.fromkeys(best[:-1].tolist(), 1.0)
    return np.array([chances.get(habit, epsilon / rest) for habit in eligible.tolist()])


def sift(group, row, habits, day, hour, tomorrow):
    """What may be offered to one person, and what took the rest away: a habit at a time."""
    left, taken = [], {}
    age, budget = group.age[row], group.budget[row]
    shown = [
        habit
        for who, habit, when in zip(group.shown_to, group.shown, group.shown_day, strict=True)
        if who == row and when > day - context.FATIGUE_DAYS
    ]
    for h in range(len(habits)):
        low, high = np.nan_to_num(habits.min_age[h]), np.nan_to_num(habits.max_age[h], nan=np.inf)
        grown = context.YOUNGEST if np.isnan(age) else age
        young = low > context.YOUNGEST if np.isnan(age) else age < low and (habits.bodily[h] or age < ADULT)
        ends = context.PART_ENDS[habits.part[h]] if habits.part[h] >= 0 else 99
        reasons = {
            "unsafe": habits.safe_from[h] > grown,
            "age": young or (habits.bodily[h] and age >= high + context.SOFT_YEARS),
            "held": group.held[row, h],
            "prerequisite": any(
                habits.requires[h, other] and not group.held[row, other] for other in range(len(habits))
            ),
            "time_budget": habits.minutes[h] > budget,
            "rejected": day - group.rejected[row, h] < context.COOL_DOWN,
            "given_up": day - group.given_up[row, h] < context.REST,
            "shown_often": shown.count(h) >= context.FATIGUE,
            "time_of_day": not tomorrow and hour is not None and hour >= context.NIGHT_ENDS and ends <= hour,
        }
        first = next((reason for reason in context.REASONS if reasons[reason]), None)
        if first is None:
            left.append(h)
        else:
            taken[first] = taken.get(first, 0) + 1
    return left, taken
