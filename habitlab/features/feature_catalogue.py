"""What every feature is: name, meaning, unit, the columns it comes from, and since which version it is there."""

from __future__ import annotations

import pandas as pd

from habitlab.features.behavioural import CATEGORIES, RECENT

_ROWS = "habit_tracking.user_id habit_tracking.habit_id habit_tracking.date habit_tracking.status"
_PERIODS = f"{_ROWS} habits.target"
_CLOCK = "users.zone users.day_start"
_ADOPTED = f"adoptions.user_id adoptions.adopted_at {_CLOCK}"
_HELD = f"{_ADOPTED} adoptions.abandoned_at"
_SHOWN = f"recommendations.user_id recommendations.shown_at {_CLOCK}"
_RESPONDED = f"recommendations.user_id recommendations.response recommendations.responded_at {_CLOCK}"
_ANSWERED = f"{_SHOWN} {_RESPONDED}"
_OPENED = f"sessions.user_id sessions.started_at {_CLOCK}"
_CHOSEN = (
    f"{_ADOPTED} adoptions.habit_id adoptions.source {_RESPONDED} recommendations.habit_id habits.category "
    "users.improvement_areas"
)

_OF_USERS = [
    ("days_since_registration", "days since the user registered; NaN before", "days", f"users.registered_at {_CLOCK}"),
    ("adopted", "habits adopted so far", "count", _ADOPTED),
    ("abandoned", "habits given up so far", "count", _HELD),
    ("held", "habits adopted and not given up", "count", _HELD),
    ("counted_days", "days of habits done or missed", "days", _ROWS),
    ("completion_rate", "days done of days done or missed; NaN without any", "share", _ROWS),
    ("completion_rate_recent", f"the same over the last {RECENT} days", "share", _ROWS),
    ("days_since_done", "days since any habit was done; NaN if never", "days", _ROWS),
    (
        "hour_concentration",
        "mean resultant length of the hours of completions: 1 always the same minute, near 0 any time",
        "0 to 1",
        f"{_ROWS} habit_tracking.at users.zone",
    ),
    ("exposed", "recommendations shown", "count", _SHOWN),
    ("accepted", "recommendations accepted", "count", _ANSWERED),
    ("rejected", "recommendations rejected", "count", _ANSWERED),
    ("acceptance_rate", "accepted of shown; NaN without any", "share", _ANSWERED),
    ("sessions", "openings of the app", "count", _OPENED),
    ("sessions_recent", f"openings of the app in the last {RECENT} days", "count", _OPENED),
    ("days_since_session", "days since the last opening; NaN if never", "days", _OPENED),
    ("modifications", "changes of habits", "count", f"modifications.user_id modifications.at {_CLOCK}"),
    ("ratings", "ratings of habits", "count", f"feedback.user_id feedback.at {_CLOCK}"),
]

_SNAPSHOT = [
    ("completion_rate_shrunk", "completion rate shrunk to that of all users by effective days", "share", _ROWS),
    ("completion_low", "lower end of its 95 % posterior interval", "share", _ROWS),
    ("completion_high", "upper end of its 95 % posterior interval", "share", _ROWS),
    ("strength", "mean habit strength over tracked habits", "0 to 1", _PERIODS),
    ("streak", "longest running streak of any habit", "periods", _PERIODS),
    ("longest_streak", "longest streak ever of any habit", "periods", _PERIODS),
    (
        "difficulty_held",
        "mean difficulty of the habits held",
        "1 to 5",
        f"{_HELD} adoptions.habit_id habits.difficulty",
    ),
    ("minutes_held", "mean minutes of the habits held", "minutes", f"{_HELD} adoptions.habit_id habits.minutes"),
    (
        "difficulty_gradient",
        "change of difficulty with each further habit adopted, shrunk to that of all users",
        "difficulty per adoption",
        f"{_ADOPTED} adoptions.habit_id habits.difficulty",
    ),
    *(
        (
            f"affinity_{category}",
            f"taste for habits of {category}, against anybody with the same offers",
            "log-odds",
            _CHOSEN,
        )
        for category in CATEGORIES
    ),
    (
        "preferred_hour",
        "local hour around which most completions lie",
        "hour of day",
        f"{_ROWS} habit_tracking.at users.zone",
    ),
    ("acceptance_rate_shrunk", "acceptance rate shrunk to that of all users", "share", _ANSWERED),
    (
        "engagement_depth",
        "sum of ln(1 + events) over eight kinds of engagement",
        "log count",
        f"{_OPENED} sessions.seconds {_ADOPTED} {_ROWS} {_RESPONDED} modifications.user_id modifications.at "
        "feedback.user_id feedback.at surveys.user_id surveys.answered_at",
    ),
]

