"""The language model: its loss by hand, its gradient, its carry, what is left out."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import Carry, Stack, Variant, init_stack, init_stack_carry, stack
from jlstm.tasks.text.batch import TokenBatch
from jlstm.tasks.text.model import (
    LanguageModel,
    LanguageModelConfig,
    init_language_model,
    language_model_loss,
    logits,
    token_count,
)

VOCAB, EMBEDDING, HIDDEN, TIME, BATCH = 11, 3, 5, 7, 2
CONFIG = LanguageModelConfig(vocabulary=VOCAB, embedding=EMBEDDING, stack=Stack(sizes=HIDDEN))
TIED = replace(CONFIG, embedding=HIDDEN, tied=True)


@pytest.fixture
def params():
    model = init_language_model(jax.random.key(0), CONFIG, dtype=jnp.float64)
    readout = jax.random.normal(jax.random.key(1), model.readout.shape, model.readout.dtype)
    bias = jax.random.normal(jax.random.key(2), model.readout_bias.shape, model.readout.dtype)
    return model._replace(readout=readout, readout_bias=bias)


@pytest.fixture
def batch():
    tokens = np.random.default_rng(3).integers(0, VOCAB, (TIME + 1, BATCH), np.int32)
    return TokenBatch(tokens[:-1], tokens[1:])


@pytest.fixture
def carry():
    return (Carry(*jax.random.normal(jax.random.key(4), (2, BATCH, HIDDEN), jnp.float64)),)


loss_of = jax.jit(partial(language_model_loss, CONFIG))  # compiled once for all tests


def by_hand(params: LanguageModel, carry: Carry, tokens: np.ndarray) -> np.ndarray:
    """log p of every next token, [time, batch, vocab], step by step in NumPy."""
    p = jax.tree.map(np.asarray, params)
    lstm = p.lstm[0].forward
    h, c = (np.asarray(a) for a in carry[0])
    out = []
    for row in tokens:
        z = np.einsum("bd,dgh->bgh", p.embedding[row], lstm.w_ih)
        z = z + np.einsum("bk,kgh->bgh", h, lstm.w_hh) + lstm.b
        i, f, o = (1 / (1 + np.exp(-z[:, gate])) for gate in (0, 1, 3))
        c = f * c + i * np.tanh(z[:, 2])
        h = o * np.tanh(c)
        scores = h @ p.readout + p.readout_bias
        out.append(scores - np.log(np.exp(scores).sum(-1, keepdims=True)))
    return np.stack(out)


def test_the_loss_is_what_the_equations_say(params, carry, batch):
    expected = by_hand(params, carry, batch.inputs)
    losses = -np.take_along_axis(expected, batch.targets[..., None], -1)[..., 0]
    loss, _ = loss_of(params, carry, batch)
    # float64: two orders of summation of numbers near 1.
    assert loss == pytest.approx(losses.mean(), rel=1e-13)
    _, scores = logits(CONFIG, params, carry, batch.inputs)
    np.testing.assert_allclose(jax.nn.log_softmax(scores), expected, rtol=1e-12)

    weights = np.random.default_rng(5).integers(0, 2, (TIME, BATCH)).astype(np.float32)
    loss, _ = loss_of(params, carry, batch._replace(weights=weights))
    assert 0 < weights.sum() < weights.size
    assert loss == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-13)


def test_training_starts_at_the_loss_of_knowing_nothing(batch):
    fresh = init_language_model(jax.random.key(0), CONFIG)
    loss, _ = language_model_loss(CONFIG, fresh, None, batch)
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(np.log(VOCAB), rel=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {np.dtype(np.float32)}


def test_the_gradient_is_that_of_autodiff_and_reaches_every_parameter(params, carry, batch):
    def gradient(**options):
        loss = partial(language_model_loss, CONFIG, run=partial(stack, **options))
        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, carry, batch)[0]

    by_rule = gradient(derivative="vjp", residuals="carry", chunk=3)
    by_autodiff = gradient(derivative="autodiff")
    for ours, theirs in zip(jax.tree.leaves(by_rule), jax.tree.leaves(by_autodiff), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)
        assert jnp.any(ours != 0)


def test_two_windows_are_one(params, carry, batch):
    whole, end = loss_of(params, carry, batch)
    cut = 3
    first = TokenBatch(batch.inputs[:cut], batch.targets[:cut])
    second = TokenBatch(batch.inputs[cut:], batch.targets[cut:])
    a, middle = loss_of(params, carry, first)
    b, end_of_second = loss_of(params, middle, second)
    mean = (cut * float(a) + (TIME - cut) * float(b)) / TIME
    assert float(whole) == pytest.approx(mean, rel=1e-13)
    np.testing.assert_allclose(end[0].c, end_of_second[0].c, rtol=1e-12)


def test_fresh_streams_forget(params, carry, batch):
    fresh = np.array([True, False])
    loss, end = language_model_loss(CONFIG, params, carry, batch._replace(fresh=fresh))
    partly = jax.tree.map(lambda a: a.at[0].set(0.0), carry)
    expected, end_expected = language_model_loss(CONFIG, params, partly, batch)
    assert loss == expected
    assert loss != language_model_loss(CONFIG, params, carry, batch)[0]
    np.testing.assert_array_equal(end[0].h, end_expected[0].h)


def test_fresh_streams_start_with_what_was_learned(batch):
    """As a reset before the first step does, gradients included."""
    layers = Stack(sizes=(4, 3), learned_carry=True, dropout=0.3)
    config = replace(CONFIG, stack=layers)
    model = init_language_model(jax.random.key(0), config, dtype=jnp.float64)
    leaves, tree = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    model = tree.unflatten(
        [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
    )
    carry = jax.tree.map(jnp.ones_like, init_stack_carry(layers, model.lstm, BATCH))
    batch = batch._replace(key=jax.random.key(2))
    fresh = np.array([True, False])
    resets = jnp.zeros((TIME, BATCH), bool).at[0].set(fresh)

    def loss(model, fresh, **options):
        here = batch._replace(fresh=fresh)
        return language_model_loss(config, model, carry, here, run=partial(stack, **options))[0]

    value, gradient = jax.value_and_grad(loss)(model, fresh)
    expected, gradient_expected = jax.value_and_grad(partial(loss, resets=resets))(model, None)
    assert float(value) == pytest.approx(float(expected), rel=1e-13)
    starts, expected = ([one.start for one in g.lstm] for g in (gradient, gradient_expected))
    for a, b in zip(*map(jax.tree.leaves, (starts, expected)), strict=True):
        assert np.any(b)
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_what_has_no_weight_has_no_influence(params, carry, batch):
    weights = np.ones((TIME, BATCH), np.float32)
    weights[-1] = 0
    padded = batch._replace(weights=weights)
    assert token_count(batch) == TIME * BATCH
    assert token_count(padded) == (TIME - 1) * BATCH
    other = padded._replace(targets=batch.targets.copy())
    other.targets[-1] = (batch.targets[-1] + 1) % VOCAB
    assert (
        language_model_loss(CONFIG, params, carry, padded)[0]
        == (language_model_loss(CONFIG, params, carry, other)[0])
    )
    nothing = padded._replace(weights=np.zeros_like(weights))
    loss, gradient = jax.value_and_grad(
        lambda p: language_model_loss(CONFIG, p, carry, nothing)[0]
    )(params)
    assert loss == 0
    assert not any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "options",
    [
        {"embedding_dropout": 0.5},
        {"weight_dropout": 0.5},
        {"stack": Stack(sizes=HIDDEN, gates=Variant(zoneout_c=0.3))},
        {"stack": Stack(sizes=HIDDEN, input_dropout=0.2, output_dropout=0.5)},
    ],
)
def test_what_is_dropped_depends_on_the_key_alone(params, carry, batch, options):
    config = replace(CONFIG, **options)
    layers = init_stack(jax.random.key(1), EMBEDDING, config.stack, dtype=jnp.float64)
    params = params._replace(lstm=layers)
    loss_of = jax.jit(partial(language_model_loss, config))
    plain = loss_of(params, carry, batch)[0]
    first, other, again = (
        loss_of(params, carry, batch._replace(key=jax.random.key(n)))[0] for n in (7, 8, 7)
    )
    assert first == again
    assert len({float(plain), float(first), float(other)}) == 3
    if config.stack.cells[0].gates == CONFIG.stack.cells[0].gates:  # zoneout leaves its mean
        assert plain == language_model_loss(CONFIG, params, carry, batch)[0]


def test_dropped_embeddings_are_whole_tokens(params):
    """A token is 0 wherever it is read, or scaled so that the mean stays."""
    vocab = 2000
    config = replace(CONFIG, vocabulary=vocab, embedding=HIDDEN, embedding_dropout=0.4)
    params = params._replace(embedding=jnp.ones((vocab, HIDDEN)), readout=jnp.eye(HIDDEN))
    params = params._replace(readout_bias=jnp.zeros(HIDDEN))
    tokens = jnp.array(np.random.default_rng(0).integers(0, vocab, (TIME, 4000)), jnp.int32)

    def hand_on(config, params, carry, xs, key=None):
        return carry, xs

    see = partial(logits, config, params, None, tokens, run=hand_on)
    _, seen = see(key=jax.random.key(0))
    assert set(np.unique(seen)) == {0.0, 1 / 0.6}
    assert (np.asarray(seen) == np.asarray(seen)[..., :1]).all()
    of_token = np.zeros(vocab)
    of_token[np.asarray(tokens)] = seen[..., 0]
    np.testing.assert_array_equal(seen[..., 0], of_token[np.asarray(tokens)])
    # 2,000 draws: the standard deviation of the mean is 0.018.
    assert np.mean(of_token) == pytest.approx(1, abs=0.08)
    np.testing.assert_array_equal(see()[1], 1.0)


def test_a_tied_readout_is_the_embedding(carry, batch):
    tied = init_language_model(jax.random.key(0), TIED, dtype=jnp.float64)
    assert tied.readout is None
    bias = jnp.arange(VOCAB, dtype=jnp.float64)
    tied = tied._replace(readout_bias=bias)
    untied = tied._replace(readout=tied.embedding.T)
    found = jax.nn.log_softmax(logits(TIED, tied, carry, batch.inputs)[1])
    np.testing.assert_allclose(found, by_hand(untied, carry, batch.inputs), rtol=1e-12)
    # Each of both uses of the embedding has its gradient.
    gradient = jax.grad(lambda p: language_model_loss(TIED, p, carry, batch)[0])
    of_tied, of_untied = gradient(tied), gradient(untied)
    expected = of_untied.embedding + of_untied.readout.T
    np.testing.assert_allclose(of_tied.embedding, expected, rtol=1e-10)


def test_a_tied_model_knows_next_to_nothing_at_the_start(batch):
    config = replace(TIED, embedding=64, stack=Stack(sizes=(7, 64)))
    tied = init_language_model(jax.random.key(0), config)
    loss, carry = language_model_loss(config, tied, None, batch)
    assert loss == pytest.approx(np.log(VOCAB), rel=0.02)
    start = init_stack_carry(config.stack, tied.lstm, BATCH)
    assert jax.tree.structure(carry) == jax.tree.structure(start)
    assert {leaf.dtype for leaf in jax.tree.leaves(tied)} == {np.dtype(np.float32)}


def test_wrong_input_is_named(params, carry, batch):
    def fails(error, match, **changes):
        with pytest.raises(error, match=match):
            language_model_loss(CONFIG, params, carry, batch._replace(**changes))

    fails(TypeError, "tokens: expected an integer dtype, got float", inputs=np.ones((TIME, BATCH)))
    fails(ValueError, r"tokens: expected tokens from 0 to 10, got .* to 11",
          inputs=np.where(np.arange(TIME)[:, None] == 2, 11, batch.inputs))  # fmt: skip
    fails(ValueError, r"batch.targets: expected shape \[7, 2\], got \[6, 2\]",
          targets=batch.targets[1:])  # fmt: skip
    fails(ValueError, r"batch.weights: expected shape", weights=np.ones((3, BATCH)))
    fails(TypeError, "fresh: expected dtype bool, got int", fresh=np.zeros(BATCH, np.int32))
    with pytest.raises(TypeError, match="batch: expected TokenBatch, got tuple"):
        language_model_loss(CONFIG, params, carry, (batch.inputs, batch.targets))
    key = jax.random.key(0)
    for options, error, message in (
        ({"tied": True}, ValueError, r"tied: expected a stack that gives the 3 .* got 5"),
        ({"vocabulary": 0}, ValueError, "vocabulary: expected at least 1, got 0"),
        ({"embedding": 2.0}, TypeError, "embedding: expected an int, got float"),
        ({"stack": 5}, TypeError, "stack: expected a Stack, got int"),
        ({"embedding_dropout": 1.0}, ValueError, r"embedding_dropout: expected .* got 1.0"),
        ({"weight_dropout": -0.1}, ValueError, r"weight_dropout: expected .* got -0.1"),
        ({"weight_dropout": "a"}, TypeError, "weight_dropout: expected a number, got str 'a'"),
    ):
        with pytest.raises(error, match=message):
            replace(CONFIG, **options)
    with pytest.raises(TypeError, match=r"key: expected a key of jax\.random, got int"):
        init_language_model(3, CONFIG)
    with pytest.raises(TypeError, match="config: expected LanguageModelConfig, got int"):
        init_language_model(key, 3)
    wide = replace(CONFIG, vocabulary=12)
    with pytest.raises(ValueError, match=r"params.embedding: expected shape \[12, 3\]"):
        logits(wide, params, None, batch.inputs)
    for call in (
        lambda: logits(CONFIG, None, None, batch.inputs),
        lambda: language_model_loss(CONFIG, None, None, batch),
    ):
        with pytest.raises(TypeError, match="params: expected LanguageModel, got NoneType"):
            call()
    with pytest.raises(TypeError, match="run: expected a function, got int 3"):
        logits(CONFIG, params, None, batch.inputs, run=3)
    with pytest.raises(TypeError, match=r"key: expected a key of jax\.random, got int"):
        logits(CONFIG, params, None, batch.inputs, key=3)
