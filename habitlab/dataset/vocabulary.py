"""Every enumeration of HabitLab, in one place: forms, tables, models and words all read it from here."""

from enum import StrEnum


class Category(StrEnum):
    """Life area of a habit; the same words are a user's areas for improvement."""

    HEALTH = "health"
    DIET = "diet"
    PHYSICAL = "physical"
    MINDFULNESS = "mindfulness"
    PRODUCTIVITY = "productivity"
    LEARNING = "learning"
    RELATIONSHIPS = "relationships"
    CAREER = "career"
    FINANCE = "finance"


class Activity(StrEnum):
    """Kind of effort a habit asks for; a habit may have several."""

    PHYSICAL = "physical"
    MENTAL = "mental"
    CREATIVE = "creative"
    SOCIAL = "social"
    EMOTIONAL = "emotional"


class Gender(StrEnum):
    """Self-described gender; declining to say is an answer, not answering is a missing value."""

    FEMALE = "female"
    MALE = "male"
    OTHER = "other"
    UNDISCLOSED = "prefer not to say"


class TimeOfDay(StrEnum):
    """Part of the local day."""

    MORNING = "morning"
    AFTERNOON = "afternoon"
    EVENING = "evening"
    ANY = "any"


class Chronotype(StrEnum):
    """When a person is at their best."""

    MORNING = "morning"
    INTERMEDIATE = "intermediate"
    EVENING = "evening"


class LearningStyle(StrEnum):
    """Stated preference only: matching instruction to it has no evidence behind it."""

    VISUAL = "visual"
    AUDITORY = "auditory"
    READING_WRITING = "reading/writing"
    KINESTHETIC = "kinesthetic"


class Level(StrEnum):
    """Difficulty a user asks for, and experience a user has."""

    BEGINNER = "beginner"
    INTERMEDIATE = "intermediate"
    ADVANCED = "advanced"


class Status(StrEnum):
    """What happened on a scheduled day. Unknown is not missed; skipped is neither."""

    DONE = "done"
    MISSED = "missed"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


class TargetDirection(StrEnum):
    """Whether a measured habit's value should reach the target or stay below it."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


class AdoptionSource(StrEnum):
    """How a habit came to a user."""

    RECOMMENDED = "recommended"
    CHOSEN = "chosen"
    IMPORTED = "imported"


class HabitField(StrEnum):
    """What a user may change about a habit they hold."""

    TARGET = "target"
    MINUTES = "minutes"
    TIME_OF_DAY = "time_of_day"
    REMINDER = "reminder"


class DescriptionVariant(StrEnum):
    """Wording of a habit's description that a recommendation showed."""

    CLEAR = "clear"
    VAGUE = "vague"


class Response(StrEnum):
    """What a user did with a recommendation."""

    VIEWED = "viewed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Purpose(StrEnum):
    """What a user's data may be used for."""

    RESEARCH = "research"
    PERSONALISATION = "personalisation"
    PROFILING = "profiling"
    SIMILAR_USERS = "similar users"


WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
"""Days of the week as pandas numbers them, from 0."""
