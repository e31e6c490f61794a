"""A layer of a framework and ours in its place: the same results and gradients?"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from witness import assert_trees_agree

# Both in float64, in another order of summation; 1e-15 is measured.
TOLERANCE = 1e-13


def normal(seed: int, *shape: int) -> jax.Array:
    """Random numbers in float64."""
    return jax.numpy.asarray(np.random.default_rng(seed).standard_normal(shape))


def normal_like(tree: Any, seed: int = 0) -> Any:
    """The same tree with other numbers in it, none of them 0: fresh biases are."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jax.numpy.asarray(0.6 * draw.standard_normal(leaf.shape), leaf.dtype), tree
    )


def answer(apply: Callable[..., Any], *primals: Any) -> Any:
    """Results and gradients, for random cotangents of all results."""

    @jax.jit
    def run(*primals: Any) -> Any:
        results, pull_back = jax.vjp(apply, *primals)
        return results, pull_back(normal_like(results, seed=1))

    return run(*primals)


def assert_same(ours: Callable[..., Any], theirs: Callable[..., Any], *primals: Any) -> None:
    """Assert that results and gradients agree to rounding, in trees of one structure."""
    actual, expected = (answer(apply, *primals) for apply in (ours, theirs))
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    assert_trees_agree(actual, expected, TOLERANCE)


def assert_bitwise(actual: Any, expected: Any) -> None:
    """Assert that two trees are the same to the last bit, names and dtypes included."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def counting(lengths: npt.NDArray[Any], time: int, axis: int) -> jax.Array:
    """1 at steps that count, else 0; ``[batch, time, 1]``, or with axis 0 time first."""
    mask = (np.arange(time) < lengths[:, None]).astype(float)[..., None]
    return jax.numpy.asarray(np.moveaxis(mask, 1, axis))
