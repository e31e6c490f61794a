"""Activations: the nonlinear functions of gates and cells.

The list is that of ONNX's LSTM operator, which names them so; ``activation`` makes one of any
elementwise function. Derivatives are JAX's; at a kink they are those of one side of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jlstm.checks import check_function, check_number


class Activation(NamedTuple):
    """An elementwise function: a plain value, to compare, print and pickle.

    (Pickled by its name, so the function has to be one of a module.)
    """

    function: Callable[..., Array]
    """(a, *constants) -> v."""
    constants: tuple[float, ...] = ()

    def __call__(self, a: Array) -> Array:
        """The value at a."""
        return self.function(a, *self.constants)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        if not name.startswith("_"):
            return f"activation({name})"
        shown = f"({', '.join(map(repr, self.constants))})" if self.constants else ""
        return name.lstrip("_") + shown

    def __deepcopy__(self, memo: Any) -> "Activation":
        return self  # nothing in it changes; and a copy of a function that JAX compiled is another


# Functions of the module rather than lambdas, closures or what JAX has compiled: equal activations
# are to compare equal, also when one of them was pickled, as a program is compiled once for each.


def _sigmoid(a: Array) -> Array:
    return jax.nn.sigmoid(a)


def _tanh(a: Array) -> Array:
    return jnp.tanh(a)


def _relu(a: Array) -> Array:
    return jax.nn.relu(a)


def _softsign(a: Array) -> Array:
    return _bent(a)


@jax.custom_jvp
def _bent(a: Array) -> Array:
    return a / (1 + jnp.abs(a))


@_bent.defjvp
def _bent_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # JAX's own slope is the small difference of two numbers where a is large.
    (a,), (da,) = primals, tangents
    root = 1 / (1 + jnp.abs(a))
    return _bent(a), root * root * da


def _softplus(a: Array) -> Array:
    return jnp.logaddexp(a, 0)


def _identity(a: Array) -> Array:
    return a


def _affine(a: Array, alpha: float, beta: float) -> Array:
    return alpha * a + beta


def _leaky_relu(a: Array, alpha: float) -> Array:
    return jnp.where(a > 0, a, alpha * a)


def _thresholded_relu(a: Array, alpha: float) -> Array:
    return jnp.where(a > alpha, a, jnp.zeros_like(a))


def _scaled_tanh(a: Array, alpha: float, beta: float) -> Array:
    return alpha * jnp.tanh(beta * a)


def _hard_sigmoid(a: Array, alpha: float, beta: float) -> Array:
    v = alpha * a + beta
    # Not jnp.clip, whose slope at the very ends is ½.
    return jnp.where(v > 0, jnp.where(v < 1, v, jnp.ones_like(v)), jnp.zeros_like(v))


def _elu(a: Array, alpha: float) -> Array:
    up_to_0 = jnp.where(a > 0, jnp.zeros_like(a), a)  # beyond, expm1 and its slope may overflow
    return jnp.where(a > 0, a, alpha * jnp.expm1(up_to_0))


sigmoid = Activation(_sigmoid)
"""σ(a) = 1/(1 + e^−a)."""

tanh = Activation(_tanh)

relu = Activation(_relu)
"""max(0, a)."""

softsign = Activation(_softsign)
"""a/(1 + |a|)."""

softplus = Activation(_softplus)
"""log(1 + e^a)."""

identity = Activation(_identity)
"""a itself."""


def affine(alpha: float = 1.0, beta: float = 0.0) -> Activation:
    """alpha·a + beta."""
    return _with(_affine, alpha, beta)


def leaky_relu(alpha: float = 0.01) -> Activation:
    """max(0, a) + alpha·min(0, a)."""
    return _with(_leaky_relu, alpha)


def thresholded_relu(alpha: float = 1.0) -> Activation:
    """0 up to alpha, then a."""
    return _with(_thresholded_relu, alpha)


def scaled_tanh(alpha: float = 1.7159, beta: float = 2 / 3) -> Activation:
    """alpha·tanh(beta·a); the constants are those of LeCun et al. (1998)."""
    return _with(_scaled_tanh, alpha, beta)


def hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Activation:
    """alpha·a + beta, kept between 0 and 1."""
    return _with(_hard_sigmoid, alpha, beta)


def elu(alpha: float = 1.0) -> Activation:
    """Up to 0 alpha·(e^a − 1), then a (Clevert et al. 2016)."""
    return _with(_elu, alpha)


def activation(function: Callable[[Array], Array]) -> Activation:
    """An activation of any elementwise function that JAX can differentiate.

    Programs are compiled once for each ``function``: make it once and keep it.

    Raises:
        TypeError: ``function`` cannot be called.
    """
    check_function("function", function)
    return Activation(function)


def _with(function: Callable[..., Array], *constants: float) -> Activation:
    for name, value in zip(("alpha", "beta"), constants, strict=False):
        check_number(name, value)
    return Activation(function, tuple(map(float, constants)))
