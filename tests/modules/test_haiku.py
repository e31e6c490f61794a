"""``dynamic_unroll`` in place of Haiku's: results, gradients, parameters, files."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from module_witness import answer, assert_bitwise, assert_same, normal, normal_like
from witness import assert_trees_agree

hk = pytest.importorskip("haiku", reason="the extra `oracles` is not installed")

from jlstm.modules.haiku import dynamic_unroll  # noqa: E402

TIME, BATCH, INPUT, HIDDEN = 6, 3, 5, 4
KEY = jax.random.key(0)


def transformed(unroll: Any, **options: Any) -> Any:
    @hk.without_apply_rng
    @hk.transform
    def run(xs: Any, state: Any) -> Any:
        return unroll(hk.LSTM(HIDDEN), xs, state, **options)

    return run


def problem(time_major: bool = True) -> Any:
    state = hk.LSTMState(normal(2, BATCH, HIDDEN), normal(3, BATCH, HIDDEN))
    return normal(1, *((TIME, BATCH) if time_major else (BATCH, TIME)), INPUT), state


def weights(xs: Any, state: Any) -> Any:
    return normal_like(transformed(hk.dynamic_unroll).init(KEY, xs, state))


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_results_and_gradients_are_those_of_haiku(time_major: bool, reverse: bool) -> None:
    options, given = {"time_major": time_major, "reverse": reverse}, problem(time_major)
    ours, theirs = (transformed(f, **options).apply for f in (dynamic_unroll, hk.dynamic_unroll))
    assert_same(ours, theirs, weights(*problem()), *given)


def test_one_sequence_from_zeros() -> None:
    xs, state = problem()
    zeros = hk.LSTMState(jnp.zeros(HIDDEN), jnp.zeros(HIDDEN))

    def ours(params: Any, xs: Any) -> Any:
        return transformed(dynamic_unroll).apply(params, xs, None)

    def theirs(params: Any, xs: Any) -> Any:
        return transformed(hk.dynamic_unroll).apply(params, xs, zeros)

    assert_same(ours, theirs, weights(xs, state), xs[:, 0])


def test_parameters_of_numpy() -> None:
    xs, state = problem()
    params = weights(xs, state)
    run = transformed(dynamic_unroll).apply
    assert_bitwise(run(jax.tree.map(np.asarray, params), xs, state), run(params, xs, state))


def model(unroll: Any) -> Any:
    """As users write it: names that Haiku counts up, and one inside a module."""

    class Encoder(hk.Module):
        def __call__(self, xs: Any) -> Any:
            core = hk.LSTM(HIDDEN)
            hs, _ = unroll(core, xs, core.initial_state(BATCH))
            core = hk.LSTM(HIDDEN, name="upper")
            return unroll(core, hs, core.initial_state(BATCH), reverse=True)

    @hk.without_apply_rng
    @hk.transform
    def run(xs: Any) -> Any:
        hs, _ = Encoder()(xs)
        core = hk.LSTM(HIDDEN)
        hs, _ = unroll(core, hs, core.initial_state(BATCH))
        return hk.Linear(2)(hs)

    return run


def test_fresh_parameters_are_those_of_haiku() -> None:
    xs, _ = problem()
    ours, theirs = (model(f).init(KEY, xs) for f in (dynamic_unroll, hk.dynamic_unroll))
    assert "encoder/upper/linear" in ours
    assert_bitwise(ours, theirs)


def test_a_file_from_before_is_loaded(tmp_path: Any) -> None:
    """A plain .npz, a name for each array; and then the model computes what it did."""
    xs, _ = problem()
    before = normal_like(model(hk.dynamic_unroll).init(KEY, xs))
    flat = {f"{module}:{name}": w for module, own in before.items() for name, w in own.items()}
    np.savez(tmp_path / "params.npz", **flat)
    with np.load(tmp_path / "params.npz") as file:
        pairs = [(*key.split(":"), jnp.asarray(file[key])) for key in file.files]
    fresh = model(dynamic_unroll).init(jax.random.key(1), xs)
    read = hk.data_structures.map(lambda *_: None, fresh)
    for module, name, w in pairs:
        read[module][name] = w
    assert_bitwise(read, before)
    assert_same(model(dynamic_unroll).apply, model(hk.dynamic_unroll).apply, read, xs)


def test_custom_getters_are_asked() -> None:
    """Say, for weights that are stored in fewer bits, or shared."""
    xs, state = problem()

    def halved(next_getter: Any, value: Any, context: Any) -> Any:
        return next_getter(value) / 2

    def run(unroll: Any) -> Any:
        @hk.without_apply_rng
        @hk.transform
        def call(xs: Any, state: Any) -> Any:
            with hk.custom_getter(halved):
                return unroll(hk.LSTM(HIDDEN), xs, state)

        return call.apply

    assert_same(run(dynamic_unroll), run(hk.dynamic_unroll), weights(xs, state), xs, state)


def test_vmap_of_grad_over_an_ensemble() -> None:
    xs, state = problem()
    one = weights(xs, state)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), one, normal_like(one, seed=5))

    def gradients(unroll: Any) -> Any:
        def loss(params: Any) -> Any:
            return jnp.sum(transformed(unroll).apply(params, xs, state)[0] ** 2)

        return jax.jit(jax.vmap(jax.grad(loss)))(both)

    assert_trees_agree(gradients(dynamic_unroll), gradients(hk.dynamic_unroll))


def test_resets_in_place_of_a_reset_core() -> None:
    xs, state = problem()
    resets = jnp.asarray(np.random.default_rng(4).random((TIME, BATCH)) < 0.3)

    @hk.without_apply_rng
    @hk.transform
    def theirs(xs: Any, state: Any) -> Any:
        core = hk.ResetCore(hk.LSTM(HIDDEN))
        return hk.dynamic_unroll(core, (xs, resets), state)

    ours = transformed(dynamic_unroll, resets=resets).apply
    params = weights(xs, state)
    assert_bitwise(theirs.init(KEY, xs, state), transformed(dynamic_unroll).init(KEY, xs, state))
    assert_same(ours, theirs.apply, params, xs, state)


def test_options_go_to_lstm() -> None:
    given = problem()
    params = weights(*given)
    options = {"residuals": "chunks", "chunk": 2, "implementation": "xla"}
    found = answer(transformed(dynamic_unroll, **options).apply, params, *given)
    assert_trees_agree(found, answer(transformed(dynamic_unroll).apply, params, *given))
    with pytest.raises(ValueError, match="residuals: expected one of"):
        transformed(dynamic_unroll, residuals="all").apply(params, *given)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="return_all_states: expected False"):
        transformed(dynamic_unroll, return_all_states=True).init(KEY, *problem())

    @hk.transform
    def other(xs: Any) -> Any:
        return dynamic_unroll(hk.GRU(HIDDEN), xs, None)

    with pytest.raises(TypeError, match=r"core: expected hk\.LSTM, got GRU"):
        other.init(KEY, problem()[0])
