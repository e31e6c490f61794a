"""What the engine asks of a cell: the interface between ``sequence.py`` and gate arithmetics.

A gated cell is a linear map, x·W and h'·U, followed by gate arithmetic. The engine owns the linear
map and time; a value of ``Gates`` is the rest. There are two: the plain cell in ``cell.py``, and
``Variant`` in ``variants.py``.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jlstm.linear import Into
from jlstm.types import Carry, check_key, format_shape

Flat = Float[Array, "*batch 4*hidden"]
"""The four gates' values side by side: faster than a gate axis inside the loop over time."""
State = Float[Array, "*batch hidden"]


class Gates(Protocol):
    """A gate arithmetic: all that tells one gated cell from another, and nothing of time.

    ``sequence.py`` knows the products x·W and h'·U, time, chunks, masks and transforms, and asks
    this for the rest. A value of it is hashable, as it is part of what a program is compiled for.
    ``rest`` is always the weights without w_ih and w_hh; ``noise`` what ``noise`` gave for the
    step, or None. Any leading axes: what is said to be for one step is also asked for many.
    """

    @property
    def random(self) -> bool:
        """Whether it needs a key."""
        ...

    def check(self, params: Any) -> Any:
        """The weights as JAX arrays; raise where they are of another kind or do not fit."""
        ...

    def flatten(self, params: Any) -> Any:
        """The weights with the gate axis and the axis ``hidden`` as one."""
        ...

    def mask(self, keys: Array, output: int, dtype: Any) -> Array | None:
        """What h' is multiplied with before h'·U, one for each sequence; None for nothing."""
        ...

    def noise(self, keys: Array, t: Array, hidden: int, output: int, dtype: Any) -> Any:
        """The random masks of one step, made again wherever they are needed; None for none."""
        ...

    def inputs(self, rest: Any, x_part: Flat) -> Flat:
        """What is known of z before h': x·W + b."""
        ...

    def equations(
        self, rest: Any, z: Flat, h_part: Flat, prev: Carry, noise: Any, into: Into
    ) -> Carry:
        """(z, h'·U, carry') to the carry, as plain as its paper: what autodiff is given."""
        ...

    def forward(
        self, rest: Any, z: Flat, h_part: Flat, prev: Carry, noise: Any, into: Into
    ) -> tuple[Carry, Any]:
        """The same the quick way, and what ``jacobian`` needs to know."""
        ...

    def jacobian(
        self, rest: Any, saved: Any, before: Carry, after: Carry, noise: Any, into: Into
    ) -> Any:
        """The local derivative at given forward values."""
        ...

    def pullback(
        self, rest: Any, jac: Any, d: Carry, into: Into
    ) -> tuple[Any, Flat, tuple[State | None, State]]:
        """Cotangents of the carry to (what ``gradient`` needs, that of h'·U, those of h' and c').

        Here matrices in ``rest`` come transposed. The cotangent of h' is without what comes through
        h'·U; None for zero.
        """
        ...

    def pushforward(
        self, rest: Any, jac: Any, known: Any, h_part: Flat, d_prev: Carry, into: Into
    ) -> Carry:
        """Tangents of (all that is known beforehand, h'·U, carry') to those of the carry."""
        ...

    def gradient(
        self, rest: Any, jac: Any, before: Carry, out: Any, x_part: Callable[[], Flat], into: Into
    ) -> tuple[Flat, Flat, Any]:
        """What the pullback left, to cotangents of x·W, h'·U and ``rest``: all steps at once.

        ``x_part()`` is x·W, for those who want it.
        """
        ...

    def tangent(
        self,
        rest: Any,
        d_rest: Any,
        jac: Any,
        before: Carry,
        x_part: Callable[[], Flat],
        dx_part: Flat,
        dh_part: Flat,
        into: Into,
    ) -> Any:
        """The transpose of ``gradient``: what is known of the tangent beforehand.

        ``dh_part`` is h'·U̇ alone. What is None in ``d_rest`` does not move.
        """
        ...


def check_gates(gates: Any) -> Gates:
    """``gates``; raise TypeError unless it is a gate arithmetic."""
    if isinstance(gates, type) or not hasattr(gates, "pullback"):
        wanted = "a gate arithmetic, such as Variant()"
        raise TypeError(f"gates: expected {wanted}, got {type(gates).__name__} {gates!r}")
    known: Gates = gates
    return known


def sequence_keys(key: PRNGKeyArray | None, batch: Sequence[int]) -> PRNGKeyArray:
    """One key for each sequence, ``[*batch]``, from one key for all; or those given, checked.

    What a sequence draws depends on its own key alone, so however the batch is cut, it stays. That
    holds for threefry, JAX's default. Under JAX's rbg and unsafe_rbg a batch draws from the key of
    its first sequence, so what a sequence draws depends on the batch around it. A key for a
    sequence without batch axes is that sequence's own. (Raw keys, as ``jax.random.PRNGKey`` makes
    them, have one axis more.)

    Raises:
        TypeError: no key of ``jax.random``.
        ValueError: none came, or not one for each sequence.
    """
    if key is None:
        raise ValueError(
            "key: expected a key of jax.random, for what is random here, got None; "
            "for evaluation, take without_noise() of the gates or the stack"
        )
    keys = check_key("key", key)
    if keys.shape == () and batch:
        return jax.random.split(keys, tuple(batch))
    if keys.shape != tuple(batch):
        raise ValueError(
            f"key: expected one key, or one for each sequence, {format_shape(batch)}, "
            f"got {format_shape(keys.shape)}"
        )
    return keys


def draw_steps(
    draw: Callable[[PRNGKeyArray, Array], Any], keys: PRNGKeyArray, numbers: Int[Array, " time"]
) -> Any:
    """``draw(keys, number)`` for many numbers, stacked: for each step what it draws alone.

    For threefry ``vmap`` does that; a gradient is up to a fifth faster than with a loop. Under
    JAX's other implementations many steps at once draw otherwise than each of them alone.
    """
    if jax.random.key_impl(keys) == "threefry2x32":
        return jax.vmap(draw, (None, 0))(keys, numbers)
    return jax.lax.map(partial(draw, keys), numbers)
