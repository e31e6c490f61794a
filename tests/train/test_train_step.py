"""The training step: any loss, one compilation, donated memory, a carry that goes on."""

from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jlstm import Stack, init_stack_carry
from jlstm.tasks.text.model import LanguageModelConfig, init_language_model, language_model_loss
from jlstm.tasks.text.windows import training_window
from jlstm.train import TrainState, init_train_state, make_optimizer, make_train_step

TEXT = np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * 30, np.uint8)


def line_loss(params, carry, batch):
    """Nothing of ours: a straight line, parameters in a dict, no carry."""
    x, y = batch
    return jnp.mean((params["slope"] * x + params["level"] - y) ** 2), carry


def line(dtype=jnp.float64):
    return {"slope": jnp.zeros((), dtype), "level": jnp.zeros((), dtype)}


def line_batch(seed):
    x = np.random.default_rng(seed).normal(size=16)
    return x, 3 * x - 1


def model(dropout):
    """A language model's configuration, and fresh parameters."""
    layers = Stack(sizes=10, output_dropout=dropout)
    config = LanguageModelConfig(vocabulary=256, embedding=6, stack=layers)
    return config, init_language_model(jax.random.key(0), config)


def language(streams=4, time=8, steps=30, dropout=0.1):
    config, params = model(dropout)
    optimizer = make_optimizer(0.02, steps)
    step = make_train_step(partial(language_model_loss, config), optimizer)
    state = init_train_state(
        params, optimizer, init_stack_carry(config.stack, params.lstm, streams)
    )
    key = jax.random.key(1)
    batches = (
        training_window(TEXT, n, streams=streams, time=time)._replace(
            key=jax.random.fold_in(key, n)
        )
        for n in range(steps)
    )
    return step, state, batches


def test_it_trains_any_loss():
    optimizer = optax.adam(0.1)
    step = make_train_step(line_loss, optimizer)
    state = init_train_state(line(), optimizer)
    for n in range(300):
        state, metrics = step(state, line_batch(n))
    assert state.params["slope"] == pytest.approx(3, abs=1e-3)
    assert state.params["level"] == pytest.approx(-1, abs=1e-3)
    assert state.carry is None
    assert state.step == 300
    assert metrics["loss"] < 1e-5


def test_one_step_is_what_the_equations_say():
    optimizer = optax.sgd(0.5)
    state = init_train_state(line(), optimizer)
    x, y = line_batch(0)
    state, metrics = make_train_step(line_loss, optimizer)(state, (x, y))
    slope, level = -2 * np.mean(x * y), -2 * np.mean(y)  # the gradient at 0, 0
    assert state.params["slope"] == pytest.approx(-0.5 * slope, rel=1e-12)
    assert state.params["level"] == pytest.approx(-0.5 * level, rel=1e-12)
    assert metrics["loss"] == pytest.approx(np.mean(y**2), rel=1e-12)
    assert metrics["grad_norm"] == pytest.approx(np.hypot(slope, level), rel=1e-12)


def test_a_whole_run_compiles_once():
    """Weights, optimiser, carry with a key in it, first window, last window, new pass."""
    traces = 0

    def loss_fn(params, carry, batch):
        nonlocal traces
        traces += 1
        inner, key = carry
        key, mine = jax.random.split(key)
        batch = batch._replace(key=mine)
        loss, inner = language_model_loss(config, params, inner, batch)
        return loss, (inner, key)

    config, params = model(0.2)
    # A number from Python: its dtype is weak, which alone would be another program.
    params = params._replace(readout_bias=jnp.zeros(256, jnp.float32) + jnp.asarray(0.0) * 0)
    optimizer = make_optimizer(0.02, 60)
    step = make_train_step(loss_fn, optimizer)
    state = init_train_state(
        params, optimizer, (init_stack_carry(config.stack, params.lstm, 4), jax.random.key(1))
    )
    fresh = 0
    for n in range(40):
        batch = training_window(TEXT, n, streams=4, time=30)
        fresh += int(batch.fresh[0])
        state, _ = step(state, batch)
    assert fresh > 2
    assert step._cache_size() == 1
    assert traces == 1


