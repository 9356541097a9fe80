"""The encoder of character n-grams: scikit-learn's figures without scikit-learn."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from ensemble.artifacts import Manifest, load, save
from ensemble.before.encoders import tfidf
from ensemble.before.encoders.encoder import Encoder
from ensemble.before.encoders.tfidf import Tfidf
from ensemble.errors import BadRequest

KINDS, PLACES = ("Capital", "River", "Größe", "首都"), ("France", "Peru", "日本", "Ålesund")
TEXTS = [f"What is {i} plus {i * 7 % 13}?" for i in range(60)] + [f"{k} of {p}?" for k in KINDS for p in PLACES]


@pytest.fixture(scope="module")
def encoder() -> Tfidf:
    return Tfidf.fit(TEXTS, features=300, size=24)


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_words_ngrams_are_those_of_scikit_learn(text: str) -> None:
    analyse = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).build_analyzer()
    ours = [ngram for word in text.lower().split() for ngram in tfidf._ngrams(word)]
    assert sorted(ours) == sorted(analyse(text))


def test_embeddings_are_scikit_learns_up_to_the_precision_they_are_kept_in() -> None:
    from sklearn.decomposition import TruncatedSVD

    vectoriser = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), max_features=300, sublinear_tf=True, dtype=np.float32
    )
    svd = TruncatedSVD(24, random_state=0, n_iter=3).fit(vectoriser.fit_transform(TEXTS))
    asked = ["what is  12 plus 12 plus 12?", "River of Peru, RIVER", *TEXTS[::9]]
    wanted = svd.transform(vectoriser.transform(asked))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert Tfidf.fit(TEXTS, features=300, size=24).embed(asked) == pytest.approx(wanted, abs=5e-3)


@given(st.lists(st.text(max_size=60), max_size=5))
def test_rows_are_of_unit_length_or_zero(encoder: Tfidf, texts: list[str]) -> None:
    x = encoder.embed(texts)
    assert x.shape == (len(texts), encoder.size) and x.dtype == np.float32
    lengths = np.linalg.norm(x, axis=1)
    assert (np.isclose(lengths, 1, atol=1e-5) | (lengths == 0)).all()


def test_a_text_of_which_nothing_is_known_is_zero(encoder: Tfidf) -> None:
    assert not encoder.embed(["", " \n", "ϠϡϠϡ"])[:2].any()
    assert encoder.embed([]).shape == (0, 24)


def test_alike_is_near_and_case_and_spaces_say_nothing(encoder: Tfidf) -> None:
    sum_, other, capital = encoder.embed(["What is 4 plus 9?", "what   IS 5 plus 8?", "Capital of Peru?"])
    assert sum_ @ other > 0.3 + sum_ @ capital
    assert (encoder.embed(["WHAT is 4\nplus 9?"])[0] == sum_).all()


def test_words_are_forgotten_before_they_fill_the_memory(encoder: Tfidf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf, "_REMEMBERED", 3)
    many = [f"plus{i} {'long' * 50}" for i in range(9)]
    assert (encoder.embed(many) == encoder.embed(many)).all()
    assert 0 < len(encoder._words) <= 3 and max(map(len, encoder._words)) < 50


def test_a_kept_encoder_embeds_alike_without_scikit_learn(encoder: Tfidf, tmp_path: Path) -> None:
    values, tensors = encoder.packed()
    assert values == {"kind": "tfidf"}, "n-grams are tensors, not text"
    save(tmp_path / "kept", Manifest(method="any", kind="routing", parts=values), tensors)
    manifest, again = load(tmp_path / "kept")
    kept = Encoder.unpacked(manifest.parts, again)
    assert (kept.embed(TEXTS) == encoder.embed(TEXTS)).all()
    script = (
        "import sys; from pathlib import Path; from ensemble.artifacts import load\n"
        "from ensemble.before.encoders.tfidf import Tfidf\n"
        f"m, t = load(Path({str(tmp_path / 'kept')!r})); Tfidf.unpacked(m.parts, t).embed(['one', 'two'])\n"
        "assert not {'sklearn', 'scipy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_equal_seeds_fit_equally_and_many_texts_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf, "_FITTED", 40)
    one, same, other = (Tfidf.fit(TEXTS, size=8, seed=seed) for seed in (1, 1, 2))
    assert (one.rows == same.rows).all() and (one.ngrams == same.ngrams).all()
    assert one.ngrams.shape != other.ngrams.shape or (one.ngrams != other.ngrams).any()


def test_texts_without_a_letter_are_refused() -> None:
    with pytest.raises(BadRequest, match="no encoder can be fitted"):
        Tfidf.fit(["", " "])


def test_a_short_text_takes_less_than_a_millisecond() -> None:
    encoder = Tfidf.fit([f"{text} {i}" for i, text in enumerate(TEXTS)])
    texts = [f"A question of {i} words that was never asked before, and of {i * 31} more?" for i in range(50)]
    began = time.thread_time()
    for text in texts:
        encoder.embed([text])
    assert (time.thread_time() - began) / len(texts) < 1e-3
