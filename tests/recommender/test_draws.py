"""Lists kept as bytes are told as they were drawn, and what is damaged is not told at all (7.1.c, 7.2.b)."""

from datetime import datetime

import numpy as np
import pytest

import habitlab
from habitlab.recommender.draws import Drawn
from habitlab.recommender.recommend import Recommender
from tests.recommender.makers import habits, recommender

MOMENTS = [None, datetime(2024, 5, 6), datetime(2024, 5, 6, 18)]


@pytest.fixture(scope="module")
def fitted() -> Recommender:
    return Recommender().fit(habitlab.open_dataset())


@pytest.mark.parametrize("k", [1, 5, 400])
def test_7_1_c_what_was_packed_is_told_as_it_was_drawn(fitted, k):
    users = fitted.user_ids_.tolist()[:20]
    (drawn,) = fitted.draw_many(users, k, MOMENTS)
    told, form = fitted.tell(drawn, "ru"), fitted.record(k)
    for user, lists, packed in zip(users, told, drawn.pack(), strict=True):
        for at, one, kept in zip(MOMENTS, lists, packed, strict=True):
            ((again,),) = fitted.tell(Drawn.unpack(kept, form, k, at), "ru")
            here = {"user_id": user, "shown_at": one.shown_at}  # a list does not say whose it is, nor where they live
            assert repr(vars(again) | here) == repr(vars(one))
            assert one == fitted.recommend(user, k, at, "ru")


def test_7_1_c_a_newcomers_list_says_that_they_were_compared(fitted):
    record = {"age": 30, "time_commitment": 20, "consents": {"similar users": True}}
    drawn = fitted.draw(record, 3, MOMENTS[1])
    ((packed,),) = drawn.pack()
    ((again,),) = fitted.tell(Drawn.unpack(packed, fitted.record(3), 3, MOMENTS[1]))
    assert again.compared
    assert again.person == {"age": 30, "time_commitment": 20}
    assert again.items == fitted.recommend(record, 3, MOMENTS[1]).items


def test_7_2_b_a_damaged_list_is_refused_wherever_a_bit_is_wrong(fitted):
    ((packed,),) = fitted.draw(str(fitted.user_ids_[0]), 2).pack()
    form = fitted.record(2)
    for place in range(0, len(packed), 7):
        wrong = bytearray(packed)
        wrong[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="no list"):
            Drawn.unpack(bytes(wrong), form, 2, None)
    for short in (b"", packed[:3], packed[:-1], packed[: form.itemsize], packed + b"}"):
        with pytest.raises(ValueError, match="no list"):
            Drawn.unpack(short, form, 2, None)


def test_7_2_b_lists_of_another_recommender_or_number_are_refused(fitted):
    few = recommender(habits(4))
    drawn = few.draw({}, 3)
    with pytest.raises(ValueError, match="none of this recommender"):
        fitted.tell(drawn)
    beyond = few.draw({}, 3)
    beyond.records["habits"][0, 0, 0] = 4
    with pytest.raises(ValueError, match="none of this recommender"):
        few.tell(beyond)


def test_7_1_c_a_list_takes_as_many_bytes_as_it_has_habits_and_parts(fitted):
    """A day of three lists for 100,000 people is to fit on a laptop: 0.2 GB."""
    sizes = [fitted.record(k).itemsize for k in (1, 5)]
    assert np.diff(sizes) / 4 < 150
    assert sizes[1] < 700
