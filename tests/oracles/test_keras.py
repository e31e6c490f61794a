"""Keras's LSTM on its JAX backend: ``lstm`` and ``stack`` agree, masks and gradients included.

Keras has the batch before time, and a weight as ``[input, 4 · hidden]``, gates i, f, c, o: the same
order as ours.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from witness import Array, Problem, assert_agree, random_problem, run_jlstm

import jlstm
from jlstm import activations
from jlstm.layers import LayerParams, Stack, stack
from jlstm.variants import Variant, VariantParams

# Both in float64, in another order of summation; 2e-15 is measured.
TOLERANCE = 1e-13


def promoting() -> Any:
    """What Keras needs and the tests forbid themselves: dtypes that are promoted silently."""
    return jax.numpy_dtype_promotion("standard")


def lstm_of(keras: Any, hidden: int, **options: Any) -> Any:
    """A layer that returns what ours returns, padding included.

    Keras's own tanh computes in float32 on JAX, whatever it is given; all else in float64.
    """
    fixed: dict[str, Any] = {"return_sequences": True, "return_state": True, "dtype": "float64"}
    fixed |= {"zero_output_for_mask": True, "activation": jnp.tanh}
    return keras.layers.LSTM(hidden, **fixed | options)


def mask_of(problem: Problem) -> Array | None:
    """True at the steps that count, ``[batch, time]``."""
    steps = np.arange(len(problem.xs))
    return None if problem.lengths is None else steps < problem.lengths[:, None]


def flat(w: Any) -> Any:
    """Gates and hidden as one axis."""
    return w.reshape(*w.shape[:-2], -1)


def run_keras(keras: Any, problem: Problem, training: bool = False, **options: Any) -> dict:
    """Results and gradients, named as ``run_jlstm`` names them."""
    p, hidden = problem, problem.w_hh.shape[-1]
    layer = lstm_of(keras, hidden, go_backwards=p.reverse, use_bias=p.b is not None, **options)
    weights = [flat(w) for w in (p.w_ih, p.w_hh, p.b) if w is not None]

    @jax.jit
    def run(primals: Any, cotangents: Any) -> Any:
        def apply(weights: Any, h0: Any, c0: Any, xs: Any) -> Any:
            (hs, h, c), _ = layer.stateless_call(
                weights,
                [v.value for v in layer.non_trainable_variables],
                jnp.swapaxes(xs, 0, 1),
                mask=mask_of(p),
                initial_state=[h0, c0],
                training=training,
            )
            # Keras gives what it finds going backwards in the order in which it finds it.
            hs = jnp.swapaxes(hs, 0, 1)
            return hs[::-1] if p.reverse else hs, h, c

        results, pull_back = jax.vjp(apply, *primals)
        return results, pull_back(cotangents)

    with promoting():
        layer.build((None, None, p.xs.shape[-1]))
        results, (dweights, *gradients) = run((weights, p.h0, p.c0, p.xs), (p.dhs, p.dh, p.dc))
    named = dict(zip(("hs", "h", "c", "dh0", "dc0", "dxs"), (*results, *gradients), strict=True))
    dweights = [dw.reshape(*dw.shape[:-1], 4, hidden) for dw in dweights]
    named |= dict(zip(("dw_ih", "dw_hh", "db"), dweights, strict=False))
    return {name: np.asarray(leaf) for name, leaf in named.items()}


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_bias": {"bias": False},
    "mask": {"lengths": True},
    "go_backwards": {"reverse": True},
    "go_backwards_mask": {"lengths": True, "reverse": True},
}


@pytest.mark.grid(2)
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients(keras: Any, case: str) -> None:
    problem = random_problem(3, time=6, batch=(4,), **CASES[case])
    assert_agree(run_jlstm(problem), run_keras(keras, problem), TOLERANCE)


@pytest.mark.parametrize("reverse", [False, True])
def test_padding_repeats_the_output_before_where_keras_is_left_to_itself(
    keras: Any, reverse: bool
) -> None:
    """Ours is 0 there; at the steps that count, and in the carry, nothing is different."""
    problem = random_problem(4, time=6, batch=(4,), lengths=True, reverse=reverse)
    ours, theirs = (
        run_jlstm(problem),
        run_keras(keras, problem, zero_output_for_mask=False),
    )
    counts = mask_of(problem).T[..., None]
    repeated = problem.h0 if reverse else ours["h"]
    expected = {"hs": np.where(counts, ours["hs"], repeated), "h": ours["h"], "c": ours["c"]}
    assert_agree({name: theirs[name] for name in expected}, expected, TOLERANCE)


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        (("hard_sigmoid", "softsign"), (activations.hard_sigmoid(1 / 6), activations.softsign)),
        (("softplus", "linear"), (activations.softplus, activations.identity)),
        (("sigmoid", "elu"), (activations.sigmoid, activations.elu())),
        (("relu", "leaky_relu"), (activations.relu, activations.leaky_relu(0.2))),
    ],
    ids=["hard_sigmoid-softsign", "softplus-linear", "sigmoid-elu", "relu-leaky_relu"],
)
def test_activations(keras: Any, names: tuple[str, str], ours: Any) -> None:
    """Keras has one for the gates, another for candidate and output."""
    problem = random_problem(5, time=4, lengths=True)
    theirs = run_keras(keras, problem, recurrent_activation=names[0], activation=names[1])
    gates = Variant(gate=ours[0], candidate=ours[1], output=ours[1])
    assert_agree(run_jlstm(problem, layer=variant_layer(gates)), theirs, TOLERANCE)


def variant_layer(gates: Variant) -> Any:
    """A layer with a variant's gates for plain weights."""

    def layer(params: Any, *rest: Any, **options: Any) -> Any:
        return jlstm.lstm(VariantParams(*params), *rest, gates=gates, **options)

    return layer


