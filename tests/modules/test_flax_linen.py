"""``RNN`` in place of Linen's ``nn.RNN``: results, gradients, variables, checkpoints."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from module_witness import (
    answer,
    assert_bitwise,
    assert_same,
    counting,
    normal,
    normal_like,
)
from witness import assert_trees_agree, equations_of

nn = pytest.importorskip("flax.linen", reason="the extra `oracles` is not installed")
from flax import serialization  # noqa: E402

from jlstm.modules.flax_linen import CELLS, RNN  # noqa: E402

TIME, BATCH, INPUT, HIDDEN = 6, 3, 5, 4
LENGTHS = np.array([6, 1, 4])
KEY = jax.random.key(0)


def cell(kind: Any = nn.LSTMCell, **options: Any) -> Any:
    return kind(HIDDEN, **{"param_dtype": jnp.float64} | options)


def inputs(time_major: bool = False) -> jax.Array:
    return normal(1, *((TIME, BATCH) if time_major else (BATCH, TIME)), INPUT)


def carry() -> Any:
    return normal(2, BATCH, HIDDEN), normal(3, BATCH, HIDDEN)


@pytest.fixture(scope="module")
def variables() -> Any:
    return normal_like(nn.RNN(cell()).init(KEY, inputs()))


ORDERS: list[dict[str, bool]] = [{}, {"reverse": True}, {"reverse": True, "keep_order": True}]
CASES = [
    (order | {"time_major": time_major}, padded, start)
    for order, time_major, padded, start in product(ORDERS, [False, True], [False, True], [True])
]
CASES.append(({}, False, False))


@pytest.mark.grid(3)
@pytest.mark.parametrize(("settings", "padded", "start"), CASES)
def test_results_and_gradients_are_those_of_flax(
    variables: Any, settings: dict[str, bool], padded: bool, start: bool
) -> None:
    time_major = settings.get("time_major", False)
    lengths = LENGTHS if padded else np.full(BATCH, TIME)
    mask = counting(lengths, TIME, axis=0 if time_major else 1)  # Flax's go on at padding

    def layer(kind: Any) -> Any:
        model = kind(cell(), return_carry=True, **settings)

        def apply(variables: Any, xs: Any, carry: Any) -> Any:
            options = {"seq_lengths": jnp.asarray(LENGTHS)} if padded else {}
            last, hs = model.apply(variables, xs, initial_carry=carry, **options)
            return last, hs * mask

        return apply

    assert_same(
        layer(RNN), layer(nn.RNN), variables, inputs(time_major), carry() if start else None
    )


@pytest.mark.parametrize(
    "options",
    [
        {"kind": nn.OptimizedLSTMCell},
        {"gate_fn": jax.nn.hard_sigmoid, "activation_fn": jax.nn.soft_sign},
        {"carry_init": nn.initializers.normal()},
    ],
    ids=["optimized", "activations", "carry_init"],
)
def test_cells_with_options(variables: Any, options: dict[str, Any]) -> None:
    ours, theirs = (kind(cell(**options), return_carry=True) for kind in (RNN, nn.RNN))
    assert_same(ours.apply, theirs.apply, variables, inputs())


@pytest.mark.parametrize("kind", CELLS)
def test_fresh_variables_are_those_of_flax(kind: Any) -> None:
    ours, theirs = (rnn(cell(kind)).init(KEY, inputs()) for rnn in (RNN, nn.RNN))
    assert_bitwise(ours, theirs)


@pytest.mark.parametrize("box", [nn.with_partitioning, nn.with_logical_partitioning])
def test_weights_in_boxes_that_say_where_they_lie(box: Any) -> None:
    kernel_init = box(nn.initializers.lecun_normal(), (None, "model"))
    ours, theirs = (rnn(cell(kernel_init=kernel_init)) for rnn in (RNN, nn.RNN))
    variables = theirs.init(KEY, inputs())
    assert_bitwise(ours.init(KEY, inputs()), variables)
    assert_same(ours.apply, theirs.apply, normal_like(variables), inputs())


class Model(nn.Module):
    """As users write it: layers without names, one of them in two directions."""

    rnn: Any

    @nn.compact
    def __call__(self, xs: Any, seq_lengths: Any = None) -> Any:
        xs = self.rnn(cell(nn.OptimizedLSTMCell), name="lower")(xs, seq_lengths=seq_lengths)
        back = self.rnn(cell(), return_carry=True)
        _, xs = nn.Bidirectional(self.rnn(cell()), back, return_carry=True)(
            xs, seq_lengths=seq_lengths
        )
        return nn.Dense(2, param_dtype=jnp.float64)(xs)


def test_a_model_has_the_same_variables_and_results() -> None:
    ours, theirs = Model(RNN), Model(nn.RNN)
    variables = theirs.init(KEY, inputs())
    assert_bitwise(ours.init(KEY, inputs()), variables)
    assert_same(ours.apply, theirs.apply, normal_like(variables), inputs())


def test_a_checkpoint_from_before_is_loaded(tmp_path: Any) -> None:
    """By msgpack, and by Orbax."""
    ocp = pytest.importorskip("orbax.checkpoint")
    before = normal_like(Model(nn.RNN).init(KEY, inputs()))
    (tmp_path / "msgpack").write_bytes(serialization.to_bytes(before))
    with ocp.StandardCheckpointer() as files:
        files.save(tmp_path / "orbax", before)
    fresh = Model(RNN).init(jax.random.key(1), inputs())
    read = serialization.from_bytes(fresh, (tmp_path / "msgpack").read_bytes())
    assert_bitwise(read, before)
    with ocp.StandardCheckpointer() as files:
        assert_bitwise(files.restore(tmp_path / "orbax", fresh), before)


def test_jit_and_vmap_of_grad(variables: Any) -> None:
    """An ensemble of weights, each with its own gradient."""
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), variables, normal_like(variables, seed=5))

    def gradients(kind: Any) -> Any:
        def loss(variables: Any, xs: Any) -> Any:
            return jnp.sum(kind(cell()).apply(variables, xs) ** 2)

        return jax.jit(jax.vmap(jax.grad(loss), (0, None)))(both, inputs())

    assert_trees_agree(gradients(RNN), gradients(nn.RNN))


def test_forward_mode(variables: Any) -> None:
    model = RNN(cell(), options={"derivative": "jvp"})
    theirs = nn.RNN(cell())
    point, direction = (variables, inputs()), normal_like((variables, inputs()), seed=4)
    ours, expected = (jax.jvp(m.apply, point, direction) for m in (model, theirs))
    assert_trees_agree(ours, expected)


def test_at_length_0_the_carry_is_the_one_given(variables: Any) -> None:
    """And only there: Flax's is that of the last step of all."""
    lengths = jnp.array([6, 0, 4])
    ours, theirs = (
        kind(cell(), return_carry=True).apply(
            variables, inputs(), initial_carry=carry(), seq_lengths=lengths
        )[0]
        for kind in (RNN, nn.RNN)
    )
    assert_bitwise([leaf[1] for leaf in ours], [leaf[1] for leaf in carry()])
    assert_trees_agree([leaf[::2] for leaf in ours], [leaf[::2] for leaf in theirs])
    assert abs(theirs[0][1] - carry()[0][1]).max() > 1e-2  # when Flax's is right, the text is wrong


