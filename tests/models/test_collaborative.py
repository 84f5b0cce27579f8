"""3.2: matrix factorisation that beats popularity, calibrated, with a cold start and neighbours by consent only."""

import builtins

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.decomposition import TruncatedSVD
from threadpoolctl import threadpool_limits

from habitlab.dataset import Dataset
from habitlab.dataset.vocabulary import Purpose
from habitlab.evaluation.metrics import ndcg_at_k
from habitlab.models.baselines import Popularity
from habitlab.models.collaborative import CollaborativeModel, balanced_logistic, ease, truncated_svd
from habitlab.models.content import ContentModel
from habitlab.models.interactions import Interactions, consenting
from habitlab.models.neighbours import Neighbours
from habitlab.models.ranking import top_k
from tests.models.worlds import AWKWARD, UNTIL, awkward_datasets, population, split

METHODS = ["svd", "ease", "als"]


@pytest.fixture(scope="module")
def fitted() -> dict[str, CollaborativeModel]:
    return {method: CollaborativeModel(method).fit(population(), UNTIL) for method in METHODS}


def ndcg(scores: np.ndarray) -> np.ndarray:
    return ndcg_at_k(top_k(scores, 10, split().seen)[0], split().relevant, 10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("demographics", [True, False])
def test_3_2_2_a_beats_popularity_on_ndcg_at_10(method, demographics):
    model = CollaborativeModel(method, demographics=demographics).fit(split().train, UNTIL)
    ids = split().user_ids.tolist()
    popular = ndcg(Popularity().fit(split().train, UNTIL).score(ids))
    difference = ndcg(model.score(ids)) - popular
    difference = difference[~np.isnan(difference)]
    means = np.random.default_rng(0).choice(difference, (2000, len(difference))).mean(axis=1)
    assert np.quantile(means, 0.025) > 0, (difference.mean(), np.nanmean(popular))


def test_3_2_2_a_truncated_svd_is_scikit_learns():
    matrix = Interactions.read(population(), UNTIL).matrix
    scale = 1 / np.sqrt(np.asarray(matrix.sum(axis=0)).ravel() + 10)
    expected = TruncatedSVD(20, algorithm="arpack", random_state=0).fit(sparse.csr_matrix(matrix * scale))
    vectors, (left, right) = truncated_svd(matrix, 20)
    assert vectors.shape == (171, 20)
    assert np.abs(np.abs(vectors.T @ expected.components_.T) - np.eye(20)).max() < 1e-6
    # Without shrinking, projecting on the factors and back.
    values = expected.singular_values_**2
    shrunk = values / (values + 200 / np.asarray(matrix.sum(axis=0)).mean())
    project = expected.components_.T * shrunk @ expected.components_
    assert np.allclose(left @ right, scale[:, None] * project / scale, atol=1e-8)


def test_3_2_2_a_ease_solves_its_equations():
    """Each habit's weights minimise the ridge loss with its own weight held at 0, found by brute force."""
    generator = np.random.default_rng(0)
    matrix = sparse.random_array((200, 12), density=0.3, format="csr", rng=generator)
    weights, dense = ease(matrix, ridge=3.0), matrix.toarray()
    for habit in range(12):
        others = np.delete(np.arange(12), habit)
        x = dense[:, others]
        expected = np.linalg.solve(x.T @ x + 3.0 * np.eye(11), x.T @ dense[:, habit])
        assert weights[others, habit] == pytest.approx(expected)
        assert weights[habit, habit] == 0


@pytest.mark.parametrize("habits", [1, 2, 5])
@pytest.mark.parametrize("method", METHODS)
def test_3_2_2_a_fewer_habits_than_factors(method, habits):
    names = [f"h{number}" for number in range(habits)]
    user, habit = np.nonzero(np.random.default_rng(0).random((12, habits)) < 0.5)
    people = Dataset(
        users=pd.DataFrame({"user_id": [f"u{number}" for number in range(12)]}),
        habits=pd.DataFrame({"habit_id": names}),
        adoptions=pd.DataFrame(
            {
                "user_id": [f"u{number}" for number in user],
                "habit_id": [names[number] for number in habit],
                "adopted_at": "2026-01-01T00:00Z",
            }
        ),
    )
    model = CollaborativeModel(method, factors=20).fit(people)
    assert model.score().shape == (12, habits)
    if method != "ease":
        assert model.items_.shape == (habits, max(1, habits - 1))


@pytest.mark.parametrize("method", METHODS)
def test_3_2_2_b_scores_lie_in_0_1_and_are_calibrated(method, fitted):
    """On adoptions after the day, against as many habits not adopted: of score s, a share s is adopted."""
    scores = fitted[method].score(split().user_ids.tolist())
    assert 0 <= scores.min() < scores.max() <= 1
    label, seen = split().relevant.toarray() > 0, split().seen.toarray()
    chance = scores[~seen]
    _, slope = balanced_logistic(np.log(chance / (1 - chance))[:, None], label[~seen])
    assert 0.7 < slope[0] < 1.3
    assert label[~seen][chance > 0.5].mean() > 3 * label[~seen][chance < 0.5].mean()


@pytest.mark.parametrize("method", METHODS)
def test_fold_in_gives_known_people_exactly_their_score(method, fitted):
    model, people = fitted[method], population()
    again = model.fold_in(model.matrix_, people.users, consenting(people, Purpose.SIMILAR_USERS, UNTIL))
    assert np.array_equal(again, model.score())


@pytest.mark.parametrize("method", METHODS)
def test_fold_in_of_a_newcomer_is_close_to_refitting_with_them(method, fitted):
    """Learn without the last 20 people, fold them in, and compare with learning from all."""
    people, held_out = population(), population().users["user_id"].iloc[-20:]
    without = people.replace(
        **{
            name: people.table(name)[~people.table(name)["user_id"].isin(held_out)]
            for name in ("habit_tracking", "adoptions", "recommendations", "modifications", "feedback")
        },
        users=people.users.assign(
            existing_habits=people.users["existing_habits"].where(~people.users["user_id"].isin(held_out))
        ),
    )
    matrix = Interactions.read(people, UNTIL).matrix[-20:]
    small = CollaborativeModel(method, demographics=False).fit(without, UNTIL)
    refitted = CollaborativeModel(method, demographics=False).fit(people, UNTIL).score(held_out.tolist())
    folded = small.fold_in(matrix)
    assert np.mean([spearmanr(a, b).statistic for a, b in zip(folded, refitted, strict=True)]) > 0.95
    assert np.abs(folded - refitted).mean() < 0.05


def test_fold_in_refuses_what_does_not_fit(fitted):
    with pytest.raises(ValueError, match="171"):
        fitted["svd"].fold_in(sparse.csr_array((1, 3)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        fitted["svd"].fold_in(sparse.csr_array(np.full((1, 171), np.nan)))


def test_3_2_3_a_without_history_popularity_then_ever_more_of_ones_own(fitted):
    model = fitted["svd"]
    popular = model.fold_in(sparse.csr_array((1, 171)))[0]
    assert spearmanr(popular, model.popularity_).statistic == pytest.approx(1)
    confidence = model.confidence()
    evidence = np.asarray((model.matrix_ >= 0.5).sum(axis=1)).ravel()
    assert confidence[model.matrix_.sum(axis=1) == 0] == pytest.approx(0)
    assert spearmanr(confidence, evidence).statistic > 0.8
    # No jump at 5 or 20 habits: a little more of a habit changes scores a little.
    row = sparse.csr_array(model.matrix_[[int(evidence.argmax())]])
    steps = [model.fold_in(row * share)[0] for share in np.linspace(0, 1, 101)]
    assert np.abs(np.diff(steps, axis=0))[5:].max() < 0.05


def test_3_2_3_b_neighbours_only_by_consent():
    people = population()
    users = people.users.assign(existing_habits=None)
    yes = CollaborativeModel().fit(people, UNTIL)
    no = CollaborativeModel().fit(people.replace(consents=people.consents.iloc[:0]), UNTIL)
    assert yes.neighbours_ is not None
    assert no.neighbours_ is None
    # Who does not consent gets the same scores whatever their demography, and who does gets other ones.
    nobody, everybody = np.zeros(len(users), dtype=bool), np.ones(len(users), dtype=bool)
    assert np.ptp(yes.score_profiles(users, nobody), axis=0).max() == 0
    assert np.array_equal(yes.score_profiles(users), yes.score_profiles(users, nobody))
    assert np.ptp(yes.score_profiles(users, everybody), axis=0).max() > 0.1
    # None of them are among the neighbours, and none of their habits count there.
    consent = consenting(people, Purpose.SIMILAR_USERS, UNTIL)
    assert (yes.neighbours_.of[~consent] == -1).all()
    assert yes.neighbours_.people.sum() == consent.sum()
    assert yes.neighbours_.habits.sum() == pytest.approx(yes.matrix_[np.flatnonzero(consent)].sum())


def test_3_2_3_b_the_lift_is_that_of_a_plain_kernel():
    users = pd.DataFrame(
        {"age": [20, 22, 40, 60, None], "gender": ["female", "male", "female", None, "male"]}
        | {"time_commitment": [3.0, 10.0, None, 30.0, 3.0]}
    )
    consent = np.array([True, True, True, False, True])
    matrix = sparse.csr_array(np.array([[1.0, 0], [0, 1], [1, 1], [5, 5], [0, 1]]))
    found = Neighbours.fit(users, matrix, consent).lift(users, consent)
    minutes = [np.round(4 * np.log1p(m)) / 4 for m in users["time_commitment"]]
    for person in np.flatnonzero(consent):
        near = []
        for other in np.flatnonzero(consent):
            years = (users["age"][person] - users["age"][other]) / 6  # even ages: cells of two years change nothing
            pace = (minutes[person] - minutes[other]) / 0.6
            years, pace = 1.5 if np.isnan(years) else years, 1.0 if np.isnan(pace) else pace
            differ = 1.5 * (users["gender"][person] != users["gender"][other])
            near.append(np.exp(-(years**2) / 2 - pace**2 / 2 - differ))
        everyone = (np.array([2, 3]) + 1) / (4 + 1)
        rate = (near @ matrix.toarray()[consent] + 10 * everyone) / (sum(near) + 10)
        assert found[person] == pytest.approx(np.log(rate / everyone))
    assert (found[~consent] == 0).all()


def test_3_2_3_b_a_withdrawn_consent_counts_from_its_day_on():
    people = population()
    withdrawn = people.consents.assign(granted=False, at=people.consents["at"] + pd.Timedelta(days=60))
    later = people.replace(consents=pd.concat([people.consents, withdrawn]))
    assert CollaborativeModel().fit(later, UNTIL).consent_.any()
    assert not CollaborativeModel().fit(later).consent_.any()


def test_3_2_3_b_ablated_neighbours_help_those_without_history():
    """Scores by neighbours alone, held against the adoptions of people who were not among them."""
    people = population()
    consent = consenting(people, Purpose.SIMILAR_USERS, UNTIL)
    first = np.arange(600) < 400
    later = people.users["user_id"].iloc[400:]
    gone = {
        name: people.table(name)[~people.table(name)["user_id"].isin(later)]
        for name in ("adoptions", "habit_tracking", "recommendations", "modifications", "feedback")
    }
    model = CollaborativeModel().fit(people.replace(**gone), UNTIL)
    truth = Interactions.read(people).adopted_day[~first & consent] > 0
    with_them = model.score_profiles(people.users[~first & consent], np.ones((~first & consent).sum(), dtype=bool))
    without = model.score_profiles(people.users[~first & consent])
    gain = [ndcg_at_k(top_k(s, 10)[0], sparse.csr_array(truth, dtype=float), 10) for s in (with_them, without)]
    difference = gain[0] - gain[1]
    assert np.quantile(np.random.default_rng(0).choice(difference, (2000, len(difference))).mean(axis=1), 0.025) > 0


def test_the_same_fit_twice_gives_the_same_bits(fitted):
    for method in ("svd", "ease"):
        assert np.array_equal(CollaborativeModel(method).fit(population(), UNTIL).score(), fitted[method].score())
    vectors = fitted["svd"].items_
    assert (vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])] > 0).all(), "signs are fixed"


