"""Texts in English and Russian as numbers: tokens, base forms, TF-IDF, and a dense form in which both languages meet.

Both languages may be mixed freely: a word's script says its language. Habits carry names in both, so that an encoder
fitted on `habit_texts` learns which English and Russian words go together (latent semantic analysis: Deerwester et al.
1990, J. Am. Soc. Inf. Sci. 41:391; across languages: Dumais et al. 1997, AAAI Spring Symposium).
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from habitlab.features.preprocessing import Floats, parameters_hash

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MISSING = "[missing]"
"""Token of a text that nobody gave. No text can contain it: tokens of texts have no brackets."""

_EMOJI = r"[\U0001F1E6-\U0001F1FF]{2}|[\u2600-\u27BF\u2B50\U0001F300-\U0001FAFF]"
_TOKEN = re.compile(
    rf"[^\W\d_]+(?:[-'][^\W\d_]+)*|\d+(?:[.,:]\d+)*|(?:{_EMOJI})(?:\u200D(?:{_EMOJI}))*",
)
# Stress marks, and what only says how an emoji looks or whom it shows: skin tone, gender, colour of the glyph.
_ORNAMENTS = re.compile("[\u0301\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]|\u200d[\u2640\u2642]\ufe0f?")
_CONTRACTION = re.compile(r"'(?:s|m|d|re|ve|ll)$")
_CYRILLIC = re.compile("[а-яё]")
_LATIN = re.compile("[a-z]")


def tokenise(text: str) -> list[str]:
    """Split a text into lower-case tokens: words, numbers and emoji, in their order; everything else only separates.

    Words keep inner hyphens and apostrophes, numbers their inner separators; `ё` is written `е`, and an emoji stands
    for all its skin tones and genders.

    >>> tokenise("Self-care: don't skip 10,000 steps! 🏃🏽")
    ['self-care', "don't", 'skip', '10,000', 'steps', '🏃']
    """
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("ё", "е")
    return _TOKEN.findall(_ORNAMENTS.sub("", plain))


@lru_cache(maxsize=1 << 16)
def lemma(token: str) -> str:
    """Base form of a token as `tokenise` gives it, by the language of its script; numbers and emoji stay as they are.

    >>> lemma("привычками"), lemma("running"), lemma("can't")
    ('привычка', 'run', 'not')
    """
    token = _CONTRACTION.sub("", token)
    if token.endswith("n't") or token == "cannot":
        return "not"
    language = "ru" if _CYRILLIC.search(token) else "en" if _LATIN.search(token) else None
    if language is None:
        return token
    from simplemma import lemmatize  # here, for the first word of a language loads its dictionary: up to a second

    return lemmatize(token, lang=language, low_memory=True).casefold().replace("ё", "е")


@cache
def stop_words(language: Literal["en", "ru"]) -> frozenset[str]:
    """Words that say nothing of a topic, in all their forms; negations are none of them."""
    return frozenset(_words_file()[language].split())


@cache
def _words_file() -> dict[str, Any]:
    return tomllib.loads((files("habitlab.features") / "words.toml").read_text(encoding="utf-8"))


def words(text: str, lemmas: Mapping[str, str] | None = None) -> list[str]:
    """Base forms of a text's tokens but the stop words: what `TextEncoder` counts. `lemmas` knows some already.

    >>> words("I can't get up without coffee")
    ['not', 'without', 'coffee']
    """
    return [(lemmas or {}).get(token) or lemma(token) for token in _telling(text)]


def _telling(text: str) -> list[str]:
    """Tokens but the stop words, without contracted endings that only a verb's form needs."""
    stop = stop_words("en") | stop_words("ru")
    return [token for whole in tokenise(text) if (token := _CONTRACTION.sub("", whole)) not in stop]


def habit_texts(habits: pd.DataFrame) -> pd.Series:
    """One text a habit: names, descriptions and category, in both languages (index of `habits`).

    Missing where a habit has none of them. Columns may be absent.
    """
    columns = ["name_en", "description_en", "name_ru", "description_ru", "category"]
    parts = habits.reindex(columns=columns).astype(object)
    parts["category"] = parts["category"].map(_words_file()["categories"])
    joined = parts["name_en"].fillna("")
    for column in columns[1:]:
        joined = joined + "\n" + parts[column].fillna("")
    return joined.where(parts.notna().any(axis=1), None).rename("text")


