"""``RNN`` in place of ``nnx.RNN``: results, gradients, state, checkpoints."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from module_witness import answer, assert_bitwise, assert_same, counting, normal, normal_like
from witness import assert_trees_agree

nnx = pytest.importorskip("flax.nnx", reason="the extra `oracles` is not installed")

from jlstm.modules.flax_nnx import CELLS, RNN  # noqa: E402

TIME, BATCH, INPUT, HIDDEN = 6, 3, 5, 4
LENGTHS = np.array([6, 1, 4])


def cell(kind: Any = nnx.LSTMCell, size: int = INPUT, seed: int = 0, **options: Any) -> Any:
    return kind(size, HIDDEN, param_dtype=jnp.float64, rngs=nnx.Rngs(seed), **options)


def inputs(time_major: bool = False) -> jax.Array:
    return normal(1, *((TIME, BATCH) if time_major else (BATCH, TIME)), INPUT)


def carry() -> Any:
    return normal(2, BATCH, HIDDEN), normal(3, BATCH, HIDDEN)


def parts(model: Any) -> tuple[Any, Any]:
    """The weights as plain arrays, none of them 0, and the function of them."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def call(params: Any, *args: Any, **options: Any) -> Any:
        return nnx.merge(graph, params, rest)(*args, **options)

    return normal_like(params), call


ORDERS: list[dict[str, bool]] = [{}, {"reverse": True}, {"reverse": True, "keep_order": True}]


@pytest.mark.grid(3)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("settings", [a | {"time_major": b} for a, b in product(ORDERS, [0, 1])])
def test_results_and_gradients_are_those_of_flax(settings: dict[str, bool], padded: bool) -> None:
    time_major = bool(settings["time_major"])
    lengths = LENGTHS if padded else np.full(BATCH, TIME)
    mask = counting(lengths, TIME, axis=0 if time_major else 1)  # Flax's go on at padding

    def layer(kind: Any) -> Any:
        _, call = parts(kind(cell(), return_carry=True, **settings))

        def apply(params: Any, xs: Any, carry: Any) -> Any:
            options = {"seq_lengths": jnp.asarray(LENGTHS)} if padded else {}
            last, hs = call(params, xs, initial_carry=carry, **options)
            return last, hs * mask

        return apply

    params, _ = parts(nnx.RNN(cell()))
    assert_same(layer(RNN), layer(nnx.RNN), params, inputs(time_major), carry())


@pytest.mark.parametrize(
    "options",
    [
        {"kind": nnx.OptimizedLSTMCell},
        {"gate_fn": jax.nn.hard_sigmoid, "activation_fn": jax.nn.soft_sign},
    ],
    ids=["optimized", "activations"],
)
def test_cells_with_options(options: dict[str, Any]) -> None:
    (params, ours), (_, theirs) = (
        parts(kind(cell(**options), return_carry=True)) for kind in (RNN, nnx.RNN)
    )

    def started(call: Any) -> Any:  # without a carry Flax counts keys, which only nnx.jit lets it
        return lambda params, xs, carry: call(params, xs, initial_carry=carry)

    assert_same(started(ours), started(theirs), params, inputs(), carry())


@pytest.mark.filterwarnings("ignore:carry_init is provided")  # Flax would have it elsewhere
def test_a_carry_that_is_drawn() -> None:
    start = {"carry_init": nnx.initializers.normal()}
    ours, theirs = (kind(cell(**start), return_carry=True)(inputs()) for kind in (RNN, nnx.RNN))
    assert_trees_agree(ours, theirs)


@pytest.mark.parametrize("kind", CELLS)
def test_the_state_is_that_of_flax(kind: Any) -> None:
    ours, theirs = (nnx.state(rnn(cell(kind))) for rnn in (RNN, nnx.RNN))
    assert [path for path, _ in nnx.to_flat_state(ours)] == [
        path for path, _ in nnx.to_flat_state(theirs)
    ]
    assert_bitwise(*(nnx.filter_state(state, nnx.Param) for state in (ours, theirs)))