def test_a_carry_with_weak_dtype_does_not_compile_again():
    def loss_fn(params, carry, batch):
        return line_loss(params, carry, batch)[0], jnp.where(carry > 2, 0.0, 1.0)

    optimizer = optax.sgd(0.1)
    step = make_train_step(loss_fn, optimizer)
    state = init_train_state(line(), optimizer, jnp.asarray(0.0))
    for n in range(3):
        state, _ = step(state, line_batch(n))
    assert step._cache_size() == 1


def test_the_state_is_donated_and_the_callers_arrays_are_not():
    step, state, batches = language()
    mine = line()
    optimizer = optax.adam(0.1)
    theirs = init_train_state(mine, optimizer)
    make_train_step(line_loss, optimizer)(theirs, line_batch(0))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(mine))

    after, _ = step(state, next(batches))
    for name in ("params", "opt_state", "carry"):
        leaves = [leaf for leaf in jax.tree.leaves(getattr(state, name)) if leaf.ndim]
        assert leaves, name
        assert all(leaf.is_deleted() for leaf in leaves), name
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_the_carry_goes_on_and_the_gradient_does_not():
    """Two steps of the loop against the same written out, gradients cut between windows."""
    step, state, batches = language(dropout=0.0)
    optimizer = make_optimizer(0.02, 30)
    params, carry = jax.tree.map(jnp.copy, (state.params, state.carry))
    opt_state = optimizer.init(params)
    gradient = jax.jit(
        jax.value_and_grad(partial(language_model_loss, model(0.0)[0]), has_aux=True)
    )
    for batch in [next(batches), next(batches)]:
        state, metrics = step(state, batch)
        (expected, carry), grads = gradient(params, carry, batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        # float32, two compilations of the same program.
        assert float(metrics["loss"]) == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose(state.carry[0].c, carry[0].c, atol=1e-5)
    assert jnp.abs(carry[0].c).max() > 1e-3


def test_a_run_can_be_repeated():
    def run():
        step, state, batches = language(steps=12)
        return [float((result := step(state, batch), state := result[0])[0][1]["loss"])
                for batch in batches]  # fmt: skip

    losses = run()
    assert losses == run()
    assert losses[-1] < losses[0]


def test_long_gradients_are_clipped():
    """The gradient is shortened as a whole, and ``grad_norm`` tells its length before that."""
    optimizer = make_optimizer(0.1, 100, clip=0.01, warmup=0)
    by_hand = optax.chain(optax.clip_by_global_norm(0.01))
    big = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([12.0])}
    clipped, _ = by_hand.update(big, by_hand.init(big))
    assert optax.tree.norm(clipped) == pytest.approx(0.01)

    # Adam forgets a constant scale, so the clipping shows where lengths differ: one huge gradient
    # among small ones moves the weights no further than they do.
    def loss_fn(params, carry, batch):
        return jnp.sum(params["w"] * batch), carry

    step = make_train_step(loss_fn, optimizer)
    state = init_train_state({"w": jnp.zeros(3)}, optimizer)
    small, huge = np.full(3, 0.005), np.full(3, 1e6)
    for _ in range(5):
        state, _ = step(state, small)
    before = np.array(state.opt_state[1][0].mu["w"])
    state, metrics = step(state, huge)
    assert metrics["grad_norm"] == pytest.approx(1e6 * np.sqrt(3), rel=1e-6)
    moved = np.array(state.opt_state[1][0].mu["w"]) - 0.9 * before
    assert np.linalg.norm(moved) == pytest.approx(0.1 * 0.01, rel=1e-5)


def test_the_learning_rate_rises_and_falls():
    def loss_fn(params, carry, batch):
        return params["w"] * 1.0, carry  # gradient 1: Adam's step is the rate itself

    optimizer = make_optimizer(0.5, 40, warmup=10, clip=10.0)
    step = make_train_step(loss_fn, optimizer)
    state = init_train_state({"w": jnp.zeros(())}, optimizer)
    places = [0.0]
    for _ in range(42):
        state, _ = step(state, None)
        places.append(float(state.params["w"]))
    rates = -np.diff(places)
    assert rates[0] == 0
    # Adam's ε = 1e-8 is the difference.
    np.testing.assert_allclose(rates[:11], np.arange(11) * 0.05, rtol=1e-6)
    assert np.argmax(rates) == 10
    assert rates[25] == pytest.approx(0.25, rel=1e-6)  # half-way down
    np.testing.assert_allclose(rates[40:], 0, atol=1e-12)


