"""The legend of dimensions, the two pytrees that every function passes around, and their checks.

Dimensions, the same names in every signature of the library:

============  ==========================================================================
``time``      steps of the sequence; always the leading axis (time-major)
``*batch``    any number of independent sequences' axes, or none
``input``     features of x_t
``hidden``    units of h_t and c_t
``4``         the gates, in the order of ``GATES``: input i, forget f, cell candidate g,
              output o (the notes call the candidate a)
============  ==========================================================================

Plural names (``xs``, ``hs``) have a time axis, singular ones (``x``, ``h``) have none;
``d<name>`` is the cotangent of ``<name>``: the derivative of the loss with respect to it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, PRNGKeyArray

from jlstm.checks import check_size

GATES = ("i", "f", "g", "o")
"""The order of the gate axis: input gate, forget gate, cell candidate, output gate."""


Tuple = TypeVar("Tuple", bound=type)


def exportable(kind: Tuple) -> Tuple:
    """A NamedTuple of the library, known to ``jax.export``: ``Exported.serialize`` takes it."""
    with suppress(ValueError):  # known already, where a module is imported a second time
        export.register_namedtuple_serialization(kind, serialized_name=f"jlstm.{kind.__name__}")
    return kind


@exportable
class LSTMParams(NamedTuple):
    """The weights of one LSTM layer: z_t = x_t·w_ih + h_{t-1}·w_hh + b, one block per gate.

    The gate axis is explicit: ``params.w_hh[:, 1]`` is the recurrent weight of the forget gate.
    """

    w_ih: Float[Array, "input 4 hidden"]
    """W of the notes, input to preactivation."""
    w_hh: Float[Array, "hidden 4 hidden"]
    """U of the notes, previous output to preactivation."""
    b: Float[Array, "4 hidden"] | None
    """The bias, which the notes leave out; None for an LSTM without one."""


@exportable
class Carry(NamedTuple):
    """What an LSTM remembers from one step to the next."""

    h: Float[Array, "*batch hidden"]
    """The output h_t."""
    c: Float[Array, "*batch hidden"]
    """The memory cell c_t."""


Tree = TypeVar("Tree")
Fields = TypeVar("Fields")


def replace(tree: Tree, **fields: Any) -> Tree:
    """The same NamedTuple or dataclass with other values in some fields."""
    changed: Tree
    if hasattr(tree, "_replace"):
        changed = tree._replace(**fields)
    else:
        changed = dataclasses.replace(tree, **fields)  # type: ignore[type-var]
    return changed


def check_array(name: str, value: Any, shape: Sequence[int | str], dtype: Any = None) -> Array:
    """``value`` as a JAX array; raise unless it is an array of this shape and dtype.

    A string in ``shape`` names an axis of any size; ``"..."`` stands for any number of axes.

    Raises:
        TypeError: ``value`` is no array, or of another dtype.
        ValueError: the shape differs.
    """
    if not isinstance(value, jax.Array | np.ndarray | np.generic):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    array = jnp.asarray(value)
    sizes, actual = list(shape), list(array.shape)
    if "..." in sizes:
        start = sizes.index("...")
        extra = max(0, len(actual) - len(sizes) + 1)
        sizes[start : start + 1] = actual[start : start + extra]
    fits = len(sizes) == len(actual) and all(
        isinstance(size, str) or size == n for size, n in zip(sizes, actual, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name}: expected shape {format_shape(shape)}, got {format_shape(array.shape)}"
        )
    if dtype is not None and array.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {jnp.dtype(dtype).name}, got {array.dtype.name}")
    return array


def format_shape(shape: Sequence[int | str]) -> str:
    """``[3, hidden]`` for ``(3, "hidden")``."""
    return "[" + ", ".join(str(s) for s in shape) + "]"


def check_key(name: str, value: Any, *, single: bool = False) -> PRNGKeyArray:
    """``value`` as keys of ``jax.random``: raw ones, of ``jax.random.PRNGKey``, become new ones.

    Raises:
        TypeError: no key.
        ValueError: several, where a single one is asked for.
    """
    if not isinstance(value, jax.Array | np.ndarray):
        raise TypeError(
            f"{name}: expected a key of jax.random, got {type(value).__name__} {value!r}"
        )
    if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        raw = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        if value.dtype != raw.dtype or value.shape[-1:] != raw.shape:
            raise TypeError(
                f"{name}: expected a key of jax.random, or raw ones, {raw.dtype.name} "
                f"[…, {raw.shape[0]}], "
                f"got {value.dtype.name} {format_shape(value.shape)}"
            )
        value = jax.random.wrap_key_data(jnp.asarray(value))
    if single and value.shape:
        raise ValueError(f"{name}: expected a single key, got {format_shape(value.shape)} of them")
    keys: PRNGKeyArray = value
    return keys


def check_step(name: str, value: Any) -> None:
    """Raise unless ``value`` is the number of a step: an integer, or a scalar array of one."""
    if isinstance(value, jax.Array | np.ndarray):
        array = check_array(name, value, ())
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise TypeError(f"{name}: expected an integer dtype, got {array.dtype.name}")
        if isinstance(value, jax.core.Tracer):
            return
        value = int(value)
    check_size(name, value, least=0)


def check_float(name: str, dtype: Any) -> np.dtype:
    """``dtype`` as a NumPy dtype; raise TypeError unless it is a floating-point one."""
    try:
        known: np.dtype = jnp.dtype(dtype)
    except TypeError:
        raise TypeError(f"{name}: expected a floating-point dtype, got {dtype!r}") from None
    if not jnp.issubdtype(known, jnp.floating):
        raise TypeError(f"{name}: expected a floating-point dtype, got {known.name}")
    return known


def at_least_32_bits(dtype: np.dtype) -> np.dtype:
    """float32 for the 16-bit dtypes, whose precision is too short for some steps; else itself."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else dtype


def check_fields(
    params: Any, kind: type[Fields], shapes: Mapping[str, tuple[bool | None, Sequence[int | str]]]
) -> Fields:
    """Weights as JAX arrays; raise where they are of another kind or do not fit together.

    Args:
        params: the weights.
        kind: the NamedTuple that they should be.
        shapes: for each field, ``w_hh`` first, whether it has to be there (None for either), and
            its shape; axes of one name are of one size.

    Raises:
        TypeError: another kind, no array, or not of the one floating-point dtype of w_hh.
        ValueError: a shape that does not fit, a field that is missing or should be None.
    """
    if not isinstance(params, kind):
        raise TypeError(f"params: expected {kind.__name__}, got {type(params).__name__}")
    sizes: dict[int | str, int | str] = {}
    checked: dict[str, Array | None] = {}
    dtype: np.dtype | None = None
    for field, (needed, shape) in shapes.items():
        name, value = f"params.{field}", getattr(params, field)
        if needed is not None and needed is not (value is not None) and sizes:
            said = ("an array", "None") if needed else ("None", "an array")
            raise ValueError(f"{name}: expected {said[0]} for these gates, got {said[1]}")
        if value is not None or not sizes:
            value = check_array(name, value, [sizes.get(n, n) for n in shape], dtype)
            for n, size in zip(shape, value.shape, strict=True):
                sizes.setdefault(n, size)
            value = check_array(name, value, [sizes[n] for n in shape])
            dtype = check_float(name, value.dtype)
        checked[field] = value
    return kind(**checked)
