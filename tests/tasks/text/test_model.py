"""The language model: its loss by hand, its gradient, its carry, its sampling."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import Carry, Stack, Variant, init_carry, init_stack, init_stack_carry, lstm, stack
from jlstm.tasks.text.model import (
    LanguageModel,
    TokenBatch,
    init_language_model,
    language_model_loss,
    likeliest,
    logits,
    sample,
    token_count,
)

VOCAB, EMBEDDING, HIDDEN, TIME, BATCH = 11, 3, 5, 7, 2


@pytest.fixture
def params():
    model = init_language_model(
        jax.random.key(0), VOCAB, embedding_size=EMBEDDING, hidden_size=HIDDEN, dtype=jnp.float64
    )
    readout = jax.random.normal(jax.random.key(1), model.readout.shape, model.readout.dtype)
    bias = jax.random.normal(jax.random.key(2), model.readout_bias.shape, model.readout.dtype)
    return model._replace(readout=readout, readout_bias=bias)


@pytest.fixture
def batch():
    tokens = np.random.default_rng(3).integers(0, VOCAB, (TIME + 1, BATCH), np.int32)
    return TokenBatch(tokens[:-1], tokens[1:])


@pytest.fixture
def carry():
    return Carry(*jax.random.normal(jax.random.key(4), (2, BATCH, HIDDEN), jnp.float64))


loss_of = jax.jit(language_model_loss)  # the plain one, compiled once for all tests


def by_hand(params: LanguageModel, carry: Carry, tokens: np.ndarray) -> np.ndarray:
    """log p of every next token, [time, batch, vocab], step by step in NumPy."""
    p = jax.tree.map(np.asarray, params)
    h, c = (np.asarray(a) for a in carry)
    out = []
    for row in tokens:
        z = np.einsum("bd,dgh->bgh", p.embedding[row], p.lstm.w_ih)
        z = z + np.einsum("bk,kgh->bgh", h, p.lstm.w_hh) + p.lstm.b
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
    _, scores = logits(params, carry, batch.inputs)
    np.testing.assert_allclose(jax.nn.log_softmax(scores), expected, rtol=1e-12)

    weights = np.random.default_rng(5).integers(0, 2, (TIME, BATCH)).astype(np.float32)
    loss, _ = loss_of(params, carry, batch._replace(weights=weights))
    assert 0 < weights.sum() < weights.size
    assert loss == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-13)


def test_training_starts_at_the_loss_of_knowing_nothing(batch):
    fresh = init_language_model(
        jax.random.key(0), VOCAB, embedding_size=EMBEDDING, hidden_size=HIDDEN
    )
    loss, _ = language_model_loss(fresh, None, batch)
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(np.log(VOCAB), rel=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {np.dtype(np.float32)}


def test_the_gradient_is_that_of_autodiff_and_reaches_every_parameter(params, carry, batch):
    def gradient(layer):
        return jax.grad(language_model_loss, argnums=(0, 1), has_aux=True)(
            params, carry, batch, layer=layer
        )[0]

    by_rule = gradient(partial(lstm, derivative="vjp", residuals="carry", chunk=3))
    by_autodiff = gradient(partial(lstm, derivative="autodiff"))
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
    np.testing.assert_allclose(end.c, end_of_second.c, rtol=1e-12)


def test_fresh_streams_forget(params, carry, batch):
    fresh = np.array([True, False])
    loss, end = language_model_loss(params, carry, batch._replace(fresh=fresh))
    partly = jax.tree.map(lambda a: a.at[0].set(0.0), carry)
    expected, end_expected = language_model_loss(params, partly, batch)
    assert loss == expected
    assert loss != language_model_loss(params, carry, batch)[0]
    np.testing.assert_array_equal(end.h, end_expected.h)


def test_fresh_streams_start_with_what_was_learned(batch):
    """As a reset before the first step does, gradients included."""
    config = Stack(sizes=(4, 3), learned_carry=True, dropout=0.3)
    model = init_language_model(
        jax.random.key(0), VOCAB, embedding_size=EMBEDDING, stack=config, dtype=jnp.float64
    )
    leaves, tree = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    model = tree.unflatten(
        [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
    )
    carry = jax.tree.map(jnp.ones_like, init_stack_carry(config, model.lstm, BATCH))
    batch = batch._replace(key=jax.random.key(2))
    fresh = np.array([True, False])
    resets = jnp.zeros((TIME, BATCH), bool).at[0].set(fresh)

    def loss(model, fresh, **options):
        layer = partial(stack, config, **options)
        return language_model_loss(model, carry, batch._replace(fresh=fresh), layer=layer)[0]

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
        language_model_loss(params, carry, padded)[0]
        == (language_model_loss(params, carry, other)[0])
    )
    nothing = padded._replace(weights=np.zeros_like(weights))
    loss, gradient = jax.value_and_grad(lambda p: language_model_loss(p, carry, nothing)[0])(params)
    assert loss == 0
    assert not any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


def test_dropout(params, carry, batch):
    plain = language_model_loss(params, carry, batch)[0]
    keyed = batch._replace(key=jax.random.key(7))
    dropped = language_model_loss(params, carry, keyed, dropout=0.5)[0]
    assert dropped == language_model_loss(params, carry, keyed, dropout=0.5)[0]
    other = batch._replace(key=jax.random.key(8))
    assert dropped != language_model_loss(params, carry, other, dropout=0.5)[0]
    # Without a key, and without a rate, nothing is dropped.
    assert plain == language_model_loss(params, carry, batch, dropout=0.5)[0]
    assert plain == language_model_loss(params, carry, keyed)[0]
    for rate in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"dropout: expected .* got"):
            language_model_loss(params, carry, keyed, dropout=rate)


def test_dropout_keeps_the_mean(params):
    """One mask for the whole window, scaled so that its mean is 1."""

    def layer(params, carry, xs, key):
        return carry, jnp.ones((TIME, 4000, HIDDEN))

    identity = params._replace(readout=jnp.eye(HIDDEN), readout_bias=jnp.zeros(HIDDEN))
    tokens = jnp.zeros((TIME, 4000), jnp.int32)
    _, seen = logits(identity, None, tokens, layer=layer, dropout=0.25, key=jax.random.key(0))
    assert set(np.unique(seen)) == {0.0, 1 / 0.75}
    np.testing.assert_array_equal(seen, np.broadcast_to(seen[:1], seen.shape))
    # 20,000 draws: the standard deviation of the mean is 0.0041.
    assert np.mean(seen) == pytest.approx(1, abs=0.02)


def test_a_layer_that_drops_has_its_own_key(params, batch):
    """What a stack and its cells drop depends on the key of the batch alone."""
    config = Stack(sizes=(4, HIDDEN), gates=Variant(zoneout_c=0.3), dropout=0.2, output_dropout=0.2)
    layers = init_stack(jax.random.key(1), EMBEDDING, config, dtype=jnp.float64)
    params = params._replace(lstm=layers)
    loss_of = jax.jit(partial(language_model_loss, layer=partial(stack, config)))
    first, other, again = (
        loss_of(params, None, batch._replace(key=jax.random.key(n)))[0] for n in (7, 8, 7)
    )
    assert first == again != other
    with pytest.raises(ValueError, match=r"key: expected a key .* for what is random"):
        loss_of(params, None, batch)


def test_dropped_embeddings_are_whole_tokens(params):
    """A token is 0 wherever it is read, or scaled so that the mean stays."""
    vocab = 2000
    params = params._replace(embedding=jnp.ones((vocab, HIDDEN)), readout=jnp.eye(HIDDEN))
    params = params._replace(readout_bias=jnp.zeros(HIDDEN))
    tokens = jnp.array(np.random.default_rng(0).integers(0, vocab, (TIME, 4000)), jnp.int32)

    def layer(params, carry, xs, key=None):
        return carry, xs

    see = partial(logits, params, None, tokens, layer=layer, embedding_dropout=0.4)
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
    tied = init_language_model(
        jax.random.key(0), VOCAB, embedding_size=HIDDEN, hidden_size=HIDDEN, tied=True,
        dtype=jnp.float64,
    )  # fmt: skip
    assert tied.readout is None
    bias = jnp.arange(VOCAB, dtype=jnp.float64)
    tied = tied._replace(readout_bias=bias)
    untied = tied._replace(readout=tied.embedding.T)
    found = jax.nn.log_softmax(logits(tied, carry, batch.inputs)[1])
    np.testing.assert_allclose(found, by_hand(untied, carry, batch.inputs), rtol=1e-12)
    # Each of both uses of the embedding has its gradient.
    gradient = jax.grad(lambda p: language_model_loss(p, carry, batch)[0])
    of_tied, of_untied = gradient(tied), gradient(untied)
    expected = of_untied.embedding + of_untied.readout.T
    np.testing.assert_allclose(of_tied.embedding, expected, rtol=1e-10)
    assert sample(tied, jax.random.key(0), jnp.array([1], jnp.int32), 3).shape == (3,)


def test_a_tied_model_knows_next_to_nothing_at_the_start(batch):
    stack_of_two = Stack(sizes=(7, 64))
    tied = init_language_model(
        jax.random.key(0), VOCAB, embedding_size=64, stack=stack_of_two, tied=True
    )
    loss, carry = language_model_loss(tied, None, batch, layer=partial(stack, stack_of_two))
    assert loss == pytest.approx(np.log(VOCAB), rel=0.02)
    start = init_stack_carry(stack_of_two, tied.lstm, BATCH)
    assert jax.tree.structure(carry) == jax.tree.structure(start)
    assert {leaf.dtype for leaf in jax.tree.leaves(tied)} == {np.dtype(np.float32)}


def test_samples_follow_the_prompt(params):
    # Large weights, so that the likeliest token depends on what came before.
    params = jax.tree.map(lambda a: 4 * a, params)
    params = params._replace(readout_bias=jnp.zeros_like(params.readout_bias))
    different = set()
    for prompt in ([1, 5, 2], [2, 5, 1], [3, 4, 2], [0, 9, 8]):
        tokens = sample(params, jax.random.key(0), jnp.array(prompt, jnp.int32), 9, 0.0)
        assert (tokens.shape, tokens.dtype) == ((9,), jnp.int32)
        # At temperature 0 each is the likeliest after all before it.
        text = jnp.concatenate([jnp.array(prompt, jnp.int32), tokens])
        _, scores = logits(params, None, text)
        np.testing.assert_array_equal(tokens, np.argmax(scores, axis=-1)[2:-1])
        different |= set(np.asarray(tokens[1:]).tolist())
    assert len(different) > 2


def test_samples_are_drawn_from_the_model(params):
    """The first token's frequencies are softmax(logits / temperature)."""
    prompt, heat = jnp.array([4], jnp.int32), 1.7
    keys = jax.random.split(jax.random.key(1), 4000)
    tokens = jax.vmap(lambda key: sample(params, key, prompt, 1, heat))(keys)
    found = np.bincount(np.asarray(tokens[:, 0]), minlength=VOCAB) / len(keys)
    expected = jax.nn.softmax(logits(params, None, prompt)[1][-1] / heat)
    # Five standard deviations of the frequency of an event of probability ½.
    np.testing.assert_allclose(found, expected, atol=5 * 0.5 / np.sqrt(len(keys)))
    again = sample(params, keys[0], prompt, 20, heat)
    np.testing.assert_array_equal(again, sample(params, keys[0], prompt, 20, heat))
    assert jnp.any(again != sample(params, keys[1], prompt, 20, heat))


