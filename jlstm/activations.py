"""Activations with their derivatives by hand: what a gate or a cell may be squashed with.

An ``Activation`` is a function of a preactivation a and its slope, which may use the value v as
well: σ' = v(1 − v) costs nothing once v is there. The list is that of ONNX's LSTM operator, which
names them so; ``activation`` makes one of any elementwise function, its slope found by JAX.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jlstm.checks import check_function, check_number


class Activation(NamedTuple):
    """An elementwise function and its slope: a plain value, to compare, print and pickle.

    (Pickled by its names, so the functions have to be those of a module.)
    """

    function: Callable[..., Array]
    """(a, *constants) -> v."""
    derivative: Callable[..., Array] | None = None
    """(a, v, *constants) -> dv/da; None to have it found by JAX."""
    constants: tuple[float, ...] = ()

    def __call__(self, a: Array) -> Array:
        """The value at a; its derivative is ``slope``."""
        return _value(self, a)

    def slope(self, a: Array, v: Array) -> Array:
        """dv/da at a, where the value is v."""
        if self.derivative is None:
            one = jnp.ones_like(a)
            tangent: Array = jax.jvp(lambda a: self.function(a, *self.constants), (a,), (one,))[1]
            return tangent
        return self.derivative(a, v, *self.constants)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function)).lstrip("_")
        if self.derivative is None:
            return f"activation({name})"
        return f"{name}({', '.join(map(repr, self.constants))})" if self.constants else name

    def __deepcopy__(self, memo: Any) -> "Activation":
        return self  # nothing in it changes; and a copy of a function that JAX compiled is another


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(activation: Activation, a: Array) -> Array:
    return activation.function(a, *activation.constants)


@_value.defjvp
def _value_jvp(activation: Activation, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (a,), (da,) = primals, tangents
    v = _value(activation, a)
    return v, activation.slope(a, v) * da


def _step(condition: Array, a: Array, inside: Any = 1.0, outside: Any = 0.0) -> Array:
    """``inside`` where the condition holds, else ``outside``, in the dtype of a."""
    return jnp.where(condition, jnp.asarray(inside, a.dtype), jnp.asarray(outside, a.dtype))


# Functions of the module rather than lambdas, closures or what JAX has compiled: equal activations
# are to compare equal, also when one of them was pickled, as a program is compiled once for each.


def _sigmoid(a: Array) -> Array:
    return jax.nn.sigmoid(a)


def _sigmoid_slope(a: Array, v: Array) -> Array:
    return v * (1 - v)


def _tanh(a: Array) -> Array:
    return jnp.tanh(a)


def _tanh_slope(a: Array, v: Array) -> Array:
    return 1 - v * v


def _relu(a: Array) -> Array:
    return jax.nn.relu(a)


def _relu_slope(a: Array, v: Array) -> Array:
    return _step(a > 0, a)


def _softsign(a: Array) -> Array:
    return a / (1 + jnp.abs(a))


def _softsign_slope(a: Array, v: Array) -> Array:
    # Of a: 1 − |v| would be the small difference of two numbers near 1 where a is large.
    root = 1 / (1 + jnp.abs(a))
    return root * root


def _softplus(a: Array) -> Array:
    return jnp.logaddexp(a, 0)


def _softplus_slope(a: Array, v: Array) -> Array:
    return jax.nn.sigmoid(a)


def _identity(a: Array) -> Array:
    return a


def _identity_slope(a: Array, v: Array) -> Array:
    return jnp.ones_like(a)


sigmoid = Activation(_sigmoid, _sigmoid_slope)
"""σ(a) = 1/(1 + e^−a)."""

tanh = Activation(_tanh, _tanh_slope)

relu = Activation(_relu, _relu_slope)
"""max(0, a)."""

softsign = Activation(_softsign, _softsign_slope)
"""a/(1 + |a|)."""

softplus = Activation(_softplus, _softplus_slope)
"""log(1 + e^a)."""

identity = Activation(_identity, _identity_slope)
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

    Programs are compiled once for each ``function``: make it once and keep it.

    Raises:
        TypeError: ``function`` cannot be called.
    """
    check_function("function", function)
    return Activation(function)


def _with(function: Any, slope: Any, *constants: float) -> Activation:
    for name, value in zip(("alpha", "beta"), constants, strict=False):
        check_number(name, value)
    return Activation(function, slope, tuple(map(float, constants)))


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