def test_a_model_of_two_bidirectional_layers_behind_a_masking_layer(keras: Any) -> None:
    """The mask is what Keras makes of the inputs, and hands from layer to layer.

    With softsign, since Keras copies a layer for its two directions, by the name of its activation.
    """
    time, batch, inputs, hidden = 6, 4, 3, 2
    lengths = np.array([6, 2, 0, 5])
    xs = random_problem(6, time=time, batch=(batch,), input_size=inputs).xs
    xs = np.where((np.arange(time)[:, None] < lengths)[..., None], xs, -7.0)
    params = tuple(
        LayerParams(*(weights_of(10 * n + way, width, hidden) for way in (0, 1)))
        for n, width in enumerate((inputs, 2 * hidden))
    )
    layers = [
        keras.layers.Bidirectional(
            lstm_of(keras, hidden, return_state=False, activation="softsign"), dtype="float64"
        )
        for _ in params
    ]
    start = keras.layers.Input((time, inputs), dtype="float64")
    model = keras.Sequential([start, keras.layers.Masking(-7.0, dtype="float64"), *layers])
    with promoting():
        model.set_weights([flat(w) for layer in params for way in layer[:2] for w in way[:3]])
        theirs = np.swapaxes(np.asarray(model(np.swapaxes(xs, 0, 1))), 0, 1)
    gates = Variant(candidate=activations.softsign, output=activations.softsign)
    config = Stack(sizes=[hidden, hidden], gates=gates, bidirectional=True)
    _, ours = stack(config, jax.tree.map(jnp.asarray, params), None, xs, lengths=lengths)
    assert_agree({"hs": np.asarray(ours)}, {"hs": theirs}, TOLERANCE)


def weights_of(seed: int, inputs: int, hidden: int) -> VariantParams:
    """Random weights."""
    problem = random_problem(seed, input_size=inputs, hidden_size=hidden)
    return VariantParams(problem.w_ih, problem.w_hh, problem.b)


# Dropout of the state. Ours hides the same part of h' from all four gates, Keras another part from
# each. So results are distributed alike where h' reaches one gate only, and where it reaches all,
# what ours can give is among what Keras can give.

SEQUENCES = 4096


def repeated(problem: Problem) -> Problem:
    """One sequence over and over, to be seen under as many masks."""

    def repeat(a: Array, axis: int) -> Array:
        return np.repeat(a, SEQUENCES, axis)

    xs, dhs = repeat(problem.xs, 1), repeat(problem.dhs, 1)
    states = {name: repeat(getattr(problem, name), 0) for name in ("h0", "c0", "dh", "dc")}
    return problem._replace(xs=xs, dhs=dhs, **states)


def outcomes(keras: Any, problem: Problem, rate: float) -> tuple[Array, Array]:
    """All outputs of each sequence, ours and theirs: ``[sequences, time · hidden]``."""
    key, gates = jax.random.key(1), Variant(state_dropout=rate)
    ours = run_jlstm(problem, layer=variant_layer(gates), key=key)
    theirs = run_keras(keras, problem, training=True, recurrent_dropout=rate, seed=2)
    hs, theirs_hs = (np.swapaxes(a["hs"], 0, 1) for a in (ours, theirs))
    return hs.reshape(SEQUENCES, -1), theirs_hs.reshape(SEQUENCES, -1)


def distinct(a: Array) -> Array:
    """The rows that differ, in order. Rows of the same masks are the same to rounding (1e-15)."""
    return np.unique(a.round(9), axis=0)


def test_nothing_is_dropped_in_evaluation(keras: Any) -> None:
    problem = random_problem(7, time=4, lengths=True)
    gates = Variant(state_dropout=0.4).without_noise()
    theirs = run_keras(keras, problem, recurrent_dropout=0.4)
    assert_agree(run_jlstm(problem, layer=variant_layer(gates)), theirs, TOLERANCE)


@pytest.mark.parametrize("gate", jlstm.GATES)
def test_state_dropout_of_one_gate_is_distributed_as_in_keras(keras: Any, gate: str) -> None:
    """The four outcomes of two units are the same, and so are the means of all outputs."""
    one = np.array([name == gate for name in jlstm.GATES])[:, None]
    problem = random_problem(8, time=4, batch=(1,))
    problem = repeated(problem._replace(w_hh=2 * problem.w_hh * one))
    ours, theirs = outcomes(keras, problem, rate=0.4)
    assert distinct(ours).shape == distinct(theirs).shape == (4, 8)
    assert np.allclose(distinct(ours), distinct(theirs), rtol=0, atol=1e-8)
    # Four standard errors of the difference, for each of the 8 means.
    error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / SEQUENCES)
    assert (error > 0).all()
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * error).all()


def test_what_state_dropout_gives_is_among_what_keras_gives(keras: Any) -> None:
    """Of the 2⁸ masks of two units in four gates, four are the same in all gates."""
    problem = repeated(random_problem(9, time=4, batch=(1,)))
    ours, theirs = (distinct(a) for a in outcomes(keras, problem, rate=0.5))
    assert (len(ours), len(theirs)) == (4, 256)
    distances = np.abs(ours[:, None] - theirs).max(axis=-1)
    assert ((distances < 1e-8).sum(axis=1) == 1).all()