SCORES = jnp.log(jnp.array([0.05, 0.4, 0.1, 0.25, 0.2]))


@pytest.mark.parametrize(
    ("top_k", "top_p", "stays"),
    [
        (None, None, [0, 1, 2, 3, 4]),
        (1, None, [1]),
        (3, None, [1, 3, 4]),
        (99, None, [0, 1, 2, 3, 4]),
        (None, 1e-9, [1]),
        (None, 0.39, [1]),
        (None, 0.41, [1, 3]),
        (None, 0.64, [1, 3]),
        (None, 0.66, [1, 3, 4]),
        (None, 0.96, [0, 1, 2, 3, 4]),
        (None, 1.0, [0, 1, 2, 3, 4]),
        # Among the two best the best has 0.4/0.65 = 0.615.
        (2, 0.61, [1]),
        (2, 0.62, [1, 3]),
        (2, 1.0, [1, 3]),
    ],
)
def test_the_likeliest_tokens(top_k, top_p, stays):
    left = likeliest(SCORES, 1.0, top_k, top_p)
    assert np.flatnonzero(np.isfinite(left)).tolist() == stays
    np.testing.assert_array_equal(left[np.array(stays)], SCORES[np.array(stays)])


def test_the_temperature_comes_before_the_nucleus():
    # At temperature 0.5 the best has 0.16/0.275 = 0.58, at 2 it has 0.63/2.12 = 0.30.
    assert np.isfinite(likeliest(SCORES, 0.5, None, 0.57)).sum() == 1
    assert np.isfinite(likeliest(SCORES, 2.0, None, 0.57)).sum() == 3
    assert np.isfinite(likeliest(SCORES, 0.0, None, 0.99)).sum() == 1
    # Of equals the first ones, and never more than were asked for.
    assert np.isfinite(likeliest(jnp.zeros(4), 1.0, None, 0.5)).sum() == 2
    assert np.flatnonzero(np.isfinite(likeliest(jnp.zeros(6), 1.0, 2))).tolist() == [0, 1]
    assert np.flatnonzero(np.isfinite(likeliest(jnp.zeros(6), 1.0, None, 0.4))).tolist() == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("options", [{"top_k": 4}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.8}])
