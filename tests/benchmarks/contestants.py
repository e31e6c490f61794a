"""Who takes part: each library's LSTM, used as its own documentation says, with our weights in it.

A contestant on JAX is a ``Layer``: pure functions over weights in the library's own form. What is
timed around them (jit, the derivative, the training step) is the same for all of them and lives in
``programs``. PyTorch brings its own autograd and optimiser, in ``torch_program``; onnxruntime runs
a finished model and nothing else, in ``onnx_program``.

Libraries are imported only where they are used: one that is not installed is left out and named.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

import jlstm
from jlstm import Carry, LSTMParams
from jlstm.devices import over_devices

Family = Literal["ours", "jax", "torch", "onnxruntime"]
"""Whose it is: ours; a peer on JAX, what people write by hand included; PyTorch; onnxruntime."""


class Shape(NamedTuple):
    """The sizes of a problem, in the order in which they are written everywhere: T, B, D, H."""

    time: int
    batch: int
    input: int
    hidden: int

    def __str__(self) -> str:
        return f"({','.join(map(str, self))})"


class Layer(NamedTuple):
    """One LSTM layer of a library on JAX."""

    load: Callable[[LSTMParams], Any]
    """Our weights in the library's form."""
    unload: Callable[[Any], LSTMParams]
    """The gradient of those, back in our form."""
    apply: Callable[[Any, Carry, Array], tuple[Carry, Array]]
    """(weights, carry, xs) -> (carry, hs)."""
    step: Callable[[Any, Carry, Array], tuple[Carry, Array]]
    """(weights, carry, x) -> (carry, h), for streams."""
    batch_major: bool = False
    """xs and hs are [batch, time, ·], and are given and taken that way."""
    spread: bool = False
    """The batch lies in one part per device, as ``over_devices`` takes it; else on the first."""


class Contestant(NamedTuple):
    """One entry of the list."""

    name: str
    family: Family
    build: Callable[[Shape], Layer] | None
    """None: not on JAX, a program of its own for its family."""
    package: str | None = None
    """What has to be installed."""
    devices: int = 1
    """The batch is cut into as many parts; 0 for one part per device there is."""
    streams: bool = True
    """Whether its single step differs from that of those before it in the list."""
    derives: bool = True
    """Whether it finds gradients."""

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return self.package is None or find_spec(self.package) is not None


# Ours


def ours(shape: Shape, **options: Any) -> Layer:
    """``jlstm.lstm`` with these options; ``jlstm.cell`` for a single step."""
    return Layer(
        load=lambda params: params,
        unload=lambda d: d,
        apply=lambda params, carry, xs: jlstm.lstm(params, carry, xs, **options),
        step=jlstm.cell,
    )


def ours_over_cores(shape: Shape) -> Layer:
    """``jlstm.over_devices()``: the batch in one part per device, where it lies from the start."""
    return ours(shape)._replace(apply=over_devices(), spread=True)


def without_kernel(shape: Shape) -> str | None:
    """Why ``jlstm.lstm`` takes the scan here by itself; None where it takes its native kernel."""
    if jax.default_backend() != "cpu":
        return "it is for the CPU"
    params = jlstm.init_params(jax.random.key(0), shape.input, shape.hidden)
    xs = jax.ShapeDtypeStruct((shape.time, shape.batch, shape.input), params.w_ih.dtype)
    try:
        jax.eval_shape(lambda xs: jlstm.lstm(params, None, xs, implementation="native"), xs)
    except ValueError as error:
        return str(error)
    return None


# Peers on JAX


