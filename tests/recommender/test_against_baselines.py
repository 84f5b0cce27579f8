"""The blend against popularity and the overview's own rule, on the built-in population."""

import numpy as np
import pytest

from habitlab.evaluation.metrics import ndcg_at_k
from habitlab.evaluation.splits import hold_out_users, temporal
from habitlab.models.baselines import AsWritten, Popularity
from habitlab.recommender.recommend import Recommender
from habitlab.simulation import simulate, world_of
from habitlab.simulation.truth import make_truth

UNTIL, K = "2024-03-31", 10


def low_end(differences):
    """Lower end of the 95 % bootstrap interval of a mean over users."""
    known = differences[~np.isnan(differences)]
    random = np.random.default_rng(0)
    return np.quantile(known[random.integers(0, len(known), (1000, len(known)))].mean(axis=1), 0.025)


@pytest.mark.long
def test_the_blend_beats_popularity_and_the_overviews_rule_with_intervals_that_exclude_0():
    """NDCG@10 of later adoptions, and what of the lists is truly kept, and truly both taken up and kept."""
    dataset = simulate(seed=0)
    truth = make_truth(world_of(dataset))
    split = temporal(dataset, UNTIL)
    users = [str(user) for user in split.user_ids]
    shape = (len(dataset.users), len(dataset.habits))
    rows = dataset.users["user_id"].isin(users).to_numpy()
    success, adoption = (
        truth[f"{what}_probability"].to_numpy(dtype=float).reshape(shape)[rows] for what in ("success", "adoption")
    )
    found = {}
    for model in (Recommender(), Popularity(), AsWritten()):
        score = np.where(split.seen.toarray(), -np.inf, model.fit(split.train, UNTIL).score(users))
        lists = np.argsort(-score, axis=1, kind="stable")[:, :K]
        here = np.arange(len(users))[:, None], lists
        found[type(model).__name__] = (
            ndcg_at_k(lists, split.relevant, K),
            success[here].mean(axis=1),
            (adoption * success)[here].mean(axis=1),
        )
    for other in ("Popularity", "AsWritten"):
        for blend, baseline in zip(found["Recommender"], found[other], strict=True):
            assert low_end(blend - baseline) > 0, other


@pytest.mark.long
@pytest.mark.timeout(600)
def test_1_1_1_d_a_registration_form_overcomes_the_cold_start():
    """NDCG@5 of people held out whole, who are known by their answers only, less that of the most popular habits."""
    gains = []
    for seed in (0, 21, 22):
        split = hold_out_users(simulate(seed=seed), share=0.2, seed=0)
        answers = split.train.users.set_index("user_id", drop=False).loc[split.user_ids].reset_index(drop=True)
        scores = (model.fit(split.train).score_profiles(answers) for model in (Recommender(), Popularity()))
        held = split.seen.toarray() > 0
        lists = (np.argsort(-np.where(held, -np.inf, score), axis=1, kind="stable")[:, :5] for score in scores)
        blend, popularity = (ndcg_at_k(found, split.relevant, 5) for found in lists)
        gains.append(blend - popularity)
    assert low_end(gains[0]) > 0, "on the built-in population"
    assert low_end(np.concatenate(gains)) > 0
