"""Requirements 1.2.1.c, 1.2.2.d, 1.2.2.e and 1.2.3 line by line, and pitfalls D19 and D20 of the overview."""

import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from simplemma import lemmatize
from sklearn.metrics import roc_auc_score

from habitlab.dataset.catalogue import load_catalogue
from habitlab.dataset.vocabulary import Category
from habitlab.features import text as module
from habitlab.features.preprocessing import parameters_hash
from habitlab.features.text import MISSING, TextEncoder, habit_texts, lemma, stop_words, tokenise, words

TRUSTED = ["habitlab.features.text.TextEncoder"]
TEXTS = ["I forget to drink water", "Забываю пить воду", None, "", "Running before breakfast", "Утренние пробежки"]


@pytest.fixture(scope="module")
def catalogue() -> pd.DataFrame:
    return load_catalogue()


@pytest.fixture(scope="module")
def encoder(catalogue: pd.DataFrame) -> TextEncoder:
    return TextEncoder().fit(habit_texts(catalogue))


# --- 1.2.1.c and 1.2.2.d: from texts to weights ---


def test_1_2_1_c_missing_text_is_a_token_and_an_empty_text_is_none(encoder: TextEncoder) -> None:
    names = list(encoder.get_feature_names_out())
    weights = encoder.tfidf([None, float("nan"), pd.NA, "", "[missing]"])
    column = names.index(MISSING)
    assert weights[:, [column]].toarray().ravel().tolist() == [1, 1, 1, 0, 0]
    assert weights.getnnz(axis=1).tolist()[:4] == [1, 1, 1, 0]
    assert MISSING in TextEncoder().fit(["no text is missing here"]).get_feature_names_out()


def test_1_2_1_c_what_is_missing_is_close_to_no_topic(encoder: TextEncoder, catalogue: pd.DataFrame) -> None:
    assert not encoder.dense([None, "", "qwertyuiop"]).any()
    both = TextEncoder().fit([*habit_texts(catalogue), None, "", *TEXTS])
    assert not both.dense([None, ""]).any()


def test_1_2_2_d_weights_are_sparse_and_both_languages_have_some(encoder: TextEncoder) -> None:
    weights = encoder.tfidf(TEXTS)
    assert sparse.issparse(weights)
    assert weights.format == "csr"
    assert weights.shape == (6, len(encoder.get_feature_names_out()))
    assert (weights.getnnz(axis=1) > 0).tolist() == [True, True, True, False, True, True]
    lengths = np.sqrt(weights.multiply(weights).sum(axis=1))
    assert np.asarray(lengths).ravel() == pytest.approx([1, 1, 1, 0, 1, 1])


def test_1_2_2_d_the_vocabulary_is_that_of_training() -> None:
    encoder = TextEncoder().fit(["Drink water", "Пить воду"])
    assert list(encoder.get_feature_names_out()) == [MISSING, "drink", "water", "вода", "пить"]
    hashed = encoder.parameters_hash()
    weights = encoder.tfidf(["water the roses", "розы"])
    assert weights.shape == (2, 5)
    assert weights.getnnz(axis=1).tolist() == [1, 0]
    assert encoder.parameters_hash() == hashed, "looking at a new text teaches nothing"


def test_1_2_2_d_weights_equal_the_formula() -> None:
    encoder = TextEncoder().fit(["water water bread", "water tea"])
    column = {name: i for i, name in enumerate(encoder.get_feature_names_out())}
    n = 3  # with the missing text that every vocabulary has
    water, bread = (1 + np.log(2)) * (1 + np.log((1 + n) / 3)), 1 + np.log((1 + n) / 2)
    row = encoder.tfidf(["water water bread"]).toarray()[0]
    assert row[[column["water"], column["bread"]]] == pytest.approx(np.array([water, bread]) / np.hypot(water, bread))


def test_1_2_2_d_order_and_repetition_of_training_texts_change_nothing() -> None:
    texts = [text for text in TEXTS if text]
    learnt = TextEncoder(3).fit(texts).parameters_hash()
    assert TextEncoder(3).fit([*texts[::-1], *texts, None]).parameters_hash() == learnt
    assert TextEncoder(3).fit(texts[1:]).parameters_hash() != learnt


