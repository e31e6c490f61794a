"""Activations: value and derivatives against formulae in NumPy."""

import pickle
from copy import deepcopy
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from witness import relative_error

import jlstm
from jlstm import activations, sequence
from jlstm.activations import Activation
from jlstm.variants import Variant

# A few float64 roundings of numbers of about 1.
ROUNDING = 1e-14


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


# name: (activation, value, slope, the places where it has a kink). The formulae are written down
# from the papers and from ONNX's list, for the constants used here.
KNOWN = {
    "sigmoid": (activations.sigmoid, sigmoid, lambda a: sigmoid(a) * sigmoid(-a), []),
    "tanh": (activations.tanh, np.tanh, lambda a: 1 / np.cosh(a) ** 2, []),
    "relu": (activations.relu, lambda a: a * (a > 0), lambda a: 1.0 * (a > 0), [0]),
    "softsign": (
        activations.softsign,
        lambda a: a / (1 + np.abs(a)),
        lambda a: 1 / (1 + np.abs(a)) ** 2,
        [],
    ),
    "softplus": (activations.softplus, lambda a: np.log(1 + np.exp(a)), sigmoid, []),
    "identity": (activations.identity, lambda a: a, np.ones_like, []),
    "affine": (
        activations.affine(0.3, -0.2),
        lambda a: 0.3 * a - 0.2,
        lambda a: np.full_like(a, 0.3),
        [],
    ),
    "leaky_relu": (
        activations.leaky_relu(0.1),
        lambda a: np.where(a > 0, a, 0.1 * a),
        lambda a: np.where(a > 0, 1, 0.1),
        [0],
    ),
    "thresholded_relu": (
        activations.thresholded_relu(0.5),
        lambda a: np.where(a > 0.5, a, 0),
        lambda a: np.where(a > 0.5, 1.0, 0.0),
        [0.5],
    ),
    "scaled_tanh": (
        activations.scaled_tanh(1.3, 0.7),
        lambda a: 1.3 * np.tanh(0.7 * a),
        lambda a: 1.3 * 0.7 / np.cosh(0.7 * a) ** 2,
        [],
    ),
    "hard_sigmoid": (
        activations.hard_sigmoid(0.25, 0.4),
        lambda a: np.minimum(np.maximum(0.25 * a + 0.4, 0), 1),
        lambda a: np.where((0.25 * a + 0.4 > 0) & (0.25 * a + 0.4 < 1), 0.25, 0.0),
        [-1.6, 2.4],
    ),
    "elu": (
        activations.elu(0.7),
        lambda a: np.where(a > 0, a, 0.7 * (np.exp(a) - 1)),
        lambda a: np.where(a > 0, 1, 0.7 * np.exp(a)),
        [0],
    ),
    "activation": (
        activations.activation(lambda a: jnp.sin(a) + a),
        lambda a: np.sin(a) + a,
        lambda a: np.cos(a) + 1,
        [],
    ),
}
known = pytest.mark.parametrize("name", KNOWN)

DEFAULTS = {
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.7159, 2 / 3),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
}


def grid_for(name):
    """Numbers from −4 to 4, more of them close to both sides of each kink, and none on one."""
    kinks = KNOWN[name][3]
    near = [kink + size for kink in kinks for size in (-0.1, -1e-6, 1e-6, 0.1)]
    grid = np.concatenate([np.linspace(-4, 4, 41), near])
    return grid[[all(abs(a - kink) > 1e-9 for kink in kinks) for a in grid]]


def slope_of(activation, a):
    """The slope at each number of an array, by JAX."""
    return jax.vmap(jax.grad(activation))(a.ravel()).reshape(a.shape)


@known
def test_value_and_slope_are_the_formulae(name):
    activation, value, slope, _ = KNOWN[name]
    a = grid_for(name)
    v = activation(jnp.asarray(a))
    np.testing.assert_allclose(v, value(a), rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(
        slope_of(activation, jnp.asarray(a)), slope(a), rtol=0, atol=ROUNDING
    )


@known
def test_the_second_derivative_is_that_of_the_formulas_slope(name):
    activation, _, slope, _ = KNOWN[name]
    a, step = grid_for(name), 1e-7
    a = a[np.abs(a) > 1e-9]  # where the slope of softsign has a kink
    found = slope_of(lambda a: jax.grad(activation)(a), jnp.asarray(a))
    # Central differences: rounding of 1e-16 over 2e-7.
    expected = (slope(a + step) - slope(a - step)) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@known
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.float64])
def test_dtype_and_shape_stay(name, dtype):
    activation, a = KNOWN[name][0], jnp.linspace(-3, 3, 12).reshape(3, 4).astype(dtype)
    v = activation(a)
    assert v.dtype == slope_of(activation, a).dtype == dtype
    assert v.shape == a.shape