_OF_PAIRS = [
    ("habit_adopted", "times this habit was adopted before", "count", f"{_ADOPTED} adoptions.habit_id"),
    ("habit_counted_days", "days this habit was done or missed", "days", _ROWS),
    ("habit_completion_rate", "days done of those; NaN without any", "share", _ROWS),
    (
        "category_adopted",
        "habits of this category adopted before; NaN where the category is not known",
        "count",
        f"{_ADOPTED} adoptions.habit_id habits.category",
    ),
    ("category_counted_days", "days habits of this category were done or missed", "days", f"{_ROWS} habits.category"),
    ("category_completion_rate", "days done of those; NaN without any", "share", f"{_ROWS} habits.category"),
    ("category_affinity", "the user's taste for the habit's category as of that day", "log-odds", _CHOSEN),
]

_HISTORY = [
    ("streak_before", "streak on the morning of the row's day", "periods", _PERIODS),
    ("days_since_done", "days since the habit was last done; NaN if never", "days", _ROWS),
    ("periods_since_done", "scheduled periods since it was last done; NaN if never", "periods", _PERIODS),
    ("done_before", "days done on earlier days", "days", _ROWS),
    ("counted_before", "days done or missed on earlier days", "days", _ROWS),
    ("completion_rate_before", "done_before of counted_before; NaN without any", "share", _ROWS),
    ("completion_rate_shrunk_before", "its posterior mean", "share", _ROWS),
    ("strength_before", "habit strength on the morning of the row's day", "0 to 1", _PERIODS),
]

_SUMMARY = [
    ("times", "k of the target k/n; 1 for daily habits", "count", "habits.target"),
    ("per_days", "n of the target k/n; 1 for daily habits", "days", "habits.target"),
    ("first_date", "first scheduled day", "date", _ROWS),
    ("last_date", "last scheduled day", "date", _ROWS),
    ("scheduled", "scheduled days", "days", _ROWS),
    ("done", "days done", "days", _ROWS),
    ("missed", "days missed", "days", _ROWS),
    ("skipped", "days skipped", "days", _ROWS),
    ("unknown", "days of which nothing is known", "days", _ROWS),
    ("completion_rate", "days done of days done or missed; NaN without any", "share", _ROWS),
    ("completion_rate_shrunk", "its posterior mean over all pairs", "share", _ROWS),
    ("rate_low", "lower end of its posterior interval", "share", _ROWS),
    ("rate_high", "upper end of its posterior interval", "share", _ROWS),
    ("periods_met", "periods in which the target was met", "periods", _PERIODS),
    ("periods_broken", "periods in which it was not", "periods", _PERIODS),
    ("streak", "periods met since the last broken one", "periods", _PERIODS),
    ("longest_streak", "longest streak so far", "periods", _PERIODS),
    ("runs", "number of stretches of met periods", "count", _PERIODS),
    ("mean_run", "their mean length; NaN without any", "periods", _PERIODS),
    ("strength", "habit strength", "0 to 1", _PERIODS),
    ("days_since_done", "days since the habit was last done; NaN if never", "days", _ROWS),
    ("periods_since_done", "scheduled periods since it was last done; NaN if never", "periods", _PERIODS),
]

_FEATURES = {
    "user_features": _OF_USERS + _SNAPSHOT,
    "pair_history": _OF_USERS + _OF_PAIRS,
    "history": _HISTORY,
    "summary": _SUMMARY,
}

_SINCE = "0.1.0"


def feature_catalogue() -> pd.DataFrame:
    """List every feature: function, name, meaning, unit, source_columns (list of table.column), since.

    `function` is the one that gives it: `behavioural.user_features` (a row a user), `behavioural.pair_history` (a row a
    moment of a user and a habit), `temporal.history` (a row a tracking row), `temporal.summary` (a row a user and
    habit). In the order of their columns; keys of rows are no features.
    """
    rows = [
        (function, name, meaning, unit, list(dict.fromkeys(sources.split())), _SINCE)
        for function, features in _FEATURES.items()
        for name, meaning, unit, sources in features
    ]
    return pd.DataFrame(rows, columns=["function", "name", "meaning", "unit", "source_columns", "since"])