def test_samples_are_drawn_from_the_likeliest(params, options):
    prompt, heat, draws = jnp.array([4], jnp.int32), 1.3, 4000
    keys = jax.random.split(jax.random.key(1), draws)
    tokens = jax.vmap(lambda key: sample(params, key, prompt, 1, heat, **options))(keys)
    found = np.bincount(np.asarray(tokens[:, 0]), minlength=VOCAB)
    p = np.asarray(jax.nn.softmax(logits(params, None, prompt)[1][-1] / heat))
    order = np.argsort(-p)[: options.get("top_k")]
    sums = np.cumsum(p[order]) / p[order].sum()
    order = order[: 1 + np.searchsorted(sums, options.get("top_p", 1.0) - 1e-9)]
    expected = np.zeros(VOCAB)
    expected[order] = draws * p[order] / p[order].sum()
    assert 1 < len(order) < VOCAB
    assert (found[expected == 0] == 0).all()
    # χ² of at most 10 degrees of freedom is above 30 once in a thousand.
    assert ((found - expected)[order] ** 2 / expected[order]).sum() < 30


def test_the_best_of_one_is_greedy(params):
    params = jax.tree.map(lambda a: 4 * a, params)
    prompt, key = jnp.array([1, 5], jnp.int32), jax.random.key(0)
    greedy = sample(params, key, prompt, 12, 0.0)
    np.testing.assert_array_equal(sample(params, key, prompt, 12, 1.5, top_k=1), greedy)
    np.testing.assert_array_equal(sample(params, key, prompt, 12, 1.5, top_p=1e-6), greedy)
    assert jnp.any(sample(params, key, prompt, 12, 1.5) != greedy)