@pytest.mark.parametrize(
    ("loss_fn", "error", "match"),
    [
        (lambda p, c, b: p["slope"], TypeError, r"expected it to return \(loss, carry\), got"),
        (lambda p, c, b: (b[0] * p["slope"], c), ValueError, r"scalar .* float64 of shape \(16,\)"),
        (lambda p, c, b: (line_loss(p, c, b)[0], (c, c)), ValueError, "carry: expected PyTreeDef"),
        (
            lambda p, c, b: (line_loss(p, c, b)[0], c[:1]),
            ValueError,
            r"carry: expected float64 of shape \(2,\) as at the start, got float64 of shape \(1,\)",
        ),
    ],
)
def test_a_loss_that_returns_something_else_is_told_so(loss_fn, error, match):
    optimizer = optax.sgd(0.1)
    state = init_train_state(line(), optimizer, jnp.zeros(2))
    with pytest.raises(error, match=match):
        make_train_step(loss_fn, optimizer)(state, line_batch(0))


def test_wrong_input_is_named():
    with pytest.raises(TypeError, match=r"params\['w'\]: expected an array, got float"):
        init_train_state({"w": 1.0}, optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"carry\[0\]: expected an array, got int"):
        init_train_state(line(), optax.sgd(0.1), [1])
    for optimizer in (None, optax.sgd, (1, 2)):
        with pytest.raises(TypeError, match=r"optimizer: expected .* with init and update, got"):
            init_train_state(line(), optimizer)
        with pytest.raises(TypeError, match=r"optimizer: expected .* with init and update, got"):
            make_train_step(line_loss, optimizer)
    with pytest.raises(TypeError, match="loss_fn: expected a function, got int 3"):
        make_train_step(3, optax.sgd(0.1))
    for name in ("learning_rate", "clip", "weight_decay"):
        for value, error in (("a", TypeError), (None, TypeError), (-1, ValueError),
                             (float("inf"), ValueError)):  # fmt: skip
            with pytest.raises(error, match=f"{name}: expected a .*number.*, got"):
                make_optimizer(**{"learning_rate": 0.1, "steps": 10} | {name: value})
    with pytest.raises(ValueError, match="learning_rate: expected a finite number above 0, got 0"):
        make_optimizer(0, 10)
    with pytest.raises(ValueError, match=r"clip: expected .* got nan"):
        make_optimizer(0.1, 10, clip=float("nan"))
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        make_optimizer(0.1, 0)
    with pytest.raises(ValueError, match="warmup: expected at most the 10 steps"):
        make_optimizer(0.1, 10, warmup=11)


def test_the_state_is_a_pytree():
    _, state, _ = language()
    assert isinstance(jax.tree.map(lambda a: a, state), TrainState)
    assert state.step.dtype == jnp.int32


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_the_rate_of_a_longer_run_is_that_of_a_run_of_the_steps_added(kind):
    def rates(steps, begin=0):
        """The lengths of the updates of one weight by a gradient that is always the same."""
        optimizer = make_optimizer(0.1, steps, begin=begin, kind=kind, clip=1e9)
        params = np.float32(1.0)
        state = optimizer.init(params)
        for _ in range(steps):
            with jax.numpy_dtype_promotion("standard"):
                update, state = optimizer.update(np.float32(0.5), state, params)
            yield float(update)

    added = list(rates(23))
    # With the same gradient in all steps, Adam's update is the rate, whatever it remembers.
    np.testing.assert_allclose(list(islice(rates(40, 17), 17, None)), added, rtol=2e-5, atol=1e-8)
    assert added[0] == 0
    with pytest.raises(ValueError, match="begin: expected a step before the last, 5, got 5"):
        make_optimizer(0.1, 5, begin=5)