@known
@pytest.mark.parametrize("a", [1e3, -1e3, 30.0, -30.0])
def test_nothing_overflows(name, a):
    activation, a = KNOWN[name][0], jnp.asarray([a])
    for number in (activation(a), slope_of(activation, a)):
        assert np.all(np.isfinite(number))


@pytest.mark.parametrize(
    ("activation", "a", "value", "slope"),
    [
        (activations.elu(), 1e3, 1e3, 1),
        (activations.elu(2.0), -1e3, -2, 0),
        (activations.softplus, 1e3, 1e3, 1),
        (activations.softplus, -1e3, 0, 0),
        (activations.sigmoid, -1e3, 0, 0),
        (activations.scaled_tanh(), 1e3, 1.7159, 0),
    ],
)
def test_far_out(activation, a, value, slope):
    a = jnp.asarray([a])
    np.testing.assert_allclose(activation(a), value)
    np.testing.assert_allclose(slope_of(activation, a), slope, atol=ROUNDING)


@pytest.mark.parametrize(
    ("activation", "kink", "slopes"),
    [
        (activations.relu, 0, (0, 1)),
        (activations.leaky_relu(), 0, (0.01, 1)),
        (activations.thresholded_relu(), 1, (0, 1)),
        (activations.hard_sigmoid(), -2.5, (0, 0.2)),
        (activations.hard_sigmoid(), 2.5, (0.2, 0)),
    ],
)
def test_on_a_kink_the_slope_is_that_of_one_side(activation, kink, slopes):
    a = jnp.asarray([float(kink)])
    assert float(slope_of(activation, a)[0]) in slopes


@pytest.mark.parametrize(("dtype", "a"), [(np.float32, 1e6), (np.float32, -1e9), (np.float16, 300)])
def test_the_slope_of_softsign_keeps_its_digits_far_out(dtype, a):
    a = jnp.asarray([a], dtype)
    slope = slope_of(activations.softsign, a)
    expected = 1 / (1 + np.abs(np.float64(a))) ** 2
    # A few roundings; numbers below the smallest normal one are whole multiples of another.
    error = 4 * float(jnp.finfo(dtype).eps) * expected
    assert abs(np.float64(slope) - expected) < error + float(jnp.finfo(dtype).smallest_subnormal)


def test_elu_has_no_kink_where_alpha_is_1():
    assert jax.grad(activations.elu())(0.0) == 1


# Constants


@pytest.mark.parametrize("name", DEFAULTS)
def test_equal_constants_are_equal_activations(name):
    make, constants = getattr(activations, name), DEFAULTS[name]
    assert make().constants == constants
    assert make() == make(*constants)
    assert hash(make()) == hash(make(*constants))
    for n in range(len(constants)):
        other = make(*(c + 0.25 * (k == n) for k, c in enumerate(constants)))
        assert other != make()
        assert Variant(gate=other) != Variant(gate=make())
    assert Variant(gate=make()) == Variant(gate=make(*constants))


def of_a_module(a):
    return jnp.sin(a) + a


@pytest.mark.parametrize("name", [*DEFAULTS, "sigmoid", "tanh", "relu", "softsign", "softplus"])
def test_an_activation_is_a_plain_value(name):
    known = KNOWN[name][0]
    for copy in (pickle.loads(pickle.dumps(known)), deepcopy(known)):
        assert copy == known
        assert hash(copy) == hash(known)
        assert eval(repr(copy), vars(activations)) == known


def test_an_activation_of_any_function_is_one_too():
    known = activations.activation(of_a_module)
    assert known == activations.activation(of_a_module)
    assert repr(known) == "activation(of_a_module)"
    # What JAX has compiled can be copied, but has no name to be pickled by.
    assert deepcopy(activations.activation(jnp.sin)) == activations.activation(jnp.sin)


