"""Models of text that only count: what a network has to beat to be worth its training.

A byte b is foretold from the k bytes before it, its context. The estimate from a long context is
sharp where there is one, and is interpolated with that from the context one byte shorter, down to
no context and at last to the uniform distribution (modified Kneser–Ney smoothing, Chen & Goodman
1998, interpolated)::

    p_k(b | s) = (c(s,b) − D(c(s,b)))/c(s) + γ(s)·p_{k−1}(b | s without its first byte)
    γ(s) = Σ_b D(c(s,b)) / c(s)                 p_{−1}(b) = 1/size

with c(s) = Σ_b c(s,b), and p_k = p_{k−1} where s was never seen. In the longest context c counts
occurrences; in a shorter one it counts in how many different contexts, one byte longer, (s, b)
occurs: a byte that is frequent only after one certain byte tells little about other places. A count
of 1, 2, or 3 and more gives up a discount D₁, D₂, D₃ found from n_r, the number of (s, b) with
count r: D_r = r − (r+1)·n₁/(n₁ + 2n₂)·n_{r+1}/n_r, but at least 0.1, so that no byte is ever
impossible.

A byte may stand for anything of which there are up to 256, such as the characters of a small
alphabet; ``size`` says how many there are. The unigram model takes tokens of any number.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer, UInt8, UInt64

from jlstm.checks import check_size

LONGEST = 7
"""Context and byte are packed into 64 bits."""

LEAST_DISCOUNT = 0.1
"""A text in which few counts occur may give an estimate of 0 or less."""

Text = UInt8[np.ndarray, " bytes"]


class Counts(NamedTuple):
    """One context length's part of a model, sorted so that it can be searched."""

    grams: UInt64[np.ndarray, " grams"]
    """Context and byte, packed, the byte in the lowest bits."""
    shares: Float[np.ndarray, " grams"]
    """(c(s,b) − D)/c(s)."""
    contexts: UInt64[np.ndarray, " contexts"]
    left: Float[np.ndarray, " contexts"]
    """γ(s): what the contexts one byte shorter may distribute."""


NGram = tuple[Counts, ...]
"""A model: the counts of the context lengths 0, 1, …, k."""


def fit_ngram(text: Text, order: int) -> NGram:
    """Count a text.

    Args:
        text: the bytes to learn from.
        order: bytes of the longest context: 0 for the frequencies of single bytes (the unigram
            model), 5 for 6-byte sequences.

    Raises:
        TypeError: ``order`` is no integer.
        ValueError: ``order`` is negative or above 7, or the text is not longer than it.
    """
    _check_order(text, order)
    model = []
    grams = np.empty(0, np.uint64)
    for length in range(order, -1, -1):
        if length == order:
            grams, counts = np.unique(_pack(text, length), return_counts=True)
        else:
            shorter = grams & np.uint64((1 << 8 * (length + 1)) - 1)
            grams, counts = np.unique(shorter, return_counts=True)
        contexts, starts = np.unique(grams >> np.uint64(8), return_index=True)
        totals = np.add.reduceat(counts, starts)
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        shares = (counts - discounts) / np.repeat(totals, np.diff([*starts, len(grams)]))
        left = np.add.reduceat(discounts, starts) / totals
        model.append(Counts(grams, shares, contexts, left))
    return tuple(reversed(model))


def uniform_bits(size: int = 256) -> float:
    """Bits per token where each of so many is equally likely."""
    return math.log2(size)


def unigram_bits(
    training: Integer[np.ndarray, " training"], text: Integer[np.ndarray, " tokens"], size: int
) -> float:
    """Mean bits per token of the unigram model, order 0, over every token of a text but the first.

    Both may be larger than memory.

    Args:
        training: the tokens whose frequencies are learnt, from 0 to size − 1.
        text: the tokens that are foretold.
        size: how many different ones there are.

    Raises:
        ValueError: nothing to learn from, or fewer than two tokens to foretell.
    """
    if not len(training) or len(text) < 2:
        raise ValueError(
            "training, text: expected at least 1 token and 2 tokens, got "
            f"{len(training)} and {len(text)}"
        )
    counts = _frequencies(training, size)
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    p = (counts - discounts + discounts.sum() / size) / len(training)
    asked = _frequencies(text[1:], size)
    return float(-np.sum(asked * np.log2(p)) / asked.sum())


def _frequencies(tokens: Integer[np.ndarray, " tokens"], size: int) -> Int[np.ndarray, " size"]:
    counts = np.zeros(size, np.int64)
    for start in range(0, len(tokens), 1 << 22):
        counts += np.bincount(tokens[start : start + (1 << 22)], minlength=size)
    return counts


def ngram_bits(model: NGram, text: Text, size: int = 256) -> float:
    """Mean bits per byte, −log₂ p, over every byte of a text but the first.

    The bytes before each are its context, so the second byte has a context of one: exactly what a
    network that reads the text from its start is given.

    Raises:
        ValueError: the text has fewer than two bytes.
    """
    _check_order(text, 1)
    known = np.full(len(text), 1 / size)
    for length, counts in enumerate(model[: len(text)]):
        known[length:] = _refine(counts, _pack(text, length), known[length:])
    return float(-np.mean(np.log2(known[1:])))


def ngram_probabilities(
    model: NGram, context: bytes, size: int = 256
) -> Float[np.ndarray, " size"]:
    """The probability of each of the bytes below ``size`` after a context of any length."""
    known = np.full(size, 1 / size)
    for length, counts in enumerate(model[: len(context) + 1]):
        past = int.from_bytes(context[len(context) - length :], "big")
        grams = np.arange(size, dtype=np.uint64) + np.uint64(past << 8)
        known = _refine(counts, grams, known)
    return known


def _refine(
    counts: Counts, grams: UInt64[np.ndarray, " n"], shorter: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """p_k from p_{k−1}, the equation of the module's docstring."""
    contexts = grams >> np.uint64(8)
    where, known = _find(counts.contexts, contexts)
    left = np.where(known, counts.left[where], 1.0)
    where, known = _find(counts.grams, grams)
    refined: np.ndarray = np.where(known, counts.shares[where], 0.0) + left * shorter
    return refined


def _find(
    table: UInt64[np.ndarray, " m"], keys: UInt64[np.ndarray, " n"]
) -> tuple[np.ndarray, np.ndarray]:
    """Where the keys are in a sorted table, and whether they are there at all."""
    where = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return where, table[where] == keys


def _pack(text: Text, length: int) -> UInt64[np.ndarray, " n"]:
    """Every byte that has ``length`` bytes before it, packed with those into one number."""
    wide = text.astype(np.uint64)
    packed = wide[length:]
    for back in range(1, length + 1):
        packed = packed | wide[length - back : len(wide) - back] << np.uint64(8 * back)
    return packed


def _discounts(counts: np.ndarray) -> Float[np.ndarray, " 4"]:
    """D by count: none for 0, then D₁, D₂, D₃."""
    n1, n2, n3, n4 = (int(np.sum(counts == r)) for r in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        # Too little text for the estimate; any discount above 0 and up to 1 is valid.
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    estimates = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return np.array([0.0, *np.clip(estimates, LEAST_DISCOUNT, [1.0, 2.0, 3.0])])


def _check_order(text: Text, order: int) -> None:
    check_size("order", order, 0)
    if order > LONGEST:
        raise ValueError(f"order: expected at most {LONGEST}, got {order}")
    if len(text) <= order:
        raise ValueError(f"text: expected at least {order + 1} bytes, got {len(text)}")