def test_sampling_nothing(params):
    assert sample(params, jax.random.key(0), jnp.array([1], jnp.int32), 0).shape == (0,)


def test_any_layer_will_do(params, carry, batch):
    """A stack of two, say: the language model does not look into it."""
    second = init_language_model(
        jax.random.key(9), 2, embedding_size=HIDDEN, hidden_size=HIDDEN, dtype=jnp.float64
    ).lstm
    stacked = params._replace(lstm=(params.lstm, second))

    def layer(both, carries, xs):
        carries = carries or (None, None)
        below, hs = lstm(both[0], carries[0], xs)
        above, hs = lstm(both[1], carries[1], hs)
        return (below, above), hs

    carries = (carry, init_carry(BATCH, HIDDEN, jnp.float64))
    fresh = batch._replace(fresh=np.array([False, True]))
    loss, end = language_model_loss(stacked, carries, fresh, layer=layer)
    assert np.isfinite(loss)
    assert jax.tree.structure(end) == jax.tree.structure(carries)


def test_wrong_input_is_named(params, carry, batch):
    def fails(error, match, **changes):
        with pytest.raises(error, match=match):
            language_model_loss(params, carry, batch._replace(**changes))

    fails(TypeError, "tokens: expected an integer dtype, got float", inputs=np.ones((TIME, BATCH)))
    fails(ValueError, r"tokens: expected tokens from 0 to 10, got .* to 11",
          inputs=np.where(np.arange(TIME)[:, None] == 2, 11, batch.inputs))  # fmt: skip
    fails(ValueError, r"batch.targets: expected shape \[7, 2\], got \[6, 2\]",
          targets=batch.targets[1:])  # fmt: skip
    fails(ValueError, r"batch.weights: expected shape", weights=np.ones((3, BATCH)))
    fails(TypeError, "fresh: expected dtype bool, got int", fresh=np.zeros(BATCH, np.int32))
    with pytest.raises(TypeError, match="batch: expected TokenBatch, got tuple"):
        language_model_loss(params, carry, (batch.inputs, batch.targets))
    key = jax.random.key(0)
    for options, got in (({}, "neither"), ({"hidden_size": 3, "stack": Stack(sizes=3)}, "both")):
        with pytest.raises(ValueError, match=f"hidden_size, stack: expected one .* got {got}"):
            init_language_model(key, 3, embedding_size=2, **options)
    for options in ({"hidden_size": 3}, {"stack": Stack(sizes=(2, 3))}):
        with pytest.raises(ValueError, match=r"tied: expected a layer that gives the 2 .* got 3"):
            init_language_model(key, 3, embedding_size=2, tied=True, **options)
    with pytest.raises(ValueError, match=r"tied: expected a layer that gives the 3 .* got 5"):
        logits(params._replace(readout=None), None, batch.inputs)
    with pytest.raises(ValueError, match="vocab_size: expected at least 1, got 0"):
        init_language_model(key, 0, embedding_size=1, hidden_size=1)
    with pytest.raises(TypeError, match=r"key: expected a key of jax\.random, got int"):
        init_language_model(3, 2, embedding_size=1, hidden_size=1)
    for call in (
        lambda: logits(None, None, batch.inputs),
        lambda: language_model_loss(None, None, batch),
        lambda: sample(None, key, jnp.array([1], jnp.int32), 3),
    ):
        with pytest.raises(TypeError, match="params: expected LanguageModel, got NoneType"):
            call()
    with pytest.raises(TypeError, match="dropout: expected a number, got str 'a'"):
        logits(params, None, batch.inputs, dropout="a")
    with pytest.raises(TypeError, match="layer: expected a function, got int 3"):
        logits(params, None, batch.inputs, layer=3)
    with pytest.raises(TypeError, match=r"key: expected a key of jax\.random, got int"):
        logits(params, None, batch.inputs, dropout=0.5, key=3)
    prompt = jnp.array([1], jnp.int32)
    with pytest.raises(TypeError, match="temperature: expected a number, got str 'a'"):
        sample(params, key, prompt, 3, "a")
    with pytest.raises(ValueError, match=r"temperature: expected a finite number .* got nan"):
        sample(params, key, prompt, 3, float("nan"))
    with pytest.raises(TypeError, match="layer: expected a function, got int 3"):
        sample(params, key, prompt, 3, layer=3)
    with pytest.raises(TypeError, match=r"key: expected a key of jax\.random, got NoneType"):
        sample(params, None, prompt, 3)
    with pytest.raises(ValueError, match="prompt: expected at least one token"):
        sample(params, key, jnp.array([], jnp.int32), 3)
    with pytest.raises(ValueError, match=r"temperature: expected .* got -1"):
        sample(params, key, jnp.array([1], jnp.int32), 3, -1.0)
    for options, message in (
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"top_p": 0}, "top_p: expected a number above 0 and up to 1, got 0"),
        ({"top_p": 1.5}, "top_p: expected a number above 0 and up to 1, got 1.5"),
        ({"top_p": float("nan")}, "top_p: expected a finite number of at least 0, got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(params, key, prompt, 3, **options)
    with pytest.raises(ValueError, match=r"embedding_dropout: expected .* got 1.0"):
        language_model_loss(params, carry, batch, embedding_dropout=1.0)
    with pytest.raises(ValueError, match="length: expected at least 0, got -1"):
        sample(params, key, jnp.array([1], jnp.int32), -1)
