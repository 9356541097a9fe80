"""Character n-grams: an encoder that needs no model, no download and no processor time worth telling.

What an n-gram is and how much it weighs is scikit-learn's (``TfidfVectorizer``, ``TruncatedSVD``), who does the fit; at
serving numpy alone is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from ensemble.before.encoders.encoder import Encoder
from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Floats, Ints

SHORTEST, LONGEST = 2, 4
"""Characters of an n-gram."""
FEATURES, SIZE = 20_000, 256
"""N-grams that are known, and the length of an embedding: with 60 000 and 512 routers do no better."""
_FITTED = 20_000
"""Texts that are fitted to at most: bounds time, and more tell nothing new of which n-grams there are."""
_REMEMBERED, _WORD = 50_000, 32
"""Words whose n-grams are kept at hand at most, and characters that such a word has at most."""


@dataclass
class Tfidf(Encoder, kind="tfidf"):
    """Latent semantic analysis of character n-grams within words, the case ignored.

    The embedding is the sum of (1 + ln count) × row over the n-grams of a text, made of unit length.
    """

    ngrams: np.ndarray
    """[bytes] uint8, the known n-grams in UTF-8, one after the other."""
    ends: Ints
    """[V], where each of them ends."""
    rows: Floats
    """[V, d] float16, what each adds: its inverse document frequency times its loadings."""

    def __post_init__(self) -> None:
        packed = self.ngrams.tobytes()
        ends = [0, *self.ends.tolist()]
        self._places = {packed[begin:end].decode(): place for place, (begin, end) in enumerate(pairwise(ends))}
        self._words: dict[str, Ints] = {}
        self._table = self.rows.astype(np.float32)

    @classmethod
    def fit(cls, texts: Sequence[str], features: int = FEATURES, size: int = SIZE, seed: int = 0) -> Tfidf:
        """
        Args:
            features: n-grams that are known at most, the most frequent ones.
            size: length of the embeddings at most.
            seed: of the texts that are fitted to where there are very many, and of the decomposition.

        Raises:
            BadRequest: the texts have no n-gram.
        """
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        if len(texts) > _FITTED:
            texts = [texts[i] for i in np.random.default_rng(seed).choice(len(texts), _FITTED, replace=False)]
        vectoriser = TfidfVectorizer(
            analyzer="char_wb",
            ngram_range=(SHORTEST, LONGEST),
            max_features=features,
            sublinear_tf=True,
            dtype=np.float32,
        )
        try:
            weighted = vectoriser.fit_transform(texts)
        except ValueError as error:
            raise BadRequest(f"no encoder can be fitted to these texts: {error}", param="outcomes") from error
        known = vectoriser.get_feature_names_out()
        svd = TruncatedSVD(min(size, len(known), len(texts)), random_state=seed, n_iter=3).fit(weighted)
        packed = [ngram.encode() for ngram in known]
        ends = np.array(list(accumulate(map(len, packed))), np.int64)
        rows = (svd.components_.T * vectoriser.idf_[:, None]).astype(np.float16)
        return cls(np.frombuffer(b"".join(packed), np.uint8), ends, rows)

    @property
    def size(self) -> int:
        return int(self.rows.shape[1])

    def embed(self, texts: Sequence[str]) -> Floats:
        found = np.zeros((len(texts), self.size), np.float32)
        for row, text in enumerate(texts):
            found[row] = self._sum(text)
        length = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(np.divide(found, length, out=found, where=length > 0))

    def _sum(self, text: str) -> Floats:
        words = Counter(text.lower().split())
        if not words:
            return np.zeros(self.size, np.float32)
        owned = [self._of_word(word) for word in words]
        counts = np.repeat(np.fromiter(words.values(), np.float32), [len(own) for own in owned])
        places, inverse = np.unique(np.concatenate(owned), return_inverse=True)
        weights = 1 + np.log(np.bincount(inverse, weights=counts, minlength=len(places)))
        return np.asarray(weights.astype(np.float32) @ self._table[places])

    def _of_word(self, word: str) -> Ints:
        """Known n-grams of a word, as often as they are in it."""
        known = self._words.get(word)
        if known is not None:
            return known
        found = (self._places.get(ngram) for ngram in _ngrams(word))
        known = np.array([place for place in found if place is not None], np.int64)
        if len(word) <= _WORD:
            if len(self._words) >= _REMEMBERED:
                self._words.clear()
            self._words[word] = known
        return known


def _ngrams(word: str) -> Iterator[str]:
    """Of a word between two spaces; a length that it does not reach gives it whole, once."""
    padded = f" {word} "
    for length in range(SHORTEST, LONGEST + 1):
        for begin in range(max(1, len(padded) - length + 1)):
            yield padded[begin : begin + length]
        if len(padded) <= length:
            return
