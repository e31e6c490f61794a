"""The cell: its equations against the oracle, their hand-derived derivative against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from witness import random_problem

import jlstm
from jlstm.equations import equations, forward, jacobian, pullback

# Sums of a few float64 terms, each good to 2e-16.
ROUNDING = 1e-14


def normal(seed, *shape, dtype=np.float64, scale=1.0):
    draw = np.random.default_rng(seed)
    return jnp.asarray(scale * draw.standard_normal(shape), dtype)


def jacobian_at(z, c_prev):
    _, c, gates = forward(z, c_prev)
    return jacobian(gates, c_prev, c)


@pytest.mark.parametrize("batch", [(), (3,), (3, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_cell_is_one_step_of_the_oracle(batch, bias):
    p = random_problem(batch=batch, time=1, bias=bias)
    params = jlstm.LSTMParams(p.w_ih, p.w_hh, p.b)
    carry, h = jlstm.cell(params, jlstm.Carry(p.h0, p.c0), p.xs[0])
    expected = oracle.forward(p.w_ih, p.w_hh, p.b, p.h0, p.c0, p.xs)
    np.testing.assert_allclose(carry.h, expected.h, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(carry.c, expected.c, rtol=0, atol=ROUNDING)
    assert h is carry.h


def test_cell_scanned_is_lstm():
    p = random_problem(time=5)
    params, carry = jlstm.LSTMParams(p.w_ih, p.w_hh, p.b), jlstm.Carry(p.h0, p.c0)
    scanned, hs = jax.lax.scan(lambda carry, x: jlstm.cell(params, carry, x), carry, p.xs)
    last, expected = jlstm.lstm(params, carry, p.xs)
    np.testing.assert_allclose(hs, expected, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(scanned.c, last.c, rtol=0, atol=ROUNDING)


def test_forward_is_the_equations():
    z, c_prev = normal(0, 7, 4 * 3, scale=3), normal(1, 7, 3)
    h, c, _ = forward(z, c_prev)
    for fast, plain in zip((h, c), equations(z, c_prev), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=0, atol=ROUNDING)


def test_the_jacobian_is_autodiffs():
    z, c_prev = normal(0, 4 * 3), normal(1, 3)
    dense = jax.jacobian(equations, argnums=(0, 1))(z, c_prev)
    jac = jacobian_at(z, c_prev)
    for seed in range(4):
        dh, dc = normal(10 + seed, 3), normal(20 + seed, 3)
        dz, dc_prev = pullback(jac, dh, dc)
        np.testing.assert_allclose(dz, dh @ dense[0][0] + dc @ dense[1][0], atol=ROUNDING)
        np.testing.assert_allclose(dc_prev, dh @ dense[0][1] + dc @ dense[1][1], atol=ROUNDING)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("z", [-7, -9, 0.001, -0.001])
def test_gates_keep_their_digits_where_they_are_nearly_shut(dtype, z):
    z = np.float64(jnp.asarray(z, dtype))
    sigma = 1 / (1 + np.exp(-z))
    gates = forward(jnp.full((4,), z, dtype), jnp.zeros((1,), dtype))[2]
    expected = [sigma, sigma, np.tanh(z), sigma]
    error = np.abs(np.concatenate(gates).astype(np.float64) / expected - 1)
    # A few roundings. ½·tanh(z/2) + ½ would be off by 1e-3 in float32 at −9, and by 1 in bfloat16.
    assert np.all(error <= 4 * jnp.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_saturated_preactivations_stay_finite(dtype, size):
    z, c_prev = jnp.full((5, 8), size, dtype), normal(0, 5, 2, dtype=dtype)
    for h, c in (equations(z, c_prev), forward(z, c_prev)[:2]):
        assert np.all(np.isfinite(h))
        assert np.all(np.isfinite(c))
        assert h.dtype == c.dtype == dtype
    jac = jacobian_at(z, c_prev)
    assert all(np.all(np.isfinite(a)) and a.dtype == dtype for a in jac)
    # Saturated both ways: nothing passes through a gate's own preactivation.
    for slope in (jac.c_zi, jac.c_zf, jac.c_zg, jac.h_zo):
        np.testing.assert_array_equal(slope, 0)


def test_saturation_is_tanhs_problem_too():
    # The notes say that tanh does not have the sigmoid's vanishing slope; at −20 it has less left.
    slope_tanh = jax.grad(jnp.tanh)(-20.0)
    slope_sigmoid = jax.grad(jax.nn.sigmoid)(-20.0)
    assert slope_tanh < slope_sigmoid < 1e-8


class TestInitParams:
    def test_shapes_and_dtype(self):
        params = jlstm.init_params(jax.random.key(0), 5, 3, dtype=jnp.float32)
        assert [w.shape for w in params] == [(5, 4, 3), (3, 4, 3), (4, 3)]
        assert {w.dtype for w in params} == {jnp.dtype("float32")}

    @pytest.mark.parametrize("gate", range(4))
    def test_each_gates_recurrent_weight_is_orthogonal(self, gate):
        w = jlstm.init_params(jax.random.key(1), 5, 8, dtype=jnp.float64).w_hh[:, gate]
        np.testing.assert_allclose(w @ w.T, np.eye(8), atol=ROUNDING)

    @pytest.mark.parametrize("gate", range(4))
    def test_each_gates_input_weight_is_glorot_uniform(self, gate):
        w = np.asarray(jlstm.init_params(jax.random.key(2), 300, 200).w_ih[:, gate])
        limit = np.sqrt(6 / (300 + 200))
        assert np.abs(w).max() <= limit
        # The spread of 60,000 uniform numbers, to a few standard errors.
        np.testing.assert_allclose(w.std(), limit / np.sqrt(3), rtol=0.01)

    def test_no_two_gates_are_alike(self):
        w_ih, w_hh, _ = jlstm.init_params(jax.random.key(3), 4, 4)
        for w in (w_ih, w_hh):
            assert len({np.asarray(w[:, k]).tobytes() for k in range(4)}) == 4
        assert not np.array_equal(w_ih, w_hh)

    def test_the_bias_opens_the_forget_gate(self):
        b = jlstm.init_params(jax.random.key(0), 2, 3, forget_bias=1.5).b
        np.testing.assert_array_equal(b, [[0] * 3, [1.5] * 3, [0] * 3, [0] * 3])
        default = jlstm.init_params(jax.random.key(0), 2, 3).b
        np.testing.assert_array_equal(default[jlstm.GATES.index("f")], 1)

    def test_no_bias(self):
        assert jlstm.init_params(jax.random.key(0), 2, 3, bias=False).b is None

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float64])
    def test_other_dtypes(self, dtype):
        params = jlstm.init_params(jax.random.key(0), 2, 3, dtype=dtype)
        assert {w.dtype for w in params} == {jnp.dtype(dtype)}

    def test_float32_is_the_default(self):
        assert jlstm.init_params(jax.random.key(0), 2, 3).w_hh.dtype == jnp.float32
        assert jlstm.init_carry(2, 3).h.dtype == jnp.float32

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((0, 3), ValueError, "input_size: expected at least 1, got 0"),
            ((2, 0), ValueError, "hidden_size: expected at least 1, got 0"),
            ((2.0, 3), TypeError, "input_size: expected an int, got float 2.0"),
            ((2, 2**31), ValueError, "hidden_size: expected at most 2147483647, got 2147483648"),
            ((2, True), TypeError, "hidden_size: expected an int, got bool True"),
        ],
    )
    def test_bad_sizes(self, arguments, error, message):
        with pytest.raises(error, match=message):
            jlstm.init_params(jax.random.key(0), *arguments)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"key": 0}, TypeError, "key: expected a key of jax.random, got int 0"),
            ({"key": np.zeros(3)}, TypeError, r"key: .* or raw ones, uint32 \[…, 2\], got float64"),
            ({"key": jax.random.split(jax.random.key(0), 3)}, ValueError, "key: expected a single"),
            ({"forget_bias": "x"}, TypeError, "forget_bias: expected a number, got str 'x'"),
            ({"forget_bias": np.nan}, ValueError, "forget_bias: expected a finite number, got nan"),
            ({"bias": "no"}, TypeError, "bias: expected True or False, got str 'no'"),
        ],
    )
    def test_bad_arguments(self, change, error, message):
        given = {"key": jax.random.key(0), "input_size": 2, "hidden_size": 3} | change
        with pytest.raises(error, match=message):
            jlstm.init_params(**given)

    def test_either_kind_of_key(self):
        old, new = jax.random.PRNGKey(3), jax.random.key(3)
        for w, v in zip(*(jlstm.init_params(key, 2, 3) for key in (old, new)), strict=True):
            np.testing.assert_array_equal(w, v)

    @pytest.mark.parametrize("dtype", ["int32", "no such", bool])
    def test_bad_dtypes(self, dtype):
        with pytest.raises(TypeError, match="dtype: expected a floating-point dtype, got "):
            jlstm.init_params(jax.random.key(0), 2, 3, dtype=dtype)


class TestInitCarry:
    @pytest.mark.parametrize(
        ("batch", "shape"), [((), ()), (5, (5,)), (np.int64(5), (5,)), ((0, 2), (0, 2))]
    )
    def test_zeros(self, batch, shape):
        carry = jlstm.init_carry(batch, 3, dtype=jnp.float16)
        for leaf in carry:
            assert leaf.shape == (*shape, 3)
            assert leaf.dtype == jnp.float16
            np.testing.assert_array_equal(leaf, 0)

    def test_it_can_be_donated(self):
        donating = jax.jit(lambda carry: jlstm.Carry(carry.h + 1, carry.c + 1), donate_argnums=0)
        assert donating(jlstm.init_carry(2, 3)).h.shape == (2, 3)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((-1, 3), ValueError, "batch_shape: expected at least 0, got -1"),
            ((None, 3), TypeError, "batch_shape: expected an int, got NoneType None"),
            (((2, 1.5), 3), TypeError, "batch_shape: expected an int, got float 1.5"),
            ((2, 0), ValueError, "hidden_size: expected at least 1, got 0"),
            ((2, 3, "int8"), TypeError, "dtype: expected a floating-point dtype, got int8"),
        ],
    )
    def test_bad_arguments(self, arguments, error, message):
        with pytest.raises(error, match=message):
            jlstm.init_carry(*arguments)


class TestBadCellArguments:
    params = jlstm.LSTMParams(np.zeros((5, 4, 3)), np.zeros((3, 4, 3)), np.zeros((4, 3)))
    carry = jlstm.Carry(np.zeros((2, 3)), np.zeros((2, 3)))
    x = np.zeros((2, 5))

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"params": (1, 2, 3)}, TypeError, "params: expected LSTMParams, got tuple"),
            ({"carry": (1, 2)}, TypeError, "carry: expected Carry, got tuple"),
            ({"x": [1.0]}, TypeError, "x: expected an array, got list"),
            ({"x": np.zeros((2, 4))}, ValueError, r"x: expected shape \[..., 5\], got \[2, 4\]"),
            ({"x": np.zeros(())}, ValueError, r"x: expected shape \[..., 5\], got \[\]"),
            ({"x": np.zeros((2, 5), int)}, TypeError, "x: expected dtype float64, got int64"),
            (
                {"x": np.zeros((4, 5))},
                ValueError,
                r"carry.h: expected shape \[4, 3\], got \[2, 3\]",
            ),
            (
                {"carry": jlstm.Carry(np.zeros((2, 3)), np.zeros((2, 3), np.float32))},
                TypeError,
                "carry.c: expected dtype float64, got float32",
            ),
        ],
    )
    def test_are_named(self, change, error, message):
        arguments = {"params": self.params, "carry": self.carry, "x": self.x} | change
        with pytest.raises(error, match=message):
            jlstm.cell(**arguments)
        with pytest.raises(error, match=message):  # at trace time, too
            jax.eval_shape(lambda: jlstm.cell(**arguments))

    @pytest.mark.parametrize(
        ("params", "error", "message"),
        [
            (
                {"w_hh": np.zeros((3, 12))},
                ValueError,
                r"w_hh: expected shape \[hidden, 4, ",
            ),
            ({"w_hh": np.zeros((3, 4, 2))}, ValueError, r"params.w_hh: expected shape \[3, 4, 3\]"),
            ({"w_hh": np.zeros((3, 3, 3))}, ValueError, r"w_hh: expected shape \[hidden, 4, "),
            (
                {"w_ih": np.zeros((5, 3, 3))},
                ValueError,
                r"params.w_ih: expected shape \[input, 4, ",
            ),
            ({"w_ih": np.zeros((5, 4, 3), "f4")}, TypeError, "params.w_ih: expected dtype float64"),
            ({"w_hh": np.zeros((3, 4, 3), int)}, TypeError, "params.w_hh: expected a floating"),
            ({"b": np.zeros(12)}, ValueError, r"params.b: expected shape \[4, 3\], got \[12\]"),
        ],
    )
    def test_name_the_part_of_params(self, params, error, message):
        with pytest.raises(error, match=message):
            jlstm.cell(self.params._replace(**params), self.carry, self.x)
