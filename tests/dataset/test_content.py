"""One hash says what a dataset holds."""

import pandas as pd

from habitlab.dataset import Dataset
from habitlab.dataset.content import content_hash


def test_the_hash_is_another_one_as_soon_as_any_value_changes() -> None:
    users = pd.DataFrame({"user_id": ["anna", "ben"], "age": [34, None], "improvement_areas": [["diet"], []]})
    whole = Dataset(users=users, habits=pd.DataFrame({"habit_id": ["walk"]}))
    assert content_hash(whole) == content_hash(whole.replace())
    changed = [
        users.assign(age=[35, None]),
        users.assign(age=[34, 0]),
        users.assign(improvement_areas=[["diet"], ["diet"]]),
        users.iloc[:1],
        users.iloc[::-1],
    ]
    hashes = {content_hash(whole.replace(users=table)) for table in changed}
    assert len(hashes | {content_hash(whole)}) == 1 + len(changed)
