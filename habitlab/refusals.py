"""What people told the service beside a dataset about research: their words count for analyses of the data, too."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote


def told_to_service(data: Path) -> list[tuple[str, str, bool]]:
    """Return who said when whether research may look at their data (user_id, ISO instant, granted), in time order.

    Empty where no service ever stood in its usual place beside the data. sqlite3.Error where its database cannot be
    read: then nobody knows who refused.
    """
    place = data.with_suffix(".service") / "service.db"
    if not place.exists():
        return []
    with closing(sqlite3.connect(f"file:{quote(str(place.absolute()))}?mode=ro", uri=True)) as connection:
        try:
            rows = connection.execute(
                "SELECT user_id, happened_at, payload FROM events WHERE kind = 'consent' ORDER BY happened_at, sequence"
            ).fetchall()
        except sqlite3.Error as error:
            advice = "so that nobody knows who refused research; mend it, or move the folder away"
            raise type(error)(f"{place} cannot be read: {error}, {advice}") from error
    told = ((user, at, json.loads(payload)) for user, at, payload in rows)
    return [(user, at, bool(said["granted"])) for user, at, said in told if said["purpose"] == "research"]
