"""The counting models: probabilities that sum to one, and the formula written out once more."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from jlstm.tasks.text.ngram import (
    fit_ngram,
    ngram_bits,
    ngram_probabilities,
    uniform_bits,
    unigram_bits,
)


def as_text(text: bytes):
    return np.frombuffer(text, np.uint8)


def words(n, seed=0):
    """Bytes with some structure: words of a small vocabulary."""
    draw = np.random.default_rng(seed)
    vocabulary = [bytes(draw.integers(97, 105, draw.integers(1, 6), np.uint8)) for _ in range(30)]
    return b" ".join(vocabulary[i] for i in draw.zipf(1.5, n) % 30)


TEXT = words(600)


@pytest.mark.parametrize("order", [0, 1, 2, 5, 7])
def test_probabilities_sum_to_one(order):
    model = fit_ngram(as_text(TEXT), order)
    for context in (b"", b"a", TEXT[50:60], b"zzzzzzzz", TEXT[:3], bytes(8), b"\xff" * 7):
        p = ngram_probabilities(model, context)
        assert p.min() > 0
        assert p.sum() == pytest.approx(1, abs=1e-12)


def kneser_ney(text: bytes, order: int, context: bytes) -> list[float]:
    """Chen & Goodman's formula with dictionaries, one context at a time."""
    counts: dict[bytes, Counter] = defaultdict(Counter)
    for end in range(order, len(text)):
        counts[text[end - order : end]][text[end]] += 1
    levels = [counts]
    for _ in range(order):
        shorter: dict[bytes, Counter] = defaultdict(Counter)
        for past, following in levels[0].items():
            for byte in following:
                shorter[past[1:]][byte] += 1
        levels.insert(0, shorter)
    p = [1 / 256] * 256
    for length, level in enumerate(levels):
        if length > len(context):
            break
        here = level.get(context[len(context) - length :])
        n = Counter(c for following in level.values() for c in following.values())
        d = [0.0, 0.5, 0.5, 0.5]
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            d = [r - (r + 1) * y * n[r + 1] / max(1, n[r]) for r in range(4)]
            d = [0.0] + [min(max(d[r], 0.1), r) for r in (1, 2, 3)]
        if here is not None:
            total = sum(here.values())
            left = sum(d[min(c, 3)] for c in here.values()) / total
            p = [
                (here[b] - d[min(here[b], 3)] if b in here else 0.0) / total + left * p[b]
                for b in range(256)
            ]
    return p


@pytest.mark.parametrize("order", [1, 3])
def test_the_formula(order):
    model = fit_ngram(as_text(TEXT), order)
    for context in (b"", TEXT[100:101], TEXT[200:203], b"q" + TEXT[300:302], b"qq", TEXT[40:50]):
        expected = kneser_ney(TEXT, order, context)
        np.testing.assert_allclose(ngram_probabilities(model, context), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [0, 2, 5])
def test_bits_are_those_of_the_probabilities(order):
    model = fit_ngram(as_text(TEXT), order)
    other = words(20, seed=1) + b"unseen \x00"
    one_by_one = [
        -np.log2(ngram_probabilities(model, other[:end])[other[end]])
        for end in range(1, len(other))
    ]
    assert ngram_bits(model, as_text(other)) == pytest.approx(np.mean(one_by_one), rel=1e-12)
    assert np.isfinite(one_by_one).all()


def test_what_is_random_costs_what_it_must():
    draw = np.random.default_rng(0)
    uniform = draw.integers(0, 256, 200_000, np.uint8)
    assert uniform_bits() == 8
    # 100,000 bytes of each estimate: below the entropy is impossible but for chance, 0.01 above it
    # is what smoothing and counting may cost.
    assert ngram_bits(fit_ngram(uniform[:100_000], 0), uniform[100_000:]) == pytest.approx(
        8, abs=0.01
    )
    skewed = draw.choice(4, 200_000, p=[0.5, 0.25, 0.125, 0.125]).astype(np.uint8)
    found = ngram_bits(fit_ngram(skewed[:100_000], 0), skewed[100_000:])
    assert found == pytest.approx(1.75, abs=0.01)


def test_context_helps():
    train, validation = as_text(TEXT[:1500]), as_text(TEXT[1500:])
    bits = [ngram_bits(fit_ngram(train, order), validation) for order in (0, 1, 3)]
    assert uniform_bits() > bits[0] > bits[1] > bits[2]


def test_small_alphabets():
    """With fewer than 256 different bytes nothing is lost on those that there are not."""
    letters = as_text(TEXT) % 27
    model = fit_ngram(letters[:1500], 2)
    for context in (b"", b"\x01", b"\x05\x06", b"\x1a\x1a"):
        p = ngram_probabilities(model, context, 27)
        assert (p.shape, p.sum()) == ((27,), pytest.approx(1, abs=1e-12))
    assert ngram_bits(model, letters[1500:], 27) < ngram_bits(model, letters[1500:])
    assert uniform_bits(32) == 5


def test_the_unigram_model_is_that_of_order_0(monkeypatch):
    train, validation = as_text(TEXT[:1500]), as_text(TEXT[1500:])
    for size in (123, 256):
        expected = ngram_bits(fit_ngram(train, 0), validation, size)
        for piece in (train, train.astype(np.uint16)):
            assert unigram_bits(piece, validation, size) == pytest.approx(expected, rel=1e-12)
    many = np.arange(10**6, dtype=np.uint32) % 70_000
    assert unigram_bits(many, many[:140_001], 70_000) == pytest.approx(np.log2(70_000), rel=1e-4)
    # More than one piece.
    long = np.tile(np.array([0, 0, 0, 1], np.uint8), 2**21)
    assert unigram_bits(long, long[3:], 2) == pytest.approx(2 - 0.75 * np.log2(3), abs=1e-4)


def test_tiny_texts():
    for text in (b"ab", b"aaaa", b"aaaaaaaaab"):
        p = ngram_probabilities(fit_ngram(as_text(text), 1), b"a")
        assert p.sum() == pytest.approx(1, abs=1e-12)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="order: expected at most 7, got 8"):
        fit_ngram(as_text(TEXT), 8)
    with pytest.raises(ValueError, match="order: expected at least 0, got -1"):
        fit_ngram(as_text(TEXT), -1)
    with pytest.raises(ValueError, match="text: expected at least 6 bytes, got 3"):
        fit_ngram(as_text(b"abc"), 5)
    with pytest.raises(ValueError, match="text: expected at least 2 bytes, got 1"):
        ngram_bits(fit_ngram(as_text(TEXT), 1), as_text(b"a"))
    with pytest.raises(ValueError, match=r"training, text: expected .* got 4 and 1"):
        unigram_bits(as_text(b"\0\1\2\3"), as_text(b"\0"), 4)
