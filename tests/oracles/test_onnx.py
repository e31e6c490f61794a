"""The LSTM operator of ONNX, run by onnxruntime: ``lstm`` and ``stack`` agree with all it can do.

A model of one such node is made for each case. ONNX keeps a weight as ``[directions, 4 · hidden,
input]`` with the gates in the order i, o, f, c, the peepholes in the order i, o, f, and two biases
that add up. Its list of activations is, for each direction, that of the gates (f), the candidate
(g) and the output (h).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from onnx_witness import ACTIVATIONS, TOLERANCE, onnx, run_model
from witness import Array, assert_agree

import jlstm
from jlstm import activations
from jlstm.layers import LayerParams, Stack, stack
from jlstm.variants import Variant, VariantParams

TIME, BATCH, INPUT, HIDDEN = 6, 4, 3, 5
LENGTHS = np.array([2, 6, 1, 5], np.int32)

# Ours are i, f, g, o.
TO_ONNX = [0, 3, 1, 2]
PEEPHOLES_TO_ONNX = [0, 2, 1]
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


class Weights(NamedTuple):
    """One layer's, for each of its directions; in float32, with ours for the axes."""

    w_ih: Array  # [directions, input, 4, hidden]
    w_hh: Array  # [directions, hidden, 4, hidden]
    b: Array | None  # [directions, 2, 4, hidden]
    peepholes: Array | None  # [directions, 3, hidden]
    h0: Array | None  # [directions, batch, hidden]
    c0: Array | None


def draw_weights(
    directions: int,
    seed: int = 0,
    *,
    input_size: int = INPUT,
    bias: bool = True,
    peepholes: bool = False,
    carry: bool = True,
) -> Weights:
    """Normal entries, of a scale that keeps the gates off both their linear and flat range."""
    draw = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> Array:
        return (scale * draw.standard_normal((directions, *shape))).astype(np.float32)

    return Weights(
        w_ih=normal(input_size, 4, HIDDEN, scale=0.6),
        w_hh=normal(HIDDEN, 4, HIDDEN, scale=0.5),
        b=normal(2, 4, HIDDEN, scale=0.5) if bias else None,
        peepholes=normal(3, HIDDEN, scale=1.0) if peepholes else None,
        h0=normal(BATCH, HIDDEN, scale=1.0) if carry else None,
        c0=normal(BATCH, HIDDEN, scale=1.0) if carry else None,
    )


def draw_xs(seed: int = 9) -> Array:
    """Inputs, ``[time, batch, input]``."""
    return np.random.default_rng(seed).standard_normal((TIME, BATCH, INPUT)).astype(np.float32)


def named(hs: Any, h: Any, c: Any) -> dict[str, Array]:
    """Results as ``assert_agree`` takes them."""
    return {"hs": np.asarray(hs), "h": np.asarray(h), "c": np.asarray(c)}


# By onnxruntime


def run_onnx(
    layers: list[Weights], xs: Array, direction: str, lengths: Array | None, **attributes: Any
) -> dict[str, Array]:
    """hs ``[time, batch, directions · hidden]``; h and c ``[layers · directions, batch, hidden]``.

    One node for each layer; between them what they give, ``[time, directions, batch, hidden]``, is
    laid side by side.
    """
    nodes, given, results = [], {"xs": xs}, []
    for n, weights in enumerate(layers):
        inputs = {
            "W": _stacked(weights.w_ih),
            "R": _stacked(weights.w_hh),
            "B": None if weights.b is None else _in_rows(weights.b[:, :, TO_ONNX]),
            "lengths": lengths,
            "h0": weights.h0,
            "c0": weights.c0,
            "P": None
            if weights.peepholes is None
            else _in_rows(weights.peepholes[:, PEEPHOLES_TO_ONNX]),
        }
        inputs = {f"{name}{n}": array for name, array in inputs.items()}
        given |= {name: array for name, array in inputs.items() if array is not None}
        names = [name if array is not None else "" for name, array in inputs.items()]
        nodes += [
            onnx.helper.make_node(
                "LSTM",
                ["xs" if n == 0 else f"hs{n - 1}", *names],
                [f"Y{n}", f"h{n}", f"c{n}"],
                hidden_size=HIDDEN,
                direction=direction,
                **attributes,
            ),
            onnx.helper.make_node("Transpose", [f"Y{n}"], [f"beside{n}"], perm=[0, 2, 1, 3]),
            onnx.helper.make_node("Reshape", [f"beside{n}", "shape"], [f"hs{n}"]),
        ]
        results += [f"h{n}", f"c{n}"]
    given["shape"] = np.array([TIME, BATCH, DIRECTIONS[direction] * HIDDEN])
    hs, *carries = _run(nodes, given, [f"hs{len(layers) - 1}", *results])
    return named(hs, np.concatenate(carries[::2]), np.concatenate(carries[1::2]))