@pytest.mark.parametrize("model", [CollaborativeModel, lambda: CollaborativeModel("ease"), ContentModel])
def test_the_same_fit_gives_the_same_bits_on_any_number_of_threads(model):
    scores = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads, user_api="blas"):
            fitted = model().fit(population(), UNTIL)
        scores.append(fitted.score())
    assert np.array_equal(*scores)


def test_balanced_logistic_finds_planted_slopes_and_falls_back_to_one():
    generator = np.random.default_rng(0)
    terms = generator.normal(size=(200_000, 2))
    chance = 1 / (1 + np.exp(-(-4 + terms @ [1.4, 0.3])))
    intercept, slopes = balanced_logistic(terms, generator.random(200_000) < chance)
    assert slopes == pytest.approx([1.4, 0.3], abs=0.05)
    base = np.log(chance.mean() / (1 - chance.mean()))
    assert intercept == pytest.approx(-4 - base, abs=0.1)
    assert balanced_logistic(terms[:5], np.zeros(5, dtype=bool))[1].tolist() == [1, 1]


def test_als_without_its_package_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_implicit(name, *rest, **options):
        if name.startswith("implicit"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_implicit)
    with pytest.raises(ImportError, match=r"habitlab\[als\]"):
        CollaborativeModel("als").fit(population(), UNTIL)


@pytest.mark.parametrize("options", [{"method": "nmf"}, {"factors": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=r"not one of|at least 1"):
        CollaborativeModel(**options).fit(population())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_data_still_get_scores(name, method):
    dataset = awkward_datasets()[name]
    model = CollaborativeModel(method).fit(dataset)
    scores = model.score()
    assert scores.shape == (len(dataset.users), len(dataset.habits))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert model.score_profiles(pd.DataFrame({"user_id": ["new"]})).shape == (1, len(dataset.habits))
    if name == "no interactions":
        assert scores == pytest.approx(0.5)


def test_an_unknown_user_is_told_the_nearest(fitted):
    with pytest.raises(ValueError, match="nearest: u0000"):
        fitted["ease"].score(["u0000"])
