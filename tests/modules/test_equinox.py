"""``scan`` in place of ``lax.scan`` over Equinox's cell: results, gradients, files."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from module_witness import answer, assert_bitwise, assert_same, normal, normal_like
from witness import assert_trees_agree

eqx = pytest.importorskip("equinox", reason="the extra `oracles` is not installed")

from jlstm.modules.equinox import scan  # noqa: E402

TIME, BATCH, INPUT, HIDDEN = 6, 3, 5, 4


def cell(use_bias: bool = True, seed: int = 0) -> Any:
    return eqx.nn.LSTMCell(INPUT, HIDDEN, use_bias, key=jax.random.key(seed))


def theirs(cell: Any, init: Any, xs: Any, reverse: bool = False) -> Any:
    """One sequence, as Equinox's documentation has it; h of every step besides."""

    def body(state: Any, x: Any) -> Any:
        state = cell(x, state)
        return state, state[0]

    return jax.lax.scan(body, init, xs, reverse=reverse)


def over_batch(function: Any) -> Any:
    """The same for ``[time, batch, ·]``."""
    return jax.vmap(function, in_axes=(None, 0, 1), out_axes=(0, 1))


def problem() -> Any:
    state = normal(2, BATCH, HIDDEN), normal(3, BATCH, HIDDEN)
    return state, normal(1, TIME, BATCH, INPUT)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("use_bias", [False, True])
def test_results_and_gradients_are_those_of_the_scan(use_bias: bool, reverse: bool) -> None:
    def ours(*args: Any) -> Any:
        return scan(*args, reverse=reverse)

    expected = over_batch(lambda *args: theirs(*args, reverse=reverse))
    assert_same(ours, expected, cell(use_bias), *problem())


def test_a_batch_by_vmap_is_the_same() -> None:
    assert_same(over_batch(scan), scan, cell(), *problem())


def test_one_sequence_from_zeros() -> None:
    _, xs = problem()
    zeros = (jnp.zeros(HIDDEN),) * 2
    assert_same(
        lambda cell, xs: scan(cell, None, xs),
        lambda cell, xs: theirs(cell, zeros, xs),
        *(cell(), xs[:, 0]),
    )


class Model(eqx.Module):
    """As users write it."""

    cell: Any
    readout: Any
    ours: bool = eqx.field(static=True)

    def __init__(self, ours: bool, seed: int = 0) -> None:
        self.cell = cell(seed=seed)
        self.readout = eqx.nn.Linear(HIDDEN, 2, key=jax.random.key(seed + 1))
        self.ours = ours

    def __call__(self, xs: Any) -> Any:
        state = (jnp.zeros(HIDDEN),) * 2
        (h, _), _ = (scan if self.ours else theirs)(self.cell, state, xs)
        return self.readout(h)


def test_a_file_from_before_is_loaded(tmp_path: Any) -> None:
    before = normal_like(Model(ours=False))
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", before)
    after = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", Model(ours=True, seed=7))
    assert_bitwise(jax.tree.leaves(after), jax.tree.leaves(before))

    @eqx.filter_jit
    def gradient(model: Any, xs: Any) -> Any:
        return eqx.filter_grad(lambda model: jnp.sum(jax.vmap(model)(xs) ** 2))(model)

    xs = normal(5, BATCH, TIME, INPUT)
    assert_trees_agree(*(jax.tree.leaves(gradient(model, xs)) for model in (after, before)))


def test_vmap_of_grad_over_an_ensemble() -> None:
    cells = eqx.filter_vmap(lambda key: eqx.nn.LSTMCell(INPUT, HIDDEN, key=key))(
        jax.random.split(jax.random.key(0), 2)
    )
    state, xs = problem()

    def gradients(walk: Any) -> Any:
        def loss(cell: Any) -> Any:
            return jnp.sum(walk(cell, state, xs)[1] ** 2)

        return jax.jit(jax.vmap(jax.grad(loss)))(cells)

    assert_trees_agree(gradients(scan), gradients(over_batch(theirs)))


def test_forward_mode_of_one_sequence() -> None:
    state, xs = problem()
    point = cell(), jax.tree.map(lambda a: a[0], state), xs[:, 0]
    ours = partial(scan, derivative="jvp")
    assert_trees_agree(*(jax.jvp(f, point, normal_like(point)) for f in (ours, theirs)))


def test_options_go_to_lstm() -> None:
    def with_options(*args: Any) -> Any:
        return scan(*args, residuals="chunks", chunk=2, derivative="jvp")

    args = cell(), *problem()
    assert_trees_agree(answer(with_options, *args), answer(scan, *args))
    with pytest.raises(ValueError, match="residuals: expected one of"):
        scan(*args, residuals="all")


def test_lengths_and_resets() -> None:
    """As if there were two sequences, the second of them short."""
    one, (state, xs) = cell(), problem()
    resets = jnp.zeros((TIME, BATCH), bool).at[2].set(True)
    last, hs = scan(one, state, xs, resets=resets, lengths=jnp.full(BATCH, 5))
    _, before = scan(one, state, xs[:2])
    after, rest = scan(one, None, xs[2:5])
    assert_trees_agree((last, hs[:5]), (after, jnp.concatenate([before, rest])))


def test_another_cell_is_refused() -> None:
    with pytest.raises(TypeError, match=r"cell: expected eqx\.nn\.LSTMCell, got GRUCell"):
        scan(eqx.nn.GRUCell(INPUT, HIDDEN, key=jax.random.key(0)), *problem())
