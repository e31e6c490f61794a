"""What a cell is: its weights, its first carry and its equations.

A gated cell is a linear map, x·W and h'·U, followed by gate arithmetic. The engine owns the linear
map, time and every derivative; a cell is the rest, and three functions are enough::

    init(key, input_size, hidden_size)              fresh weights
    start(params, batch_shape)                      the carry before the first step
    step(own, x·W, h'·U, carry', noise) -> carry    one step

The carry is any pytree with a field ``h``: what the cell puts out, and what U multiplies. What a
cell may hand over besides is in ``Extras``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jlstm.types import check_array, check_float

Columns = Float[Array, "*batch columns"]
"""One number for each gate and unit, the gates one after another: ``columns`` is gates·hidden. One
axis, as a separate one for the gates is slower inside the loop over time."""

State = Any
"""The carry of a cell: a NamedTuple or dataclass of arrays ``[*batch, ·]``, with a field ``h``."""


class Gates(Protocol):
    """A cell. A value of it is hashable, as it is part of what a program is compiled for.

    Besides these, a cell may have ``check(params)``, which raises where weights do not fit and
    returns them as JAX arrays; ``extras``, a value of ``Extras``; and ``without_noise()``, the same
    cell for evaluation, which a stack asks for.
    """

    @property
    def init(self) -> Callable[..., Any]:
        """(key, input_size, hidden_size, **options) to fresh weights.

        They are a NamedTuple or dataclass of arrays (or None). Two fields are the engine's:
        ``w_ih``, W ``[input, gates, hidden]``, and ``w_hh``, U ``[output, gates, hidden]``, or by
        heads ``[heads, output/heads, gates, hidden/heads]``. All others are the cell's own. The
        options are what the cell likes; a stack hands on ``dtype``, and ``output_size`` where it is
        asked for one.
        """
        ...

    def start(self, params: Any, batch_shape: Sequence[int]) -> State:
        """The carry before the first step, usually zeros ``[*batch_shape, ·]``."""
        ...

    def step(self, own: Any, x_part: Columns, h_part: Columns, carry: State, noise: Any) -> State:
        """The equations: (x·W, h'·U, carry') to the carry.

        A pure function, of arrays with any leading axes: one step, or many. ``own`` is the weights
        without w_ih and w_hh (None); ``noise`` what ``Extras.noise`` drew for the step, or None.
        """
        ...


class Values(NamedTuple):
    """What is known of one step, or of many, when its derivative is asked for."""

    own: Any
    """The weights of the cell without w_ih and w_hh."""
    saved: Any
    """What ``Local.forward`` saved."""
    before: State
    """The carry that the step started from."""
    after: State
    noise: Any


class Local(NamedTuple):
    """A step and its derivative, d<name> being the cotangent of <name>.

    Its local Jacobian is prepared for many steps at once; then one step of back-propagation is all
    that the walk through time has to do. Both ``pull`` and ``gradient`` are linear in cotangents:
    tangents are found by their transposes.
    """

    forward: Callable[[Any, Columns, Columns, State, Any], tuple[State, Any]]
    """(own, x·W, h'·U, carry', noise) to the carry, and what is saved for the derivative."""
    prepare: Callable[[Values], tuple[Any, Callable[[Any, State], tuple[Any, Columns, State]]]]
    """Values of many steps to (jac, pull): a pytree with the steps as leading axis, and a function
    for one step of it. ``pull(jac_t, d_carry)`` is (what ``gradient`` needs, d(h'·U), d_carry' but
    for what comes through h'·U)."""
    gradient: Callable[[Values, Any], tuple[Columns, Columns, Any]]
    """What ``pull`` left at many steps to d(x·W), d(h'·U) and the sum of d_own."""


@dataclass(frozen=True)
class Extras:
    """What a cell may hand over besides its equations; what is None is not there."""

    summed: bool = False
    """Whether the step sees x·W, h'·U and a bias ``b`` only as their sum. The engine then calls it
    as ``step(own, 0, x·W + h'·U + b, …)``, b being None in ``own``; it keeps one array instead of
    two, and finds dW and dU as one product."""
    derivative: Local | None = None
    """The derivative by hand; from the equations if None."""
    noise: Callable[[PRNGKeyArray, Array, State], Any] | None = None
    """(keys ``[*batch]``, number of the step, shapes and dtypes of carry') to the random masks of a
    step. It is called again wherever they are needed."""
    mask: Callable[[PRNGKeyArray, Array], Array] | None = None
    """(keys ``[*batch]``, h') to what h' is multiplied with before h'·U, the same at every step."""
    rounded: Callable[[Any], Gates] | None = None
    """(dtype) to the same cell with the factors of products in its step rounded to it, for
    ``compute_dtype``; for a cell that has such products."""

    @property
    def random(self) -> bool:
        """Whether the cell needs a key."""
        return self.noise is not None or self.mask is not None


def extras_of(gates: Gates) -> Extras:
    """What the cell hands over besides its equations."""
    return getattr(gates, "extras", None) or Extras()


def check_gates(gates: Any) -> Gates:
    """``gates``; raise TypeError unless it is a cell."""
    missing = [n for n in ("init", "start", "step") if not callable(getattr(gates, n, None))]
    if isinstance(gates, type) or missing:
        raise TypeError(
            "gates: expected a cell, such as Variant(), with the functions init, start and step, "
            f"got {type(gates).__name__} {gates!r}"
        )
    try:
        hash(gates)
    except TypeError:
        raise TypeError(
            "gates: expected a value that can be hashed, such as one of a frozen dataclass, got "
            f"{gates!r}"
        ) from None
    known: Gates = gates
    return known


def check_weights(gates: Gates, params: Any) -> Any:
    """The weights of a cell as JAX arrays; raise where they do not fit.

    Raises:
        TypeError: weights without w_ih and w_hh, or not of one floating-point dtype.
        ValueError: a shape that does not fit.
    """
    check = getattr(gates, "check", None)
    if check is not None:
        return check(params)
    for leaf in jax.tree.leaves(params):
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise TypeError(
                "params: expected a NamedTuple of arrays, or a dataclass of them that is known to "
                f"JAX (jax.tree_util.register_dataclass), got one with {type(leaf).__name__} in it"
            )
        check_float("params", leaf.dtype)
    for name in ("w_ih", "w_hh"):
        if not hasattr(params, name):
            raise TypeError(
                f"params: expected weights with the fields w_ih and w_hh, got "
                f"{type(params).__name__}"
            )
    blocks = ("heads",) if getattr(params.w_hh, "ndim", 3) == 4 else ()
    w_hh = check_array("params.w_hh", params.w_hh, (*blocks, "output", "gates", "hidden"))
    heads = w_hh.shape[0] if blocks else 1
    columns = w_hh.shape[-2], heads * w_hh.shape[-1]
    dtype = check_float("params.w_hh", w_hh.dtype)
    check_array("params.w_ih", params.w_ih, ("input", *columns), dtype)
    return jax.tree.map(jnp.asarray, params)


def first_state(gates: Gates, params: Any, batch: Sequence[int]) -> State:
    """Shapes and dtypes of a carry of this cell, ``[*batch, ·]``, by what ``start`` gives.

    Raises:
        TypeError: a start without h, or not of floating-point arrays.
        ValueError: h has not as many units as w_hh has rows.
    """
    first = jax.eval_shape(lambda: gates.start(params, tuple(batch)))
    if not hasattr(first, "h"):
        raise TypeError(
            "gates: expected a start that is a NamedTuple or dataclass with a field h, got "
            f"{type(first).__name__}"
        )
    for leaf in jax.tree.leaves(first):
        check_float("gates.start", leaf.dtype)
    *blocks, rows, _, _ = params.w_hh.shape
    if math.prod(blocks) * rows != first.h.shape[-1]:
        raise ValueError(
            f"params.w_hh: expected {first.h.shape[-1]} rows, as h has so many units by "
            f"gates.start, got {math.prod(blocks) * rows}"
        )
    return first


def check_state(name: str, carry: Any, first: State) -> State:
    """``carry`` as JAX arrays; raise unless it is like ``first``, from ``first_state``.

    Raises:
        TypeError: a carry of another kind, or of another dtype.
        ValueError: a shape that does not fit.
    """
    if type(carry) is not type(first):
        raise TypeError(f"{name}: expected {type(first).__name__}, got {type(carry).__name__}")

    def check(path: Any, one: jax.ShapeDtypeStruct, value: Any) -> Array:
        return check_array(name + jax.tree_util.keystr(path), value, one.shape, one.dtype)

    return jax.tree_util.tree_map_with_path(check, first, carry)
