"""Who asked to be forgotten, without saying who: a salted, slow hash of the id, kept so that nothing brings them back.

An event that is sent again, or a backup that is read again, can so be told from one of somebody new. The file cannot be
turned into ids, but whoever has it can test a guess, some ten guesses a second; it belongs to the service alone.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

from habitlab.dataset.sqlite import replacing
from habitlab.serving.state import own_folder, stamp

FILE = "forgotten.json"
BEGUN, DONE = "begun", "done"


def status(folder: str | Path, user_id: str) -> str | None:
    """Return "begun" or "done" for somebody who asked to be forgotten, None for anybody else."""
    contents = _read(folder)
    if not contents["people"]:
        return None
    entry = contents["people"].get(_hash(contents["salt"], user_id))
    return None if entry is None else str(entry["status"])


def mark(folder: str | Path, user_id: str, word: str, now: datetime) -> None:
    """Remember that forgetting somebody has begun or is done."""
    contents = _read(folder)
    contents["people"][_hash(contents["salt"], user_id)] = {"status": word, "at": stamp(now)}
    own_folder(folder)
    with replacing(Path(folder) / FILE) as temporary:
        temporary.write_text(json.dumps(contents, indent=1, sort_keys=True) + "\n", "utf-8")
    (Path(folder) / FILE).chmod(0o600)


def marks(folder: str | Path) -> str:
    """Return what changes as soon as somebody else asks to be forgotten, or is."""
    return json.dumps(_read(folder)["people"], sort_keys=True)


def _read(folder: str | Path) -> dict[str, Any]:
    place = Path(folder) / FILE
    if not place.exists():
        return {"salt": secrets.token_hex(16), "people": {}}
    try:
        contents = json.loads(place.read_text("utf-8"))
        return {"salt": str(contents["salt"]), "people": dict(contents["people"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place} is damaged: {error}") from error


def _hash(salt: str, user_id: str) -> str:
    return hashlib.scrypt(user_id.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=16).hex()