@pytest.mark.parametrize("number", [2, np.float64(2), np.float32(2), np.int8(2)])
def test_any_number_will_do_for_a_constant(number):
    assert activations.elu(number) == activations.elu(2.0)
    assert type(activations.elu(number).constants[0]) is float


def test_activations_are_told_apart():
    everyone = {KNOWN[name][0] for name in KNOWN}
    assert len(everyone) == len(KNOWN)
    assert all(isinstance(activation, Activation) for activation in everyone)


@pytest.mark.parametrize(
    ("name", "said"),
    [(name, said) for name in DEFAULTS for said in ("alpha", "beta")[: len(DEFAULTS[name])]],
)
def test_bad_constants_are_named(name, said):
    make = getattr(activations, name)
    for value, error, message in [
        ("1", TypeError, f"{said}: expected a number, got str '1'"),
        (True, TypeError, f"{said}: expected a number, got bool True"),
        (np.nan, ValueError, f"{said}: expected a finite number, got nan"),
    ]:
        with pytest.raises(error, match=message):
            make(**{said: value})


def test_an_activation_is_made_of_a_function():
    with pytest.raises(TypeError, match="function: expected a function, got str 'tanh'"):
        activations.activation("tanh")


# In a cell


def problem(seed=0, **roles):
    draw, gates = np.random.default_rng(seed), Variant(**roles)
    params = gates.init(jax.random.key(seed), 5, 3, dtype=np.float64)
    params = jax.tree.map(lambda w: w + draw.standard_normal(w.shape) / 2, params)
    return gates, params, jnp.asarray(draw.standard_normal((4, 2, 5)))


def gradient(gates, params, xs, **options):
    def loss(params, xs):
        carry, hs = jlstm.lstm(params, None, xs, gates=gates, **options)
        return jnp.sum(hs**2) + jnp.sum(carry.c**2)

    return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, (0, 1)))(params, xs))


@pytest.mark.grid(3)
@pytest.mark.parametrize("first", range(len(KNOWN)))
def test_in_each_role_the_gradient_is_autodiffs(first):
    # Going round the list, each of them plays each role once.
    everyone = [activation for activation, *_ in KNOWN.values()]
    cast = (everyone[(first + n) % len(everyone)] for n in range(3))
    arguments = problem(**dict(zip(("gate", "candidate", "output"), cast, strict=True)))
    by_hand, plain = gradient(*arguments), gradient(*arguments, derivative="autodiff")
    for got, expected in zip(by_hand, plain, strict=True):
        # Sums of some tens of terms through four steps, gates being whatever they like.
        assert relative_error(np.asarray(got), np.asarray(expected)) < 1e-12


@known
def test_the_three_roles_are_not_exchanged(name):
    # With a carry of zeros one step is h = σ(z_o) ⊙ ψ(σ(z_i) ⊙ φ(z_g)).
    activation, value = KNOWN[name][:2]
    for role in ("gate", "candidate", "output"):
        gates, params, xs = problem(**{role: activation})
        zeros = jlstm.init_carry(2, 3, np.float64)
        (h, c), _ = jlstm.cell(params, zeros, xs[0], gates=gates)
        z = np.einsum("bk,kgn->gbn", xs[0], params.w_ih) + np.asarray(params.b)[:, None]
        chosen = {"gate": sigmoid, "candidate": np.tanh, "output": np.tanh} | {role: value}
        expected = chosen["gate"](z[0]) * chosen["candidate"](z[2])
        np.testing.assert_allclose(c, expected, rtol=0, atol=10 * ROUNDING)
        expected = chosen["gate"](z[3]) * chosen["output"](expected)
        np.testing.assert_allclose(h, expected, rtol=0, atol=10 * ROUNDING)


def test_equal_constants_are_compiled_once():
    run = partial(problem, 1)
    gates, params, xs = run(gate=activations.hard_sigmoid(0.3, 0.5))
    jlstm.lstm(params, None, xs, gates=gates)
    compiled = sequence._run._cache_size()
    jlstm.lstm(params, None, xs, gates=Variant(gate=activations.hard_sigmoid(0.3)))
    assert sequence._run._cache_size() == compiled
    jlstm.lstm(params, None, xs, gates=Variant(gate=activations.hard_sigmoid(0.31)))
    assert sequence._run._cache_size() == compiled + 1