RELOAD = """
import sys
from pathlib import Path
import numpy as np, skops.io
folder, trusted = Path(sys.argv[1]), sys.argv[2:]
encoder = skops.io.load(folder / "encoder.skops", trusted=trusted)
known = (folder / "texts.txt").read_text(encoding="utf-8").split("|")
encoder.tfidf([*known, None])
assert "simplemma" not in sys.modules, "texts in known words need no dictionary"
texts = [*known, None, "A sentence of unheard-of words: quokka, выхухоль"]
weights = encoder.tfidf(texts)
np.savez(folder / "numbers.npz", weights=weights.toarray(), dense=encoder.dense(texts))
print(encoder.parameters_hash())
"""


def test_1_2_2_e_saved_and_loaded_in_a_new_process_it_is_bit_equal(
    encoder: TextEncoder, catalogue: pd.DataFrame, tmp_path: Path
) -> None:
    skops.io.dump(encoder, tmp_path / "encoder.skops")
    assert skops.io.get_untrusted_types(file=tmp_path / "encoder.skops") == TRUSTED
    known = [*catalogue["name_en"].head(20), *catalogue["description_ru"].head(20), ""]
    (tmp_path / "texts.txt").write_text("|".join(known), encoding="utf-8")
    call = [sys.executable, "-c", RELOAD, str(tmp_path), *TRUSTED]
    run = subprocess.run(call, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == encoder.parameters_hash()
    texts = [*known, None, "A sentence of unheard-of words: quokka, выхухоль"]
    with np.load(tmp_path / "numbers.npz") as numbers:
        assert np.array_equal(numbers["weights"], encoder.tfidf(texts).toarray())
        assert np.array_equal(numbers["dense"], encoder.dense(texts))


def test_1_2_2_e_other_lists_of_words_are_told(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = module._words_file() | {"version": 2}
    monkeypatch.setattr(module, "_words_file", lambda: newer)
    with pytest.raises(ValueError, match="fitted with another list of stop words; fit it again"):
        encoder.tfidf(["water"])


# --- 1.2.3.a tokens ---

TOKENS = {
    "Drink a glass of water.": ["drink", "a", "glass", "of", "water"],
    "Выпить стакан воды!": ["выпить", "стакан", "воды"],
    "Self-care, push-ups and e-mail": ["self-care", "push-ups", "and", "e-mail"],
    "Кое-что по-русски — и тире": ["кое-что", "по-русски", "и", "тире"],
    "- list item -- twice-": ["list", "item", "twice"],
    "10,000 steps, 3.5 km at 7:30": ["10,000", "steps", "3.5", "km", "at", "7:30"],
    "30-minute walk, 5am, 20%": ["30", "minute", "walk", "5", "am", "20"],
    "5 минут, 2-й день": ["5", "минут", "2", "й", "день"],
    "Don’t stop, it's mum's idea": ["don't", "stop", "it's", "mum's", "idea"],
    "Run 🏃🏽‍♀️ every day❤️": ["run", "🏃", "every", "day", "❤"],
    "👨‍👩‍👧 🇷🇺🇺🇸✅": ["👨‍👩‍👧", "🇷🇺", "🇺🇸", "✅"],
    "Ещё ЁЛКА": ["еще", "елка"],
    "при́вычка": ["привычка"],
    "Café naïve ﬁne": ["café", "naïve", "fine"],
    "habit_tracker /path\\to": ["habit", "tracker", "path", "to"],
    "[missing]": ["missing"],
    " \t\n…?!": [],
}


@pytest.mark.parametrize("text", TOKENS)
def test_1_2_3_a_golden_tokens(text: str) -> None:
    assert tokenise(text) == TOKENS[text]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_1_2_3_a_law_tokens_of_tokens_are_the_same_and_hold_no_space(text: str) -> None:
    tokens = tokenise(text)
    assert tokenise(" ".join(tokens)) == tokens
    assert all(token and not any(c.isspace() for c in token) and "[" not in token for token in tokens)


# --- 1.2.3.b lemmas ---

LEMMAS = {
    "привычками": "привычка",
    "привычек": "привычка",
    "книгу": "книга",
    "деньгами": "деньги",
    "читаю": "читать",
    "тёплого": "теплый",
    "ребёнком": "ребенок",
    "не": "не",
    "running": "run",
    "habits": "habit",
    "children": "child",
    "went": "go",
    "don't": "not",
    "can't": "not",
    "cannot": "not",
    "not": "not",
    "10,000": "10,000",
    "🏃": "🏃",
}


@pytest.mark.parametrize("word", LEMMAS)
def test_1_2_3_b_golden_lemmas(word: str) -> None:
    (token,) = tokenise(word)
    assert lemma(token) == LEMMAS[word]


def test_1_2_3_b_the_small_dictionary_gives_the_lemmas_of_the_large_one(catalogue: pd.DataFrame) -> None:
    russian = {token for name in catalogue["name_ru"] for token in tokenise(name)}
    assert len(russian) > 300
    large = {token: lemmatize(token, lang="ru").casefold().replace("ё", "е") for token in russian}
    assert {token: lemma(token) for token in russian} == large


def test_1_2_3_b_importing_loads_no_dictionary() -> None:
    code = "import sys, habitlab.features.text; sys.exit('simplemma' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- 1.2.3.c stop words ---


def test_1_2_3_c_negations_are_kept_and_no_stop_words() -> None:
    file = tomllib.loads((files("habitlab.features") / "words.toml").read_text(encoding="utf-8"))
    assert not set(file["negations"]) & (stop_words("en") | stop_words("ru"))
    assert words("I do not sleep") == ["not", "sleep"]
    assert words("I don't sleep") == ["not", "sleep"]
    assert words("Я не высыпаюсь без будильника") == ["не", "высыпаться", "без", "будильник"]
    for negation in file["negations"]:
        assert words(negation), negation


def test_1_2_3_c_each_language_has_its_list() -> None:
    assert words("I want to have a glass of water with them") == ["glass", "water"]
    assert words("Я хочу, чтобы у меня был стакан воды") == ["стакан", "вода"]
    assert all(word.isascii() for word in stop_words("en"))
    assert not any(word.isascii() for word in stop_words("ru"))


@pytest.mark.parametrize("language", ["en", "ru"])
def test_1_2_3_c_every_stop_word_is_a_token_as_texts_give_it(language: str) -> None:
    assert [word for word in stop_words(language) if tokenise(word) != [word]] == []


def test_1_2_3_c_the_lists_are_versioned(encoder: TextEncoder) -> None:
    file = tomllib.loads((files("habitlab.features") / "words.toml").read_text(encoding="utf-8"))
    assert encoder.words_version_ == file["version"] == 1
    # Whoever changes a word must raise the version, and the hash here.
    lists = {name: sorted(file[name].split()) for name in ("en", "ru")} | {"categories": file["categories"]}
    assert parameters_hash(lists)[:12] == "352dd3125d90"


# --- 1.2.3.d topics ---


@pytest.fixture(scope="module")
def topics() -> pd.DataFrame:
    """Sentences as people write them, three a topic and language; none is a sentence of the catalogue."""
    with (files("habitlab.features") / "topics.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def areas_under_curve(similarity: npt.NDArray[np.float64], topics: pd.DataFrame) -> dict[str, float]:
    """How well similarity tells pairs of one topic from pairs across topics, by the languages of the pair."""
    first, second = np.triu_indices(len(topics), 1)
    same = topics["topic"].to_numpy()[first] == topics["topic"].to_numpy()[second]
    language = topics["language"].to_numpy()
    of_pair = np.where(language[first] == language[second], language[first], "across")
    found = {"all": roc_auc_score(same, similarity[first, second])}
    for name in ("en", "ru", "across"):
        found[name] = roc_auc_score(same[of_pair == name], similarity[first, second][of_pair == name])
    return found


def test_1_2_3_d_the_labelled_list_is_balanced_and_not_in_the_catalogue(
    topics: pd.DataFrame, catalogue: pd.DataFrame
) -> None:
    assert topics["topic"].nunique() == 18
    assert (topics.groupby(["topic", "language"]).size() == 3).all()
    known = set(pd.concat([catalogue[c] for c in ("name_en", "name_ru", "description_en", "description_ru")]))
    assert not known & set(topics["text"])


def test_1_2_3_d_one_topic_is_closer_than_another_in_and_across_languages(
    encoder: TextEncoder, topics: pd.DataFrame
) -> None:
    dense = encoder.dense(topics["text"])
    found = areas_under_curve(dense @ dense.T, topics)
    assert found["all"] > 0.8
    assert min(found.values()) > 0.75
    weights = encoder.tfidf(topics["text"])
    sparse_form = areas_under_curve((weights @ weights.T).toarray(), topics)
    assert sparse_form["across"] == pytest.approx(0.5, abs=0.02), "without topics the languages have no common word"
    assert all(found[pairs] > sparse_form[pairs] + 0.15 for pairs in found)


def test_1_2_3_d_the_figures_of_the_page_are_what_the_code_gives(catalogue: pd.DataFrame, topics: pd.DataFrame) -> None:
    page = (Path(__file__).parents[2] / "docs" / "preprocessing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \**(\d+)\** \| (.*) \|$", page, flags=re.MULTILINE)
    assert [size for size, _ in rows] == ["16", "32", "64"]
    for size, figures in rows:
        dense = TextEncoder(int(size)).fit(habit_texts(catalogue)).dense(topics["text"])
        written = [float(figure) for figure in figures.split(" | ")]
        assert list(areas_under_curve(dense @ dense.T, topics).values()) == pytest.approx(written, abs=0.01)


def test_1_2_3_d_shuffled_labels_show_nothing(encoder: TextEncoder, topics: pd.DataFrame) -> None:
    dense = encoder.dense(topics["text"])
    shuffled = topics.assign(topic=np.random.default_rng(0).permutation(topics["topic"]))
    assert areas_under_curve(dense @ dense.T, shuffled)["all"] == pytest.approx(0.5, abs=0.1)


def test_1_2_3_d_texts_of_people_add_to_the_fit_without_spoiling_it(
    catalogue: pd.DataFrame, topics: pd.DataFrame
) -> None:
    people = ["I forget about it after a few days", "Слишком устаю после работы", "Too tired after work"] * 500
    dense = TextEncoder().fit([*habit_texts(catalogue), *people]).dense(topics["text"])
    assert areas_under_curve(dense @ dense.T, topics)["all"] > 0.8


def test_1_2_3_d_names_in_two_languages_find_each_other(encoder: TextEncoder, catalogue: pd.DataFrame) -> None:
    english = encoder.dense(catalogue["name_en"] + " " + catalogue["description_en"])
    russian = encoder.dense(catalogue["name_ru"] + " " + catalogue["description_ru"])
    similarity = english @ russian.T
    rank = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    assert (rank == 0).mean() > 0.95


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.none() | st.text(st.sampled_from("ab я🏃1-"), max_size=12), min_size=1, max_size=6),
    st.integers(1, 40),
)
def test_1_2_3_d_law_any_texts_can_be_fitted_and_rows_stand_alone(texts: list[str | None], components: int) -> None:
    encoder = TextEncoder(components).fit(texts)
    dense = encoder.dense(texts)
    assert dense.shape[0] == len(texts)
    assert dense.shape[1] <= max(1, min(components, len(texts)))
    lengths = np.linalg.norm(dense, axis=1)
    assert np.all(np.isclose(lengths, 1) | (lengths == 0))
    assert np.array_equal(encoder.dense(texts[::-1]), dense[::-1])
    assert np.array_equal(encoder.dense(texts[:1]), dense[:1])


def test_habit_texts_join_what_there_is() -> None:
    habits = pd.DataFrame(
        {"habit_id": ["a", "b", "c"], "name_en": ["Run", None, None], "category": [None, "finance", None]},
        index=[7, 7, 8],
    )
    texts = habit_texts(habits)
    assert list(texts.index) == [7, 7, 8]
    assert [words(text) if isinstance(text, str) else None for text in texts] == [["run"], ["finance", "финансы"], None]
    assert habit_texts(habits[["habit_id"]]).isna().all()
    assert len(habit_texts(habits.iloc[:0])) == 0
    assert set(module._words_file()["categories"]) == set(Category)


def test_bad_texts_are_named() -> None:
    with pytest.raises(ValueError, match="texts: row 1 holds 5, not a text"):
        TextEncoder().fit(["a", 5])
    with pytest.raises(ValueError, match="components is 1 or more; got 0"):
        TextEncoder(0).fit(["a"])
    assert TextEncoder().fit([None]).tfidf([]).shape == (0, 1)
