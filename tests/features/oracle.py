"""Habit time written the slow, obvious way, one day after the other: what the fast routines must equal."""

from collections import Counter
from datetime import date, timedelta

RANK = ["unknown", "missed", "skipped", "done"]


def local_days(rows):
    """{(user, habit): {date: status}} from (user, habit, date, status); the highest rank of a day's rows wins."""
    pairs = {}
    for user, habit, day, status in rows:
        days = pairs.setdefault((user, habit), {})
        status = status or "unknown"
        if day not in days or RANK.index(status) > RANK.index(days[day]):
            days[day] = status
    return pairs


class Pair:
    """The days of one user and habit before `as_of`, seen on the morning of `as_of`."""

    def __init__(self, days, target, as_of, week_start=0, unknown="keep"):
        self.as_of, self.week_start, self.unknown = as_of, week_start, unknown
        self.days = {day: days[day] for day in sorted(days) if day < as_of}
        k, n = map(int, (target or "1/1").split("/"))
        self.k, self.n = (1, 1) if k >= n else (k, n)
        self.counts = Counter(self.days.values())
        self.periods = {}
        for day, status in self.days.items():
            self.periods.setdefault(self.period(day), []).append(status)

    def period(self, day):
        if self.n == 1:
            return day
        if self.n == 7:
            return day - timedelta(days=(day.weekday() - self.week_start) % 7)
        if self.n in (30, 31):
            return (day.year, day.month)
        return (day - min(self.days, default=day)).days // self.n

    def outcomes(self):
        """(period, "met" / "broken" / "open", share of the target) in order."""
        for period, statuses in self.periods.items():
            done, unknown, missed = (statuses.count(s) for s in ("done", "unknown", "missed"))
            if self.unknown == "break":
                unknown, missed = 0, missed + unknown
            if done >= self.k:
                yield period, "met", 1.0
            elif missed and done + unknown < self.k and period != self.period(self.as_of):
                yield period, "broken", done / self.k
            else:
                yield period, "open", None

    def runs(self):
        """Lengths of the runs of met periods, the last one (perhaps 0 long) as far as it goes."""
        runs = [0]
        for _, outcome, _ in self.outcomes():
            if outcome == "met":
                runs[-1] += 1
            elif outcome == "broken":
                runs.append(0)
        return runs

    def strength(self, half_life=13.0):
        value, keep = 0.0, 0.5 ** ((self.k * self.n) ** 0.5 / half_life)
        for _, outcome, share in self.outcomes():
            if outcome != "open":
                value = keep * value + (1 - keep) * share
        return value

    def days_since_done(self):
        done = [day for day, status in self.days.items() if status == "done"]
        return (self.as_of - done[-1]).days if done else None

    def periods_since_done(self):
        done = [day for day, status in self.days.items() if status == "done"]
        if not done:
            return None
        scheduled = dict.fromkeys([*self.periods, self.period(self.as_of)])
        order = list(scheduled)
        return order.index(self.period(self.as_of)) - order.index(self.period(done[-1]))

    def features(self):
        done, counted = self.counts["done"], self.counts["done"] + self.counts["missed"]
        return {
            "streak": self.runs()[-1],
            "days_since_done": self.days_since_done(),
            "periods_since_done": self.periods_since_done(),
            "done": done,
            "counted": counted,
            "completion_rate": done / counted if counted else None,
            "strength": self.strength(),
        }

    def summary(self):
        outcomes = Counter(outcome for _, outcome, _ in self.outcomes())
        runs = [run for run in self.runs() if run]
        return self.features() | {
            "scheduled": len(self.days),
            **{status: self.counts[status] for status in RANK},
            "first_date": min(self.days),
            "last_date": max(self.days),
            "periods_met": outcomes["met"],
            "periods_broken": outcomes["broken"],
            "longest_streak": max(runs, default=0),
            "runs": len(runs),
            "mean_run": sum(runs) / len(runs) if runs else None,
        }


def as_date(value):
    return date.fromisoformat(str(value)[:10])