def test_resets_start_anew(variables: Any) -> None:
    """As if there were two sequences."""
    model, xs = RNN(cell(), return_carry=True), inputs()
    resets = jnp.zeros((BATCH, TIME), bool).at[:, 2].set(True)
    last, hs = model.apply(variables, xs, initial_carry=carry(), resets=resets)
    _, before = model.apply(variables, xs[:, :2], initial_carry=carry())
    after = model.apply(variables, xs[:, 2:])
    assert_trees_agree((last, hs[:, :2], hs[:, 2:]), (after[0], before, after[1]))


@pytest.mark.parametrize("shape", [(TIME,), (2, BATCH, TIME), (BATCH, 0)], ids=str)
def test_any_batch_and_any_time(variables: Any, shape: tuple[int, ...]) -> None:
    xs = normal(4, *shape, INPUT)
    ours, theirs = (kind(cell(), return_carry=True) for kind in (RNN, nn.RNN))
    assert_trees_agree(ours.apply(variables, xs), theirs.apply(variables, xs))


@pytest.mark.parametrize(
    ("inputs_in", "params_in", "computed_in", "close"),
    [
        ("float32", "float32", None, 1e-6),
        ("float64", "float32", "float32", 1e-6),
        ("bfloat16", "float32", None, 1e-6),
        ("float32", "float32", "bfloat16", 0.05),  # units in the last place, of a few steps
        ("bfloat16", "bfloat16", None, 0.05),
    ],
)
def test_dtypes(
    variables: Any, inputs_in: str, params_in: str, computed_in: str | None, close: float
) -> None:
    """Results have the dtype that Flax gives them, and its numbers as far as it rounds."""
    one = cell(dtype=computed_in, param_dtype=jnp.dtype(params_in))
    xs, weights = inputs().astype(inputs_in), jax.tree.map(lambda w: w.astype(params_in), variables)
    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = (kind(one).apply(weights, xs) for kind in (RNN, nn.RNN))
    assert ours.dtype == theirs.dtype
    assert abs(ours - theirs).max() < close


def test_products_are_rounded_to_the_cells_dtype(variables: Any) -> None:
    model = RNN(cell(dtype=jnp.bfloat16))
    with jax.numpy_dtype_promotion("standard"):
        program = jax.make_jaxpr(model.apply)(variables, inputs())
    products = list(equations_of(program, "dot_general"))
    assert products
    assert all(a.aval.dtype == jnp.bfloat16 for eqn in products for a in eqn.invars)


def test_options_go_to_lstm(variables: Any) -> None:
    expected = answer(RNN(cell()).apply, variables, inputs())
    options = {"residuals": "chunks", "chunk": 2, "implementation": "xla"}
    found = answer(RNN(cell(), options=options).apply, variables, inputs())
    assert_trees_agree(found, expected)
    with pytest.raises(ValueError, match="residuals: expected one of"):
        RNN(cell(), options={"residuals": "all"}).apply(variables, inputs())


def test_another_cell_is_refused() -> None:
    with pytest.raises(TypeError, match="cell: expected LSTMCell or OptimizedLSTMCell, got GRU"):
        RNN(nn.GRUCell(HIDDEN)).init(KEY, inputs())
