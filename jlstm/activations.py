"""Activations with their derivatives by hand: what a gate or a cell may be squashed with.

An ``Activation`` is a function of a preactivation a and its slope, which may use the value v as
well: σ' = v(1 − v) costs nothing once v is there. The list is that of ONNX's LSTM operator, which
names them so; ``activation`` makes one of any elementwise function, its slope found by JAX.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jlstm.checks import check_function, check_number


class Activation(NamedTuple):
    """An elementwise function and its slope."""

    function: Callable[..., Array]
    """(a, *constants) -> v."""
    derivative: Callable[..., Array]
    """(a, v, *constants) -> dv/da."""
    constants: tuple[float, ...] = ()

    def __call__(self, a: Array) -> Array:
        """The value at a."""
        return self.function(a, *self.constants)

    def slope(self, a: Array, v: Array) -> Array:
        """dv/da at a, where the value is v."""
        return self.derivative(a, v, *self.constants)


def _step(condition: Array, a: Array, inside: Any = 1.0, outside: Any = 0.0) -> Array:
    """``inside`` where the condition holds, else ``outside``, in the dtype of a."""
    return jnp.where(condition, jnp.asarray(inside, a.dtype), jnp.asarray(outside, a.dtype))


sigmoid = Activation(jax.nn.sigmoid, lambda a, v: v * (1 - v))
"""σ(a) = 1/(1 + e^−a)."""

tanh = Activation(jnp.tanh, lambda a, v: 1 - v * v)

relu = Activation(jax.nn.relu, lambda a, v: _step(a > 0, a))
"""max(0, a)."""

softsign = Activation(lambda a: a / (1 + jnp.abs(a)), lambda a, v: (1 - jnp.abs(v)) ** 2)
"""a/(1 + |a|)."""

softplus = Activation(lambda a: jnp.logaddexp(a, 0), lambda a, v: jax.nn.sigmoid(a))
"""log(1 + e^a)."""

identity = Activation(lambda a: a, lambda a, v: jnp.ones_like(a))
"""a itself."""


def affine(alpha: float = 1.0, beta: float = 0.0) -> Activation:
    """alpha·a + beta."""
    return _with(_affine, _affine_slope, alpha, beta)


def leaky_relu(alpha: float = 0.01) -> Activation:
    """The larger of a and alpha·a, for alpha below 1: a where a > 0, else alpha·a."""
    return _with(_leaky_relu, _leaky_relu_slope, alpha)


def thresholded_relu(alpha: float = 1.0) -> Activation:
    """0 up to alpha, then a."""
    return _with(_thresholded_relu, _thresholded_relu_slope, alpha)


def scaled_tanh(alpha: float = 1.7159, beta: float = 2 / 3) -> Activation:
    """alpha·tanh(beta·a); the constants are those of LeCun et al. (1998)."""
    return _with(_scaled_tanh, _scaled_tanh_slope, alpha, beta)


def hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Activation:
    """alpha·a + beta, kept between 0 and 1."""
    return _with(_hard_sigmoid, _hard_sigmoid_slope, alpha, beta)


def elu(alpha: float = 1.0) -> Activation:
    """Up to 0 alpha·(e^a − 1), then a (Clevert et al. 2016)."""
    return _with(_elu, _elu_slope, alpha)


def activation(function: Callable[[Array], Array]) -> Activation:
    """An activation of any elementwise function that JAX can differentiate.

    Make it once and keep it: programs are compiled anew for another ``function``.

    Raises:
        TypeError: ``function`` cannot be called.
    """
    check_function("function", function)

    def slope(a: Array, v: Array) -> Array:
        tangent: Array = jax.jvp(function, (a,), (jnp.ones_like(a),))[1]
        return tangent

    return Activation(function, slope)


def _with(function: Any, slope: Any, *constants: float) -> Activation:
    for name, value in zip(("alpha", "beta"), constants, strict=False):
        check_number(name, value)
    return Activation(function, slope, tuple(map(float, constants)))


# Functions of the module rather than closures: equal activations are to compare equal, as a
# program is compiled once for each.


def _affine(a: Array, alpha: float, beta: float) -> Array:
    return alpha * a + beta


def _affine_slope(a: Array, v: Array, alpha: float, beta: float) -> Array:
    return jnp.full_like(a, alpha)


def _leaky_relu(a: Array, alpha: float) -> Array:
    return jnp.where(a > 0, a, alpha * a)


def _leaky_relu_slope(a: Array, v: Array, alpha: float) -> Array:
    return _step(a > 0, a, 1.0, alpha)


def _thresholded_relu(a: Array, alpha: float) -> Array:
    return jnp.where(a > alpha, a, jnp.zeros_like(a))


def _thresholded_relu_slope(a: Array, v: Array, alpha: float) -> Array:
    return _step(a > alpha, a)


def _scaled_tanh(a: Array, alpha: float, beta: float) -> Array:
    return alpha * jnp.tanh(beta * a)


def _scaled_tanh_slope(a: Array, v: Array, alpha: float, beta: float) -> Array:
    return alpha * beta * (1 - jnp.tanh(beta * a) ** 2)


def _hard_sigmoid(a: Array, alpha: float, beta: float) -> Array:
    v = alpha * a + beta
    # Not jnp.clip, whose slope at the very ends is ½.
    return jnp.where(v > 0, jnp.where(v < 1, v, jnp.ones_like(v)), jnp.zeros_like(v))


def _hard_sigmoid_slope(a: Array, v: Array, alpha: float, beta: float) -> Array:
    return _step((v > 0) & (v < 1), a, alpha)


def _elu(a: Array, alpha: float) -> Array:
    return jnp.where(a > 0, a, alpha * jnp.expm1(_up_to_0(a)))


def _elu_slope(a: Array, v: Array, alpha: float) -> Array:
    return jnp.where(a > 0, jnp.ones_like(a), alpha * jnp.exp(_up_to_0(a)))


def _up_to_0(a: Array) -> Array:
    """For a branch that is not taken above 0: kept from overflowing there, its derivative too."""
    return jnp.where(a > 0, jnp.zeros_like(a), a)