class TextEncoder(BaseEstimator):
    """TF-IDF of words, and a dense form in which texts of one topic are close even without a common word.

    Fitted on the texts of training, each distinct one once: what a thousand people wrote alike weighs as one text, and
    the order of rows changes nothing. A word weighs (1 + log count) (1 + log((1 + n) / (1 + texts with it))), rows have
    length 1 (scikit-learn's `TfidfVectorizer` with sublinear counts). The dense form is latent semantic analysis (a
    truncated SVD of those weights), with `components` dimensions, fewer where the texts have fewer.

    Words unknown in training count nothing. A missing text is the token `[missing]`, which every vocabulary has; an
    empty one has no token. Neither has a topic: both are 0 in the dense form, like a text without any known word.

    Fitted: `vectorizer_`, `components_` (components, words), `lemmas_` (base form of each token of training, so that
    texts in known words need no dictionary) and `words_version_`. They hold the words of the texts: where people's own
    words must not stay in a model, fit on `habit_texts` alone.
    """

    def __init__(self, components: int = 32) -> None:
        """Keep the settings; `fit` checks them."""
        self.components = components

    def fit(self, texts: Iterable[object], y: object = None) -> Self:
        """Learn words, their weights and the dimensions from texts (str; None and NaN are missing ones)."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.utils.extmath import randomized_svd
        from threadpoolctl import threadpool_limits

        if self.components < 1:
            raise ValueError(f"components is 1 or more; got {self.components}")
        known = sorted(_distinct(texts)[1].dropna())
        self.words_version_ = int(_words_file()["version"])
        self.lemmas_ = {token: lemma(token) for token in sorted({token for text in known for token in _telling(text)})}
        self.vectorizer_ = TfidfVectorizer(token_pattern=r"\S+", lowercase=False, sublinear_tf=True)
        weights = self.vectorizer_.fit_transform([MISSING, *map(self._document, known)])[1:]
        self.components_ = np.zeros((1, weights.shape[1]))
        if weights.nnz:
            size = max(1, min(self.components, min(weights.shape) - 1))
            # Iterated until the seed no longer shows: the default five leave neighbouring dimensions mixed. On one
            # thread, for the last bits of products depend on their number.
            with threadpool_limits(limits=1, user_api="blas"):
                self.components_ = randomized_svd(weights, size, n_iter=20, n_oversamples=30, random_state=0)[2]
        return self

    def tfidf(self, texts: Iterable[object]) -> csr_matrix:
        """Weights of the known words of each text: (texts, words), sparse; rows of length 1, or 0 without a word."""
        check_is_fitted(self)
        if self.words_version_ != _words_file()["version"]:
            raise ValueError("this encoder was fitted with another list of stop words; fit it again")
        codes, distinct = _distinct(texts)
        documents = [
            MISSING if missing else self._document(text)
            for text, missing in zip(distinct, distinct.isna(), strict=True)
        ]
        return self.vectorizer_.transform([*documents, ""])[codes]  # the last one, for no text at all is an error there

    def dense(self, texts: Iterable[object]) -> Floats:
        """Place of each text among the topics: (texts, components); a product of two rows is their cosine."""
        places = self.tfidf(texts) @ self.components_.T
        lengths = np.linalg.norm(places, axis=1, keepdims=True)
        told = lengths > 1e-9  # what is shorter is rounding, and would point anywhere
        return np.divide(places, lengths, out=np.zeros_like(places), where=told)

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """The words of the columns of `tfidf`."""
        check_is_fitted(self)
        return self.vectorizer_.get_feature_names_out()

    def parameters_hash(self) -> str:
        """Hash of all that was learnt: equal hashes, equal numbers."""
        check_is_fitted(self)
        return parameters_hash(
            {
                "version": self.words_version_,
                "lemmas": self.lemmas_,
                "words": self.get_feature_names_out(),
                "weights": self.vectorizer_.idf_,
                "topics": self.components_,
            }
        )

    def _document(self, text: str) -> str:
        return " ".join(words(text, self.lemmas_))


def _distinct(texts: Iterable[object]) -> tuple[npt.NDArray[np.int64], pd.Series]:
    """Which distinct text each text is, and the distinct texts (None where missing)."""
    values = pd.Series(texts if isinstance(texts, pd.Series) else list(texts), dtype=object)
    wrong = np.flatnonzero(values.notna() & ~values.map(lambda value: isinstance(value, str)).astype(bool))
    if wrong.size:
        raise ValueError(f"texts: row {wrong[0]} holds {values.iloc[wrong[0]]!r}, not a text")
    codes, distinct = pd.factorize(values.where(values.notna(), None), use_na_sentinel=False)
    return codes, pd.Series(distinct, dtype=object)
