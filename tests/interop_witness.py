"""What the tests of ``jlstm.interop`` share: a stack beside the same in a framework.

``run`` is how both are asked: results, and gradients under random cotangents. What a framework
gives as gradients of its weights goes through the same ``from_<x>`` as the weights do, and so
arrives in our form.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from witness import relative_error

import jlstm
from jlstm import SLSTM, Stack, Variant, VariantParams
from jlstm.layers import LayerParams

# The same equations in float64 in another order of summation; 3e-15 is the most that is measured.
TOLERANCE = 1e-13

TIME, BATCH, INPUT = 6, 4, 3


PROJECTED = Stack(sizes=4, output_sizes=2, gates=Variant())

NOBODY_ELSE_HAS = {
    "sLSTM": (Stack(sizes=4, gates=SLSTM()), "gates: .*an LSTM.* SLSTM"),
    "peepholes": (Stack(sizes=4, gates=Variant(peepholes=True)), "peepholes: expected what "),
    "layer_norm": (Stack(sizes=4, gates=Variant(layer_norm=True)), "layer_norm: expected what "),
    "coupled": (Stack(sizes=4, gates=Variant(coupled=True)), "coupled: expected what "),
    "zoneout": (Stack(sizes=4, gates=Variant(zoneout_h=0.1)), "zoneout_h: expected what "),
    "clip": (Stack(sizes=4, gates=Variant(cell_clip=1.0)), "cell_clip: expected what "),
    "skip": (Stack(sizes=(4, 4), connections="skip"), "connections: .*got skip"),
    "residual": (Stack(sizes=(4, 4), connections="residual"), "connections: .*got residual"),
    "reverse": (Stack(sizes=4, reverse=True), "reverse: .*walk forward, or both ways"),
    "learned_carry": (Stack(sizes=4, learned_carry=True), "learned_carry: .*no parameter"),
}
"""Stacks that have no equal in PyTorch, Flax, Haiku, Equinox and Keras, and why."""


def drawn(stack: Stack, input_size: int = INPUT, dtype: Any = np.float64, **options: Any) -> Any:
    """Random weights, all of them, as NumPy arrays; no two alike."""
    shapes = jax.eval_shape(
        lambda: jlstm.init_stack(jax.random.key(0), input_size, stack, dtype=dtype, **options)
    )
    draw = np.random.default_rng(7)
    return jax.tree.map(lambda a: (0.6 * draw.standard_normal(a.shape)).astype(a.dtype), shapes)


def random_like(tree: Any, seed: int = 3) -> Any:
    """Random numbers instead of what a framework starts from (its biases are 0)."""
    draw = np.random.default_rng(seed)

    def one(a: Any) -> Any:
        if not jnp.issubdtype(a.dtype, jnp.floating):
            return a
        return (0.6 * draw.standard_normal(a.shape)).astype(a.dtype)

    return jax.tree.map(one, tree)


def inputs(input_size: int = INPUT, time: int = TIME, batch: int = BATCH) -> Any:
    return np.random.default_rng(11).standard_normal((time, batch, input_size))


def run(function: Callable[..., Any], tree: Any, xs: Any) -> tuple[Any, Any, Any]:
    """hs, and the gradients of weights and of xs, of a function (weights, xs) -> hs."""

    @jax.jit
    def both(tree: Any, xs: Any) -> Any:
        hs, pull_back = jax.vjp(function, tree, xs)
        dhs = np.random.default_rng(13).standard_normal(hs.shape)
        return hs, *pull_back(jnp.asarray(dhs, hs.dtype))

    return jax.tree.map(np.asarray, both(*jax.tree.map(jnp.asarray, (tree, xs))))


def run_stack(stack: Stack, params: Any, xs: Any, **options: Any) -> tuple[Any, Any, Any]:
    """The same of a stack."""
    return run(lambda p, xs: jlstm.stack(stack, p, None, xs, **options)[1], params, xs)


def assert_agree(ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> None:
    """Both are (hs, gradient of the weights in our form, gradient of xs)."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    leaves = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    errors = [relative_error(np.asarray(a), np.asarray(b)) for a, b in leaves]
    assert all(error <= tolerance for error in errors), errors


def assert_same(ours: Any, theirs: Any) -> None:
    """Bit for bit, and of the same dtypes."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.tobytes() == b.tobytes()


def promoting() -> Any:
    """What frameworks need and the tests forbid themselves: dtypes promoted silently."""
    return jax.numpy_dtype_promotion("standard")


def as_variant(params: Any) -> Any:
    """The weights of plain cells as those of a ``Variant``."""
    return tuple(
        LayerParams(*(None if w is None else VariantParams(*w) for w in layer[:2]))
        for layer in params
    )