def _stacked(w: Array) -> Array:
    """``[directions, input, 4, hidden]`` as ONNX has it."""
    return np.moveaxis(w[:, :, TO_ONNX], 1, -1).reshape(len(w), 4 * HIDDEN, -1)


def _in_rows(a: Array) -> Array:
    return a.reshape(len(a), -1)


def _run(nodes: list[Any], given: dict[str, Array], results: list[str]) -> list[Array]:
    helper, kind = onnx.helper, onnx.TensorProto
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], given[name].shape) for name in given]
    outputs = [helper.make_tensor_value_info(name, kind.FLOAT, [None] * 3) for name in results]
    graph = helper.make_graph(nodes, "lstm", inputs, outputs)
    # Versions that are old enough for any onnxruntime; the operator has not changed since.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return run_model(model, given, results)


# By jlstm


def run_ours(
    layers: list[Weights],
    xs: Array,
    direction: str,
    lengths: Array | None,
    gates: Variant,
    *,
    derived: bool = True,
) -> dict[str, Array]:
    """The same, by ``lstm`` or ``stack``, in float64.

    ``derived``: as the forward pass that goes with the derivative by hand, which is written down on
    its own; else as where no gradient is asked for.
    """
    params = tuple(LayerParams(*_both(_params(w, gates))) for w in layers)
    carries = None if layers[0].h0 is None else tuple(map(_carries, layers))

    def run(params: Any, carries: Any, xs: Any) -> Any:
        if direction == "reverse":  # of one layer, which is what ``lstm`` is
            carry = None if carries is None else carries[0]
            carry, hs = jlstm.lstm(
                params[0].forward, carry, xs, gates=gates, lengths=lengths, reverse=True
            )
            return [carry], hs
        both = direction == "bidirectional"
        config = Stack(sizes=[HIDDEN] * len(layers), gates=gates, bidirectional=both)
        return stack(config, params, carries, xs, lengths=lengths)

    def run_derived(*primals: Any) -> Any:
        return jax.vjp(run, *primals)[0]

    primals = jax.tree.map(lambda a: jnp.asarray(a, float), (params, carries, xs))
    carries, hs = jax.jit(run_derived if derived else run)(*primals)
    walks = jax.tree.leaves(carries, is_leaf=lambda leaf: isinstance(leaf, jlstm.Carry))
    return named(hs, [walk.h for walk in walks], [walk.c for walk in walks])


def _both(ways: list[Any]) -> list[Any]:
    return [*ways, None][:2]


def _params(w: Weights, gates: Variant) -> list[VariantParams]:
    """A layer's weights for each direction; without f where it is coupled, as it has none then."""
    blocks, peeps = ([0, 2, 3], [0, 2]) if gates.coupled else ([0, 1, 2, 3], [0, 1, 2])
    return [
        VariantParams(
            w_ih=w.w_ih[way][:, blocks],
            w_hh=w.w_hh[way][:, blocks],
            b=None if w.b is None else w.b[way].astype(float).sum(axis=0)[blocks],
            peepholes=None if w.peepholes is None else w.peepholes[way][peeps],
        )
        for way in range(len(w.w_ih))
    ]


def _carries(w: Weights) -> Any:
    assert w.h0 is not None
    assert w.c0 is not None
    ways = tuple(jlstm.Carry(h, c) for h, c in zip(w.h0, w.c0, strict=True))
    return ways if len(ways) == 2 else ways[0]


# The cases: one option, or several. What is written for ours is also what ONNX has to be told.

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_bias": {"bias": False},
    "from_zeros": {"carry": False},
    "peepholes": {"peepholes": True},
    "coupled": {"coupled": True},
    "clip": {"clip": 0.5},
    "coupled_peepholes": {"coupled": True, "peepholes": True},
    "peepholes_clip": {"peepholes": True, "clip": 0.7},
    "everything": {"peepholes": True, "coupled": True, "clip": 0.6, "bias": False},
}