def plain_scan(shape: Shape) -> Layer:
    """``lax.scan`` of ``jlstm.cell``: what one writes by hand, its derivative left to JAX."""

    def apply(params: LSTMParams, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        return jax.lax.scan(partial(jlstm.cell, params), carry, xs)

    return ours(shape)._replace(apply=apply)


# Each library keeps its weights in its own form, so that what it does to them at every call (Flax
# concatenates the gates' kernels) is its own expense.


def _flat(w: Array) -> Array:
    """[·, 4, hidden] to [·, 4·hidden]."""
    return w.reshape(*w.shape[:-2], -1)


def _gated(w: Array) -> Array:
    """[·, 4·hidden] to [·, 4, hidden]."""
    return w.reshape(*w.shape[:-1], 4, -1)


def flax_linen(shape: Shape, rnn: Any = None) -> Layer:
    """``nn.RNN(nn.OptimizedLSTMCell(H))``; one kernel per gate, the bias with the recurrent one.

    ``rnn`` stands in for ``nn.RNN``.
    """
    import flax.linen as nn

    rnn = nn.RNN if rnn is None else rnn
    model = rnn(nn.OptimizedLSTMCell(shape.hidden), time_major=True, return_carry=True)
    cell = nn.OptimizedLSTMCell(shape.hidden)

    def load(params: LSTMParams) -> Any:
        inputs = {f"i{g}": {"kernel": params.w_ih[:, n]} for n, g in enumerate(jlstm.GATES)}
        hidden = {
            f"h{g}": {"kernel": params.w_hh[:, n], "bias": params.b[n]}
            for n, g in enumerate(jlstm.GATES)
        }
        return {"params": {"cell": inputs | hidden}}

    def unload(d: Any) -> LSTMParams:
        d = d["params"]["cell"]
        return LSTMParams(
            jnp.stack([d[f"i{g}"]["kernel"] for g in jlstm.GATES], axis=1),
            jnp.stack([d[f"h{g}"]["kernel"] for g in jlstm.GATES], axis=1),
            jnp.stack([d[f"h{g}"]["bias"] for g in jlstm.GATES]),
        )

    def apply(weights: Any, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        (c, h), hs = model.apply(weights, xs, initial_carry=(carry.c, carry.h))
        return Carry(h, c), hs

    def step(weights: Any, carry: Carry, x: Array) -> tuple[Carry, Array]:
        own = {"params": weights["params"]["cell"]}
        (c, h), out = cell.apply(own, (carry.c, carry.h), x)
        return Carry(h, c), out

    return Layer(load, unload, apply, step)


def flax_nnx(shape: Shape, rnn: Any = None) -> Layer:
    """``nnx.RNN(nnx.OptimizedLSTMCell(D, H))``, split once and merged inside the jitted function.

    That is what Flax's guide to performance advises: ``nnx.jit`` walks through the module at every
    call. ``rnn`` stands in for ``nnx.RNN``.
    """
    from flax import nnx

    cell = nnx.OptimizedLSTMCell(shape.input, shape.hidden, rngs=nnx.Rngs(0))
    rnn = nnx.RNN if rnn is None else rnn
    model = rnn(cell, time_major=True, return_carry=True)
    graph, _, rest = nnx.split(model, nnx.Param, ...)

    def load(params: LSTMParams) -> Any:
        cell.dense_i.kernel[...] = _flat(params.w_ih)
        cell.dense_h.kernel[...] = _flat(params.w_hh)
        cell.dense_h.bias[...] = _flat(params.b)
        return nnx.split(model, nnx.Param, ...)[1]

    def unload(d: Any) -> LSTMParams:
        d = d["cell"]
        leaves = d["dense_i"]["kernel"], d["dense_h"]["kernel"], d["dense_h"]["bias"]
        return LSTMParams(*(_gated(leaf[...]) for leaf in leaves))

    def apply(weights: Any, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        (c, h), hs = nnx.merge(graph, weights, rest)(xs, initial_carry=(carry.c, carry.h))
        return Carry(h, c), hs

    def step(weights: Any, carry: Carry, x: Array) -> tuple[Carry, Array]:
        (c, h), out = nnx.merge(graph, weights, rest).cell((carry.c, carry.h), x)
        return Carry(h, c), out

    return Layer(load, unload, apply, step)


def haiku(shape: Shape, dynamic_unroll: Any = None) -> Layer:
    """``hk.dynamic_unroll(hk.LSTM(H), …)``; gates i, g, f, o, and 1 added to f's preactivation.

    ``dynamic_unroll`` stands in for Haiku's.
    """
    import haiku as hk

    dynamic_unroll = hk.dynamic_unroll if dynamic_unroll is None else dynamic_unroll
    order = jnp.array([0, 2, 1, 3])  # i, f, g, o <-> i, g, f, o: its own inverse

    @hk.without_apply_rng
    @hk.transform
    def unroll(xs: Array, state: Any) -> Any:
        return dynamic_unroll(hk.LSTM(shape.hidden, name="lstm"), xs, state)

    @hk.without_apply_rng
    @hk.transform
    def once(x: Array, state: Any) -> Any:
        return hk.LSTM(shape.hidden, name="lstm")(x, state)

    def load(params: LSTMParams) -> Any:
        b = params.b.at[1].add(-1)  # Haiku adds it again
        w = jnp.concatenate([params.w_ih, params.w_hh])
        return {"lstm/linear": {"w": _flat(w[:, order]), "b": _flat(b[order])}}

    def unload(d: Any) -> LSTMParams:
        d = d["lstm/linear"]
        w = _gated(d["w"])[:, order]
        return LSTMParams(w[: shape.input], w[shape.input :], _gated(d["b"])[order])

    def run(call: Any, weights: Any, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        hs, state = call.apply(weights, xs, hk.LSTMState(carry.h, carry.c))
        return Carry(state.hidden, state.cell), hs

    return Layer(load, unload, partial(run, unroll), partial(run, once))


def equinox(shape: Shape) -> Layer:
    """``eqx.nn.LSTMCell`` in ``lax.scan`` for one sequence, and ``vmap`` of that."""
    import equinox as eqx

    def load(params: LSTMParams) -> Any:
        cell = eqx.nn.LSTMCell(
            shape.input, shape.hidden, dtype=params.w_ih.dtype, key=jax.random.key(0)
        )
        return eqx.tree_at(
            lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias),
            cell,
            (_flat(params.w_ih).T, _flat(params.w_hh).T, _flat(params.b)),
        )

    def unload(d: Any) -> LSTMParams:
        return LSTMParams(*map(_gated, (d.weight_ih.T, d.weight_hh.T, d.bias)))

    def sequence(cell: Any, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        def body(state: Any, x: Array) -> tuple[Any, Array]:
            state = cell(x, state)
            return state, state[0]

        state, hs = jax.lax.scan(body, tuple(carry), xs)
        return Carry(*state), hs

    def one(cell: Any, carry: Carry, x: Array) -> tuple[Carry, Array]:
        h, c = cell(x, tuple(carry))
        return Carry(h, c), h

    return Layer(
        load,
        unload,
        apply=jax.vmap(sequence, in_axes=(None, 0, 1), out_axes=(0, 1)),
        step=jax.vmap(one, in_axes=(None, 0, 0)),
    )


def keras(shape: Shape) -> Layer:
    """``keras.layers.LSTM(H)`` on the JAX backend, called statelessly; batch before time."""
    import keras

    if keras.backend.backend() != "jax":
        raise RuntimeError(f"Keras runs on {keras.backend.backend()}: set KERAS_BACKEND=jax")
    layer = keras.layers.LSTM(shape.hidden, return_sequences=True, return_state=True)
    layer.build((None, None, shape.input))
    cell = keras.layers.LSTMCell(shape.hidden)
    cell.build((None, shape.input))
    layer_rest = [v.value for v in layer.non_trainable_variables]
    cell_rest = [v.value for v in cell.non_trainable_variables]

    def apply(weights: Any, carry: Carry, xs: Array) -> tuple[Carry, Array]:
        (hs, h, c), _ = layer.stateless_call(weights, layer_rest, xs, initial_state=list(carry))
        return Carry(h, c), hs

    def step(weights: Any, carry: Carry, x: Array) -> tuple[Carry, Array]:
        (out, (h, c)), _ = cell.stateless_call(weights, cell_rest, x, list(carry))
        return Carry(h, c), out

    return Layer(
        load=lambda params: [_flat(w) for w in params],
        unload=lambda d: LSTMParams(*map(_gated, d)),
        apply=apply,
        step=step,
        batch_major=True,
    )


REFERENCE = Contestant("jlstm", "ours", ours)
"""Whose answers the others' are held against."""
SCAN = Contestant("jlstm scan", "ours", partial(ours, implementation="xla"), streams=False)
"""Without the native kernel."""
PLAIN = Contestant("autodiff", "jax", plain_scan, streams=False)

CONTESTANTS = (
    REFERENCE,
    SCAN,
    Contestant("jlstm carry", "ours", partial(ours, residuals="carry"), streams=False),
    Contestant("jlstm chunks", "ours", partial(ours, residuals="chunks"), streams=False),
    Contestant("jlstm cores", "ours", ours_over_cores, devices=0, streams=False),
    PLAIN,
    Contestant("flax linen", "jax", flax_linen, "flax"),
    Contestant("flax nnx", "jax", flax_nnx, "flax"),
    Contestant("haiku", "jax", haiku, "haiku"),
    Contestant("equinox", "jax", equinox, "equinox"),
    Contestant("keras", "jax", keras, "keras"),
    Contestant("torch", "torch", None, "torch"),
    Contestant("onnxruntime", "onnxruntime", None, "onnxruntime", derives=False),
)
