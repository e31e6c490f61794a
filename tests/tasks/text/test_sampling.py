"""Tokens drawn: from the right distribution, and the same beside others and at any length."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import Stack, Variant
from jlstm.tasks.running import runner
from jlstm.tasks.text import sampling
from jlstm.tasks.text.model import LanguageModelConfig, init_language_model, logits
from jlstm.tasks.text.sampling import PIECE, READ, ROWS, likeliest, sample

VOCAB = 11
CONFIG = LanguageModelConfig(vocabulary=VOCAB, embedding=3, stack=Stack(sizes=5))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def params():
    model = init_language_model(jax.random.key(0), CONFIG, dtype=jnp.float64)
    readout = jax.random.normal(jax.random.key(1), model.readout.shape, model.readout.dtype)
    bias = jax.random.normal(jax.random.key(2), model.readout_bias.shape, model.readout.dtype)
    return model._replace(readout=readout, readout_bias=bias)


@pytest.fixture(scope="module")
def strong(params):
    """Large weights, so that what is likely depends on all that came before."""
    params = jax.tree.map(lambda a: 4 * a, params)
    return params._replace(readout_bias=jnp.zeros_like(params.readout_bias))


def pieces(params, prompt, *arguments, config=CONFIG, key=KEY, **options):
    return [*sample(config, params, key, np.array(prompt, np.int32), *arguments, **options)]


def texts(*arguments, count=1, **options):
    """The samples, each as one array."""
    found = [[] for _ in range(count)]
    for number, piece in pieces(*arguments, count=count, **options):
        found[number].append(piece)
    return np.array([np.concatenate(one) for one in found])


def text(*arguments, **options):
    return texts(*arguments, **options)[0]


def likeliest_after(params, prompt, drawn):
    """At each place, after the prompt and all that was drawn before."""
    whole = jnp.concatenate([jnp.array(prompt, jnp.int32), drawn])
    scores = logits(CONFIG, params, None, whole)[1]
    return np.argmax(scores, axis=-1)[len(prompt) - 1 : -1]


def test_samples_follow_the_prompt(strong):
    different = set()
    for prompt in ([1, 5, 2], [2, 5, 1], [3, 4, 2], [0, 9, 8]):
        tokens = text(strong, prompt, 9, 0.0)
        assert (tokens.shape, tokens.dtype) == ((9,), np.int32)
        np.testing.assert_array_equal(tokens, likeliest_after(strong, prompt, tokens))
        different |= {*tokens[1:].tolist()}
    assert len(different) > 2


@pytest.mark.parametrize(
    "size", [1, 2, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, READ, READ + 1, 2 * READ + PIECE + 3]
)
def test_all_of_a_prompt_is_read_whatever_its_length(strong, size):
    prompt = np.random.default_rng(size).integers(VOCAB, size=size)
    tokens = text(strong, prompt, PIECE + 2, 0.0)
    np.testing.assert_array_equal(tokens, likeliest_after(strong, prompt, tokens))


def test_the_pieces_of_a_sample_come_one_by_one_and_samples_one_after_the_other(strong):
    found = pieces(strong, [1, 5, 2], 70, 1.0, count=6)
    assert [number for number, _ in found] == [n for n in range(6) for _ in range(3)]
    assert [len(piece) for _, piece in found[:3]] == [PIECE - 2, PIECE, 70 + 2 - 2 * PIECE]
    # Nothing is drawn before it is asked for.
    calls = []
    run = lambda *arguments, **options: calls.append(1) or runner(None)(*arguments, **options)  # noqa: E731
    began = sample(CONFIG, strong, KEY, np.array([1], np.int32), 500, count=3, run=run)
    assert not calls
    next(began)
    assert len(calls) == 1  # traced once, and not called for what is not read


@pytest.mark.parametrize("options", [{}, {"top_k": 4}, {"top_p": 0.9}])
def test_a_sample_is_the_same_whatever_the_count_and_the_length(strong, options):
    one, few, many = (
        texts(strong, [1, 5], 40, 1.0, count=count, **options) for count in (1, 3, 2 * ROWS + 1)
    )
    np.testing.assert_array_equal(one, many[:1])
    np.testing.assert_array_equal(few, many[:3])
    assert len({row.tobytes() for row in many}) == len(many)
    for length in (1, PIECE - 1, PIECE, 2 * PIECE):
        np.testing.assert_array_equal(text(strong, [1, 5], length, 1.0, **options)[:40],
                                      one[0, :length])  # fmt: skip


def test_samples_are_drawn_from_the_model(params):
    """The first token's frequencies are softmax(logits / temperature), the second's too."""
    prompt, heat, draws = [4], 1.7, 1000
    tokens = texts(params, prompt, 2, heat, count=draws, key=jax.random.key(1))
    # Five standard deviations of the frequency of an event of probability ½.
    bound = 5 * 0.5 / np.sqrt(draws)
    first = jax.nn.softmax(logits(CONFIG, params, None, np.array(prompt))[1][-1] / heat)
    found = np.bincount(tokens[:, 0], minlength=VOCAB) / draws
    np.testing.assert_allclose(found, first, atol=bound)
    after = np.stack([np.full(VOCAB, 4), np.arange(VOCAB)]).astype(np.int32)
    second = first @ jax.nn.softmax(logits(CONFIG, params, None, after)[1][-1] / heat)
    found = np.bincount(tokens[:, 1], minlength=VOCAB) / draws
    np.testing.assert_allclose(found, second, atol=bound)


def test_the_key_decides(params):
    one, again = (text(params, [4], 20, 1.7, key=jax.random.key(1)) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert (one != text(params, [4], 20, 1.7, key=jax.random.key(2))).any()


@pytest.mark.parametrize("options", [{"top_k": 4}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.8}])
def test_samples_are_drawn_from_the_likeliest(params, options):
    """Without a readout all draws, at each place and of each sample, are of the same chances."""
    heat, draws = 1.3, 4000
    params = params._replace(readout=jnp.zeros_like(params.readout))
    tokens = texts(params, [4], draws // 5, heat, count=5, key=jax.random.key(1), **options)
    found = np.bincount(tokens.ravel(), minlength=VOCAB)
    p = np.asarray(jax.nn.softmax(params.readout_bias / heat))
    order = np.argsort(-p)[: options.get("top_k")]
    sums = np.cumsum(p[order]) / p[order].sum()
    order = order[: 1 + np.searchsorted(sums, options.get("top_p", 1.0) - 1e-9)]
    expected = np.zeros(VOCAB)
    expected[order] = draws * p[order] / p[order].sum()
    assert 1 < len(order) < VOCAB
    assert (found[expected == 0] == 0).all()
    # χ² of at most 10 degrees of freedom is above 30 once in a thousand.
    assert ((found - expected)[order] ** 2 / expected[order]).sum() < 30


def test_the_best_of_one_is_greedy(strong):
    greedy = text(strong, [1, 5], 12, 0.0)
    np.testing.assert_array_equal(text(strong, [1, 5], 12, 1.5, top_k=1), greedy)
    np.testing.assert_array_equal(text(strong, [1, 5], 12, 1.5, top_p=1e-6), greedy)
    assert (text(strong, [1, 5], 12, 1.5) != greedy).any()


def test_a_tied_model_of_two_layers_and_another_cell_writes(params):
    stack = Stack(sizes=(5, 3), gates=Variant(zoneout_c=0.1), dropout=0.5)
    config = replace(CONFIG, stack=stack, tied=True)
    tied = init_language_model(jax.random.key(0), config, dtype=jnp.float64)
    for prompt in ([1, 2], [3] * (READ + 1)):
        one, again = (text(tied, prompt, 3, config=config) for _ in range(2))
        np.testing.assert_array_equal(one, again)  # what is random in training is not here
        assert one.shape == (3,)


def test_sampling_nothing(params):
    assert not pieces(params, [1], 0)
    assert not pieces(params, [1, 2, 3], 0)


def test_it_compiles_once_whatever_is_asked_for(params):
    fresh = replace(CONFIG, weight_dropout=0.125)  # without influence here, but another program
    params = jax.device_put(params, jax.devices()[0])  # for which JAX would tell inputs apart
    compiled = sampling._write._cache_size(), sampling._read._cache_size()
    for seed, (prompt, length, count) in enumerate(
        [([1, 2], 4, 1), ([3], 40, 1), ([2] * 50, 1, 1), ([2] * 2 * READ, 9, 1)]
    ):
        again = {"config": replace(fresh), "run": runner(None), "key": jax.random.key(seed)}
        texts(params, prompt, length, 0.5 + seed, count=count, **again)
    after = sampling._write._cache_size(), sampling._read._cache_size()
    assert after == (compiled[0] + 1, compiled[1] + 1)
    for count in (2, 9):
        texts(params, [1], 4 + count, 2.0, count=count, config=fresh, run=runner(None))
    assert sampling._write._cache_size() == compiled[0] + 2


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


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"params": None}, TypeError, "params: expected LanguageModel, got NoneType"),
        ({"config": 3}, TypeError, "config: expected LanguageModelConfig, got int"),
        ({"key": None}, TypeError, r"key: expected a key of jax\.random, got NoneType"),
        ({"prompt": np.array([], np.int32)}, ValueError, "prompt: expected at least one token"),
        ({"prompt": np.array([11])}, ValueError, "prompt: expected tokens from 0 to 10, got 11"),
        ({"length": -1}, ValueError, "length: expected at least 0, got -1"),
        ({"temperature": "a"}, TypeError, "temperature: expected a number, got str 'a'"),
        ({"temperature": float("nan")}, ValueError, "temperature: expected a finite .* got nan"),
        ({"temperature": -1.0}, ValueError, "temperature: expected .* got -1"),
        ({"count": 0}, ValueError, "count: expected at least 1, got 0"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1, got 0"),
        ({"top_p": 0}, ValueError, "top_p: expected a number above 0 and up to 1, got 0"),
        ({"top_p": 1.5}, ValueError, "top_p: expected a number above 0 and up to 1, got 1.5"),
        ({"top_p": float("nan")}, ValueError, "top_p: expected a finite number .* got nan"),
        ({"run": 3}, TypeError, "run: expected a function, got int 3"),
    ],
)
def test_wrong_input_is_named_before_the_first_piece_is_asked_for(params, change, error, message):
    right = {"config": CONFIG, "params": params, "key": KEY, "prompt": np.array([1]), "length": 3}
    with pytest.raises(error, match=message):
        sample(**(right | change))