class Model(nnx.Module):
    """As users write it, one layer in two directions."""

    def __init__(self, rnn: Any, seed: int = 0) -> None:
        self.lower = rnn(cell(nnx.OptimizedLSTMCell, seed=seed))
        self.upper = nnx.Bidirectional(
            rnn(cell(size=HIDDEN, seed=seed + 1)), rnn(cell(size=HIDDEN, seed=seed + 2))
        )

    def __call__(self, xs: Any) -> Any:
        return self.upper(self.lower(xs))


def test_a_checkpoint_from_before_is_loaded(tmp_path: Any) -> None:
    """By Orbax; and then the model computes what it did."""
    ocp = pytest.importorskip("orbax.checkpoint")
    before, after = Model(nnx.RNN), Model(RNN, seed=7)
    saved = nnx.to_pure_dict(nnx.state(before, nnx.Param))
    with ocp.StandardCheckpointer() as files:
        files.save(tmp_path / "orbax", saved)
    with ocp.StandardCheckpointer() as files:
        read = files.restore(tmp_path / "orbax", nnx.to_pure_dict(nnx.state(after, nnx.Param)))
    state = nnx.state(after, nnx.Param)
    nnx.replace_by_pure_dict(state, read)
    nnx.update(after, state)
    assert_bitwise(nnx.to_pure_dict(nnx.state(after, nnx.Param)), saved)
    assert_trees_agree(after(inputs()), before(inputs()))


def test_nnx_jit_and_grad() -> None:
    """By Flax's own transforms, which look into the module."""

    @nnx.jit
    def gradient(model: Any, xs: Any) -> Any:
        return nnx.grad(lambda model: jnp.sum(model(xs) ** 2))(model)

    ours, theirs = (nnx.to_pure_dict(gradient(Model(kind), inputs())) for kind in (RNN, nnx.RNN))
    assert_trees_agree(ours, theirs)


def test_nnx_vmap_over_an_ensemble() -> None:
    def outputs(kind: Any) -> Any:
        @nnx.vmap
        def make(key: Any) -> Any:
            one = nnx.LSTMCell(INPUT, HIDDEN, param_dtype=jnp.float64, rngs=nnx.Rngs(key))
            return kind(one, rngs=False)

        @nnx.vmap(in_axes=(0, None))
        def run(model: Any, xs: Any) -> Any:
            return model(xs, initial_carry=carry())

        return run(make(jax.random.split(jax.random.key(0), 2)), inputs())

    assert_trees_agree(outputs(RNN), outputs(nnx.RNN))


def test_at_length_0_the_carry_is_the_one_given() -> None:
    """And only there: Flax's is that of the last step of all."""
    ours, theirs = (
        kind(cell(), return_carry=True)(
            inputs(), initial_carry=carry(), seq_lengths=jnp.array([6, 0, 4])
        )[0]
        for kind in (RNN, nnx.RNN)
    )
    assert_bitwise([leaf[1] for leaf in ours], [leaf[1] for leaf in carry()])
    assert_trees_agree([leaf[::2] for leaf in ours], [leaf[::2] for leaf in theirs])
    assert abs(theirs[0][1] - carry()[0][1]).max() > 1e-2  # when Flax's is right, the text is wrong


def test_resets_start_anew() -> None:
    """As if there were two sequences."""
    model, xs = RNN(cell(), return_carry=True), inputs()
    resets = jnp.zeros((BATCH, TIME), bool).at[:, 2].set(True)
    last, hs = model(xs, initial_carry=carry(), resets=resets)
    _, before = model(xs[:, :2], initial_carry=carry())
    after = model(xs[:, 2:])
    assert_trees_agree((last, hs[:, :2], hs[:, 2:]), (after[0], before, after[1]))


def test_options_go_to_lstm() -> None:
    params, plain = parts(RNN(cell()))
    options = {"residuals": "chunks", "chunk": 2, "implementation": "xla"}
    _, call = parts(RNN(cell(), options=options))
    assert_trees_agree(answer(call, params, inputs()), answer(plain, params, inputs()))
    with pytest.raises(ValueError, match="residuals: expected one of"):
        RNN(cell(), options={"residuals": "all"})(inputs())


def test_another_cell_is_refused() -> None:
    with pytest.raises(TypeError, match="cell: expected LSTMCell or OptimizedLSTMCell, got GRU"):
        RNN(nnx.GRUCell(INPUT, HIDDEN, rngs=nnx.Rngs(0)))