def assert_both_agree(
    options: dict[str, Any],
    direction: str,
    lengths: Array | None,
    *,
    layers: int = 1,
    derived: bool = True,
) -> None:
    """One case by onnxruntime and by jlstm."""
    options = dict(options)
    coupled, clip = options.pop("coupled", False), options.pop("clip", None)
    ways, xs = DIRECTIONS[direction], draw_xs()
    weights = [
        draw_weights(ways, n, input_size=ways * HIDDEN if n else INPUT, **options)
        for n in range(layers)
    ]
    told = {"input_forget": int(coupled)} | ({} if clip is None else {"clip": clip})
    gates = Variant(peepholes=options.get("peepholes", False), coupled=coupled, preact_clip=clip)
    assert_agree(
        run_ours(weights, xs, direction, lengths, gates, derived=derived),
        run_onnx(weights, xs, direction, lengths, **told),
        TOLERANCE,
    )


@pytest.mark.parametrize("derived", [False, True], ids=["as it is", "derived"])
@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_in_both_directions_over_lengths(option: str, derived: bool) -> None:
    assert_both_agree(OPTIONS[option], "bidirectional", LENGTHS, derived=derived)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("option", ["plain", "peepholes_clip", "everything"])
def test_each_direction(option: str, direction: str, lengths: Array | None) -> None:
    assert_both_agree(OPTIONS[option], direction, lengths)


@pytest.mark.parametrize("option", ["plain", "coupled_peepholes"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_layer_upon_layer(direction: str, option: str) -> None:
    assert_both_agree(OPTIONS[option], direction, LENGTHS, layers=2)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_sequence_of_no_steps(direction: str) -> None:
    """Ours returns the carry that it was given, onnxruntime zeros; all else is the same."""
    weights, xs, lengths = draw_weights(1), draw_xs(), np.array([3, 0, 6, 1], np.int32)
    ours = run_ours([weights], xs, direction, lengths, Variant())
    theirs = run_onnx([weights], xs, direction, lengths)
    assert weights.h0 is not None
    assert weights.c0 is not None
    assert not theirs["h"][0, 1].any()
    assert not theirs["c"][0, 1].any()
    theirs["h"][0, 1], theirs["c"][0, 1] = weights.h0[0, 1], weights.c0[0, 1]
    assert_agree(ours, theirs, TOLERANCE)


@pytest.mark.parametrize("role", ["gate", "candidate", "output"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_in_each_place(name: str, role: str) -> None:
    roles = {"gate": "Sigmoid", "candidate": "Tanh", "output": "Tanh"} | {role: name}
    assert_activations_agree(list(roles.values()))


def test_three_activations_with_constants() -> None:
    """Each takes its own from ONNX's two lists, in which those with none have no place."""
    assert_activations_agree(["HardSigmoid", "Elu", "ScaledTanh"])


@pytest.mark.parametrize("name", ["HardSigmoid", "LeakyRelu"])
def test_what_onnx_takes_where_no_constants_are_given(name: str) -> None:
    """The constants by default are ours, too."""
    ours = {"HardSigmoid": activations.hard_sigmoid(), "LeakyRelu": activations.leaky_relu()}
    assert_activations_agree(["Sigmoid", name, "Tanh"], {"candidate": ours[name]})


def assert_activations_agree(names: list[str], default: dict[str, Any] | None = None) -> None:
    """One forward layer with f, g and h of these names; ``default``: what is not to be told."""
    weights, xs = draw_weights(1), draw_xs()
    roles = dict(zip(("gate", "candidate", "output"), map(ACTIVATIONS.get, names), strict=True))
    told: dict[str, Any] = {"activations": names}
    constants = [one.constants for one in roles.values()] if default is None else []
    for place, attribute in enumerate(("activation_alpha", "activation_beta")):
        if values := [pair[place] for pair in constants if len(pair) > place]:
            told[attribute] = values
    assert_agree(
        run_ours([weights], xs, "forward", None, Variant(**roles | (default or {}))),
        run_onnx([weights], xs, "forward", None, **told),
        TOLERANCE,
    )
