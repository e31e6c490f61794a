"""Stacks as models of ONNX and LSTM nodes of ONNX as stacks, held against onnxruntime."""

import os
import sys
from copy import deepcopy
from functools import partial
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from onnx_witness import ACTIVATIONS, TOLERANCE, onnx, run_model, session_of
from witness import Array, assert_agree

from jlstm import PLAIN, SLSTM, Carry, Stack, Variant, activations, init_stack
from jlstm.interop.onnx import add_lengths, add_stack, from_onnx, to_onnx
from jlstm.layers import batch_major, stack

helper, numpy_helper = onnx.helper, onnx.numpy_helper

TIME, BATCH, INPUT = 6, 4, 3
LENGTHS = np.array([2, 6, 0, 5], np.int32)

OTHERS = Variant(
    gate=activations.hard_sigmoid(0.3, 0.4),
    candidate=activations.elu(0.7),
    output=activations.scaled_tanh(1.3, 0.6),
)
CONFIGS = {
    "one layer": Stack(sizes=5),
    "chain": Stack(sizes=(5, 4, 2), dropout=0.2),
    "residual": Stack(sizes=(4, 4, 4), connections="residual", learned_carry=True),
    "skip": Stack(sizes=(5, 4, 2), connections="skip"),
    "reverse": Stack(sizes=(5, 2), reverse=True, learned_carry=True),
    "two ways": Stack(sizes=(2, 5), bidirectional=True, learned_carry=True),
    "two ways, residual": Stack(sizes=(2, 2), bidirectional=True, connections="residual"),
    "two ways, skip": Stack(sizes=(2, 5), bidirectional=True, connections="skip"),
    "peepholes": Stack(sizes=(5, 4), gates=Variant(peepholes=True)),
    "clip": Stack(sizes=5, gates=Variant(preact_clip=0.5), reverse=True),
    "activations": Stack(sizes=(5, 2), gates=(PLAIN, OTHERS)),
    "activations of each way": Stack(
        sizes=5, gates=[(OTHERS, Variant(output=activations.relu))], bidirectional=True
    ),
    "coupled": Stack(
        sizes=(2, 5), gates=Variant(coupled=True, peepholes=True), bidirectional=True
    ),
}  # fmt: skip
# What a node cannot say, and the operators around it do.
COMPOSED = {
    "identity": Stack(sizes=5, gates=Variant(output=activations.identity)),
    "forget offset": Stack(sizes=5, gates=Variant(forget_offset=1.5)),
    "projection": Stack(sizes=(5, 4), output_sizes=2, gates=Variant(state_dropout=0.3)),
    "projection, two ways": Stack(
        sizes=(5, 4),
        output_sizes=(3, None),
        gates=(Variant(coupled=True, peepholes=True), PLAIN),
        bidirectional=True,
        learned_carry=True,
    ),
}


def random_like(seed: int, tree: Any, scale: float = 0.6) -> Any:
    """Normal entries in float32, all of them: biases, peepholes and learned carries, too."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: np.float32(scale * draw.standard_normal(a.shape)), tree)


def params_of(config: Stack, seed: int = 0, width: int = INPUT, **options: Any) -> Any:
    init = partial(init_stack, input_size=width, config=config, **options)
    return random_like(seed, jax.eval_shape(init, jax.random.key(0)))


def draw_xs(time: int = TIME, batch: int = BATCH, width: int = INPUT) -> Array:
    return np.float32(np.random.default_rng(9).standard_normal((time, batch, width)))


def carry_of(config: Stack, params: Any, batch: int = BATCH) -> Any:
    """A carry, random, in the form that ``stack`` has it."""
    _, carry = run_ours(config, params, draw_xs(batch=batch))
    return random_like(3, carry, scale=1.0)


def run_ours(config: Stack, params: Any, xs: Array, carry: Any = None, lengths: Any = None) -> Any:
    """(hs, carry) by ``stack``, in float64."""
    arrays = jax.tree.map(lambda a: jnp.asarray(a, float), (params, carry, xs))
    run = jax.jit(partial(stack, config.without_noise(), lengths=lengths))
    carry, hs = run(*arrays)
    return hs, carry


def named(config: Stack, hs: Any, carry: Any, suffix: str = "_last") -> dict[str, Array]:
    """As the model names them."""
    answer = {} if hs is None else {"hs": np.asarray(hs)}
    for n, ways in enumerate(carry or ()):
        ways = ways if config.bidirectional else (ways,)
        for field in Carry._fields:
            joined = np.stack([np.asarray(getattr(way, field)) for way in ways])
            answer[f"{field}_{n}{suffix}"] = joined
    return answer


def run_session(session: Any, given: dict[str, Array]) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


# Export


@pytest.mark.parametrize("config", (CONFIGS | COMPOSED).values(), ids=CONFIGS | COMPOSED)
def test_a_stack_in_onnxruntime(config: Stack) -> None:
    """With all inputs, and with none but xs; lengths of 0 included, time and batch changed."""
    params = params_of(config)
    session = session_of(to_onnx(config, params))
    xs, carry = draw_xs(), carry_of(config, params)
    told = {"xs": xs, "lengths": LENGTHS, **named(config, None, carry, suffix="")}
    ours = named(config, *run_ours(config, params, xs, carry, LENGTHS))
    assert_agree(run_session(session, told), ours, TOLERANCE)
    xs = draw_xs(time=2, batch=5)
    ours = named(config, *run_ours(config, params, xs))
    assert_agree(run_session(session, {"xs": xs}), ours, TOLERANCE)


def test_what_has_a_batch_of_1_holds_for_all() -> None:
    config = CONFIGS["two ways"]
    params, xs = params_of(config), draw_xs()
    one = carry_of(config, params, batch=1)
    told = {"xs": xs, "lengths": np.array([4], np.int32), **named(config, None, one, suffix="")}
    same = jax.tree.map(lambda a: np.repeat(a, BATCH, axis=0), one)
    ours = named(config, *run_ours(config, params, xs, same, np.full(BATCH, 4)))
    assert_agree(run_session(session_of(to_onnx(config, params)), told), ours, TOLERANCE)


@pytest.mark.parametrize("time", [0, 1])
def test_hardly_any_steps(time: int) -> None:
    config = CONFIGS["residual"]
    params, xs = params_of(config), draw_xs(time=time)
    ours = named(config, *run_ours(config, params, xs))
    told = {"xs": xs, "lengths": np.full(BATCH, time, np.int32)}
    assert_agree(run_session(session_of(to_onnx(config, params)), told), ours, TOLERANCE)


@pytest.mark.parametrize(
    "name", ["residual", "two ways, skip", "peepholes", "projection", "forget offset"]
)
def test_in_float64_to_rounding(name: str) -> None:
    """By ONNX's own evaluator, which knows weights and peepholes, but not lengths."""
    config = (CONFIGS | COMPOSED)[name]
    params = jax.tree.map(lambda a: np.asarray(a, float), params_of(config))
    model = to_onnx(config, params)
    onnx.checker.check_model(model, full_check=True)
    xs, carry = draw_xs().astype(float), carry_of(config, params)
    told = {"xs": xs, "lengths": np.full(BATCH, TIME, np.int32)}
    told |= {k: v.astype(float) for k, v in named(config, None, carry, suffix="").items()}
    session = onnx.reference.ReferenceEvaluator(model)
    theirs = dict(zip(session.output_names, session.run(None, told), strict=True))
    ours = named(config, *run_ours(config, params, xs, carry))
    # Eps is 2e-16; the pseudo-inverse of a random P multiplies that by up to 10.
    assert_agree(theirs, ours, 1e-13 if name == "projection" else 1e-14)


@pytest.mark.parametrize(
    "config",
    [
        Stack(sizes=(128, 128)),
        Stack(sizes=(96, 128), bidirectional=True, gates=Variant(coupled=True)),
        Stack(sizes=128, output_sizes=64, gates=Variant()),
    ],
    ids=["plain", "coupled", "projection"],
)
def test_the_file_is_little_larger_than_the_weights(config: Stack) -> None:
    params = params_of(config, width=64)
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert weights < len(to_onnx(config, params).SerializeToString()) < 1.2 * weights


def test_layers_are_native_nodes() -> None:
    model = to_onnx(CONFIGS["two ways"], params_of(CONFIGS["two ways"]))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("LSTM") == 2
    assert not {"Loop", "Scan", "Tanh", "Sigmoid"} & set(kinds)


def test_a_whole_model_around_two_stacks() -> None:
    """An embedding, a stack, a second one without carries, and a readout."""
    first, second = CONFIGS["chain"], Stack(sizes=(3,), bidirectional=True, learned_carry=True)
    params = params_of(first)
    above = random_like(5, jax.eval_shape(lambda: init_stack(jax.random.key(0), 2, second)))
    table, readout = random_like(6, (np.empty((7, INPUT)), np.empty((6, 7))))
    graph = onnx.GraphProto(name="tokens")
    tokens = helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["time", "batch"])
    scores = helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["time", "batch", 7])
    graph.input.append(tokens)
    graph.output.append(scores)
    for name, array in (("table", table), ("readout", readout)):
        graph.initializer.append(numpy_helper.from_array(array, name))
    graph.node.append(helper.make_node("Gather", ["table", "tokens"], ["xs"]))
    lengths = add_lengths(graph, "xs", "steps")
    add_stack(graph, first, params, "xs", "hs", lengths=lengths, prefix="first_")
    add_stack(graph, second, above, "hs", "ys", lengths=lengths, carries=False, prefix="second_")
    graph.node.append(helper.make_node("MatMul", ["ys", "readout"], ["scores"]))
    opset = helper.make_opsetid("", 17)
    session = session_of(helper.make_model(graph, opset_imports=[opset], ir_version=8))
    assert [i.name for i in session.get_inputs()] == ["tokens"]
    ids = np.random.default_rng(1).integers(0, 7, (TIME, BATCH))
    hs, carry = run_ours(first, params, table[ids], lengths=LENGTHS)
    ys, _ = run_ours(second, above, np.asarray(hs), lengths=LENGTHS)
    ours = {f"first_{name}": a for name, a in named(first, None, carry).items()}
    ours["scores"] = np.asarray(ys @ readout.astype(float))
    assert_agree(run_session(session, {"tokens": ids, "steps": LENGTHS}), ours, TOLERANCE)


def test_half_precision() -> None:
    config, xs = CONFIGS["chain"], draw_xs()
    params = jax.tree.map(np.float16, params_of(config))
    session = session_of(to_onnx(config, params))
    theirs = run_session(session, {"xs": xs.astype(np.float16)})
    # Eps is 1e-3.
    assert_agree(theirs, named(config, *run_ours(config, params, xs.astype(np.float16))), 5e-3)
    assert theirs["hs"].dtype == np.float16


def said_by(function: Any, *args: Any, **options: Any) -> str:
    with pytest.raises((TypeError, ValueError)) as error:
        function(*args, **options)
    assert error.type in (TypeError, ValueError)
    return f"{error.type.__name__}: {error.value}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gates": Variant(layer_norm=True)}, "layer_norm: expected what ONNX's LSTM can"),
        ({"gates": Variant(cell_clip=1)}, "cell_clip: expected what ONNX's LSTM can"),
        ({"gates": Variant(zoneout_h=0.1)}, "zoneout_h: expected what ONNX's LSTM can"),
        ({"gates": Variant(zoneout_c=0.1)}, "zoneout_c: expected what ONNX's LSTM can"),
        (
            {"gates": Variant(projection_clip=1), "output_sizes": 2},
            "projection_clip: expected what ONNX's LSTM can",
        ),
        ({"gates": SLSTM()}, "gates: expected what ONNX's LSTM can represent (an LSTM), got"),
        (
            {"gates": Variant(candidate=activations.activation(jnp.sin))},
            "layer 0, candidate: expected what ONNX's LSTM can represent (one of Sigmoid, T",
        ),
        (
            {"gates": [(Variant(preact_clip=1), Variant())], "bidirectional": True},
            "layer 0, preact_clip: expected what ONNX's LSTM can represent (one for both",
        ),
        (
            {"gates": Variant(), "output_sizes": 5},
            "layer 0, w_hr: expected what ONNX's LSTM can represent (the carry given is",
        ),
    ],
)
def test_what_cannot_be_exported(options: dict[str, Any], message: str) -> None:
    config = Stack(**{"sizes": 4} | options)
    assert said_by(to_onnx, config, params_of(config)).startswith(f"ValueError: {message}")


def test_what_is_not_exported_leaves_the_graph_as_it_was() -> None:
    config, graph = Stack(sizes=4, gates=Variant(layer_norm=True)), onnx.GraphProto()
    said_by(add_stack, graph, config, params_of(config), "xs", "hs")
    assert graph == onnx.GraphProto()


def test_dependent_columns_of_a_projection_matter_only_where_a_carry_is_given() -> None:
    config = Stack(sizes=2, output_sizes=5, gates=Variant())
    params, graph = params_of(config), onnx.GraphProto(name="wide")
    float_kind, shape = onnx.TensorProto.FLOAT, ["time", "batch"]
    graph.input.append(helper.make_tensor_value_info("xs", float_kind, [*shape, INPUT]))
    graph.output.append(helper.make_tensor_value_info("hs", float_kind, [*shape, 5]))
    add_stack(graph, config, params, "xs", "hs", carries=False)
    opset = helper.make_opsetid("", 14)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    hs, _ = run_ours(config, params, draw_xs())
    theirs = run_session(session_of(model), {"xs": draw_xs()})
    assert_agree(theirs, {"hs": np.asarray(hs)}, TOLERANCE)


CHAIN = CONFIGS["chain"]
PARAMS = params_of(CHAIN)


@pytest.mark.parametrize(
    ("config", "params", "message"),
    [
        (None, PARAMS, "TypeError: stack: expected Stack, got NoneType"),
        (CHAIN, PARAMS[0], "TypeError: params: expected a tuple of LayerParams"),
        (CHAIN, PARAMS[:2], "ValueError: params: expected one for each of 3 layers, got 2"),
        (Stack(sizes=(5, 4, 3)), PARAMS, "ValueError: params[2].forward: expected 3 units"),
        (
            CHAIN,
            [p._replace(start=()) for p in PARAMS],
            "ValueError: params[0].start: expected None by the stack",
        ),
        (
            CHAIN,
            (PARAMS[0], *jax.tree.map(np.float64, PARAMS[1:])),
            "TypeError: params[1].forward.w_ih: expected dtype float32",
        ),
        (
            CHAIN,
            jax.tree.map(jnp.bfloat16, PARAMS),
            "TypeError: params: expected float16, float32, float64, as ONNX's LSTM of opset 14",
        ),
    ],
)
def test_bad_weights_are_named(config: Any, params: Any, message: str) -> None:
    assert said_by(to_onnx, config, params).startswith(message)


# There and back


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_there_and_back_bit_for_bit(config: Stack, bias: bool) -> None:
    params = params_of(config, bias=bias)
    if bias:
        params[0].forward.b[:] = -0.0
    nodes = range(len(params)) if len(params) > 1 else None
    again, weights = from_onnx(to_onnx(config, params), nodes, connections=config.connections)
    assert again == Stack(**vars(config) | {"dropout": 0.0})
    assert jax.tree.structure(weights) == jax.tree.structure(params)
    for there, back in zip(jax.tree.leaves(params), jax.tree.leaves(weights), strict=True):
        assert (there.dtype, there.shape) == (back.dtype, back.shape)
        assert there.tobytes() == back.tobytes()


@pytest.mark.parametrize("name", ["identity", "forget offset"])
def test_there_and_back_in_other_words(name: str) -> None:
    config = COMPOSED[name]
    params = params_of(config)
    again, weights = from_onnx(to_onnx(config, params))
    ours, theirs = (run_ours(c, p, draw_xs()) for c, p in ((config, params), (again, weights)))
    # The offset is added to the bias in float32.
    assert_agree(named(again, *theirs), named(config, *ours), 1e-6)


# Import


def model_of(node: Any, inputs: dict[str, Any], stored: dict[str, Array], **options: Any) -> Any:
    """A model of one node; what it outputs may be of any shape."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    infos = [helper.make_tensor_value_info(n, kinds[n], a.shape) for n, a in inputs.items()]
    kind = next(iter(kinds.values()))
    outputs = [helper.make_tensor_value_info(n, kind, [None] * (4 - k)) for k, n in
               enumerate(node.output[:2]) if n]  # fmt: skip
    if len(node.output) > 2:
        outputs.append(helper.make_tensor_value_info(node.output[2], kind, [None] * 3))
    arrays = [numpy_helper.from_array(a, n) for n, a in stored.items()]
    graph = helper.make_graph([node], "one", infos, outputs, arrays)
    opset = helper.make_opsetid("", options.get("opset", 14))
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def package_cases() -> dict[str, tuple[Any, list[Array], list[Array]]]:
    """The node tests of the onnx package: (node, what goes in, what comes out) by name."""
    from onnx.backend.test.case.node import lstm

    cases = {}

    def expect(node: Any, inputs: Any, outputs: Any, name: str, **_: Any) -> None:
        cases[name] = node, inputs, outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lstm, "expect", expect)
        for name in dir(lstm.LSTM):
            if name.startswith("export"):
                getattr(lstm.LSTM, name)()
    return cases


CASES = package_cases()


@pytest.mark.parametrize("name", CASES)
def test_the_package_s_own_node_tests(name: str) -> None:
    node, inputs, outputs = CASES[name]
    arrays = dict(zip(filter(None, node.input), inputs, strict=True))
    names = dict(zip(("x", "w", "r", "b", "lengths", "h", "c", "p"), node.input, strict=False))
    dynamic = {names.get(k) for k in ("x", "lengths", "h", "c")} - {None, ""}
    stored = {k: a for k, a in arrays.items() if k not in dynamic}
    given = {k: a for k, a in arrays.items() if k in dynamic}
    config, params = from_onnx(model_of(node, given, stored))
    layout = {a.name: a.i for a in node.attribute}.get("layout", 0)
    run = partial(stack, config, lengths=arrays.get(names.get("lengths")))
    carry = None
    if names.get("h"):
        ways = [
            Carry(*(jnp.asarray(arrays[names[k]], float)[way] for k in "hc"))
            for way in range(1 + config.bidirectional)
        ]
        carry = (tuple(ways) if config.bidirectional else ways[0],)
    params, xs = jax.tree.map(lambda a: jnp.asarray(a, float), (params, arrays[names["x"]]))
    carry, hs = (batch_major(run) if layout else run)(params, carry, xs)
    ways = carry[0] if config.bidirectional else (carry[0],)
    apart = jnp.stack(jnp.split(hs, len(ways), axis=-1), axis=2)
    results = {
        "Y": apart if layout else jnp.swapaxes(apart, 1, 2),
        "Y_h": jnp.stack([way.h for way in ways], axis=1 if layout else 0),
        "Y_c": jnp.stack([way.c for way in ways], axis=1 if layout else 0),
    }
    made = [result for result, n in zip(results, node.output, strict=False) if n]
    expected = dict(zip(made, outputs, strict=True))
    # Theirs are computed in float32.
    ours = {k: np.asarray(results[k]) for k in made}
    assert_agree(ours, expected, TOLERANCE)
    assert len(CASES) >= 5


@st.composite
def random_nodes(draw: Any) -> Any:
    """(node, what goes in, what is stored), of everything that the operator takes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    ways = 2 if direction == "bidirectional" else 1
    hidden, width = draw(st.integers(1, 4)), draw(st.integers(1, 3))

    def normal(*shape: int) -> Array:
        return np.float32(0.6 * rng.standard_normal(shape))

    inputs, stored = {"X": draw_xs(width=width)}, {}
    stored["W"], stored["R"] = normal(ways, 4 * hidden, width), normal(ways, 4 * hidden, hidden)
    if draw(st.booleans()):
        stored["B"] = normal(ways, 8 * hidden)
    if draw(st.booleans()):
        stored["P"] = normal(ways, 3 * hidden)
    if draw(st.booleans()):
        inputs["lengths"] = rng.integers(1, TIME + 1, BATCH).astype(np.int32)
    if draw(st.booleans()):
        inputs["h"], inputs["c"] = normal(ways, BATCH, hidden), normal(ways, BATCH, hidden)
    told: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if draw(st.booleans()):
        told["input_forget"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        told["clip"] = draw(st.sampled_from([0.3, 0.9, 5.0]))
    if draw(st.booleans()):
        # Gates that are limited, or numbers would grow beyond all others.
        limited = st.sampled_from(["Sigmoid", "HardSigmoid", "Softsign", "Tanh", "ScaledTanh"])
        each = [limited, st.sampled_from([*ACTIVATIONS]), st.sampled_from([*ACTIVATIONS])]
        names = [draw(one) for one in each * ways]
        constants = [ACTIVATIONS[name].constants for name in names]
        told["activations"] = [draw(st.sampled_from([n, n.lower(), n.upper()])) for n in names]
        for place, key in enumerate(("activation_alpha", "activation_beta")):
            if values := [c[place] for c in constants if len(c) > place]:
                told[key] = values
    present = {*inputs, *stored}
    places = ["X", "W", "R", "B", "lengths", "h", "c", "P"]
    names = [name if name in present else "" for name in places]
    return helper.make_node("LSTM", names, ["Y", "Yh", "Yc"], name="it", **told), inputs, stored


@given(random_nodes())
def test_random_nodes_in_onnxruntime(case: Any) -> None:
    node, inputs, stored = case
    model = model_of(node, inputs, stored)
    y, h, c = run_model(model, inputs, ["Y", "Yh", "Yc"])
    config, params = from_onnx(model, "it")
    carry = None
    if "h" in inputs:
        ways = tuple(Carry(*way) for way in zip(inputs["h"], inputs["c"], strict=True))
        carry = (ways if config.bidirectional else ways[0],)
    ours = named(config, *run_ours(config, params, inputs["X"], carry, inputs.get("lengths")))
    hs = np.moveaxis(y, 1, 2).reshape(*y.shape[:1], y.shape[2], -1)
    # With activations that grow, values reach some 10³, and their roundings go on growing.
    assert_agree(ours, {"hs": hs, "h_0_last": h, "c_0_last": c}, 1e-4)


# What is special in one node


def node_of(**told: Any) -> Any:
    """A model with a node of 2 inputs and 3 units, named "it"; ``told``: attributes, or arrays."""
    rng = np.random.default_rng(4)
    stored = {"W": (1, 12, 2), "R": (1, 12, 3), "B": (1, 24), "P": None, "h": None, "c": None}
    stored = {k: told.pop(k, shape) for k, shape in stored.items()}
    arrays = {
        k: np.float32(rng.standard_normal(a)) if isinstance(a, tuple) else a
        for k, a in stored.items()
        if a is not None
    }
    names = [k if k in arrays or k == "X" else "" for k in ("X", "W", "R", "B", "", "h", "c", "P")]
    node = helper.make_node("LSTM", names, ["Y"], name="it", **{"hidden_size": 3} | told)
    return model_of(node, {"X": draw_xs(width=2)}, arrays)


def same(answer: Any, expected: Any) -> bool:
    """The same stack and weights, bit for bit."""
    leaves, others = jax.tree.leaves(answer[1]), jax.tree.leaves(expected[1])
    return answer[0] == expected[0] and [a.tobytes() for a in leaves] == [
        a.tobytes() for a in others
    ]


def test_the_order_of_gates() -> None:
    """Rows i, o, f, c of W become i, f, g, o of ours; the two biases are added up."""
    w = np.repeat(np.float32([0, 3, 1, 2]), 3)[None, :, None] * np.ones((1, 1, 2), np.float32)
    b = np.float32([[*range(12), *[100] * 12]])
    _, (layer,) = from_onnx(node_of(W=w, B=b))
    assert np.array_equal(layer.forward.w_ih, np.float32([[[n] * 3 for n in range(4)]] * 2))
    assert layer.forward.b.tolist() == [[100, 101, 102], [106, 107, 108], [109, 110, 111],
                                        [103, 104, 105]]  # fmt: skip


def test_constants_that_are_left_out() -> None:
    """Those by default; what has none and needs some is refused, as readers differ."""
    names = ["HardSigmoid", "LeakyRelu", "Elu"]
    config, _ = from_onnx(node_of(activations=names))
    roles = (activations.hard_sigmoid(), activations.leaky_relu(), activations.elu())
    assert config.gates == (Variant(gate=roles[0], candidate=roles[1], output=roles[2]),)
    config, _ = from_onnx(node_of(activations=names, activation_alpha=[0.3]))
    assert config.gates[0].gate == activations.hard_sigmoid(0.3)
    model = node_of(activations=["Sigmoid", "ThresholdedRelu", "Tanh"])
    assert "alpha (and beta) of ThresholdedRelu, got none" in said_by(from_onnx, model)


def test_no_limit_is_none() -> None:
    assert from_onnx(node_of(clip=float("inf")))[0] == Stack(sizes=3)


def test_a_carry_among_the_constants_is_learned() -> None:
    h = np.float32([[[1, 2, 3]]])
    config, (layer,) = from_onnx(node_of(h=np.repeat(h, BATCH, axis=1)))
    assert config.learned_carry
    assert (layer.start[0].h.tolist(), layer.start[0].c.tolist()) == ([1, 2, 3], [0, 0, 0])
    assert not from_onnx(node_of(h=0 * h, c=0 * h))[0].learned_carry
    batch_first = node_of(c=np.repeat(h, BATCH, axis=0), layout=1)
    assert from_onnx(batch_first)[1][0].start[0].c.tolist() == [1, 2, 3]
    several = np.float32(np.arange(6)).reshape(1, 2, 3)
    assert "one for all sequences, or an input, got several" in said_by(
        from_onnx, node_of(h=several)
    )


def test_weights_made_by_constant_nodes_and_copies() -> None:
    model = node_of()
    expected = from_onnx(model)
    w, nodes = model.graph.initializer[0], model.graph.node
    assert w.name == "W"
    made = helper.make_node("Constant", [], ["W"], value=deepcopy(w))
    del model.graph.initializer[0]
    nodes.insert(0, made)
    nodes.insert(1, helper.make_node("Identity", ["R"], ["R_again"]))
    nodes[-1].input[2] = "R_again"
    assert same(from_onnx(model), expected)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, jnp.bfloat16])
@pytest.mark.parametrize("raw", [False, True])
def test_numbers_as_bytes_and_as_numbers(kind: Any, raw: bool) -> None:
    model = node_of(B=None)
    expected = from_onnx(model)
    for tensor in model.graph.initializer:
        a = numpy_helper.to_array(tensor).astype(kind)
        number = helper.np_dtype_to_tensor_dtype(a.dtype)
        values = a.tobytes() if raw else a.astype(float).reshape(-1)
        tensor.CopyFrom(helper.make_tensor(tensor.name, number, a.shape, values, raw=raw))
    config, params = from_onnx(model)
    assert same(
        (config, params), (expected[0], jax.tree.map(lambda a: a.astype(kind), expected[1]))
    )


def test_nodes_are_chosen_by_name_or_number() -> None:
    model = to_onnx(CHAIN, PARAMS)
    names = [node.name for node in model.graph.node if node.op_type == "LSTM"]
    for chosen in (names[1], 1, [names[1]], [1]):
        assert same(from_onnx(model, chosen), (Stack(sizes=4), PARAMS[1:2]))
    assert same(from_onnx(model, names), from_onnx(model, [0, 1, 2]))
    assert said_by(from_onnx, model).startswith(
        f"ValueError: node: expected the name of one or more of 3: '{names[0]}', '{names[1]}'"
    )
    for unknown in ("x", 3, -1, [0, "x"]):
        assert "found 0 for" in said_by(from_onnx, model, unknown)
    assert said_by(from_onnx, model, [None]).startswith("TypeError: node: expected a name or a n")
    assert "layer 1: expected 5 inputs" in said_by(from_onnx, model, [0, 2])


def test_layers_of_one_direction() -> None:
    model = to_onnx(Stack(sizes=3), params_of(Stack(sizes=3)))
    other = to_onnx(Stack(sizes=2, reverse=True), params_of(Stack(sizes=2)))
    for tensor in other.graph.initializer:
        tensor.name += "_other"
        model.graph.initializer.append(tensor)
    (node,) = (n for n in other.graph.node if n.op_type == "LSTM")
    node.input[:] = [f"{name}_other" for name in node.input[:4]]
    model.graph.node.append(node)
    assert "one direction for one stack, got ['forward', 'reverse']" in said_by(
        from_onnx, model, [0, 1]
    )


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"direction": "backward"}, "direction: expected one of forward, reverse, bidirectional"),
        ({"direction": "bidirectional"}, "R: expected shape [2, 4·hidden, hidden], got [1, 12"),
        ({"direction": 1}, "expected one direction of type STRING"),
        ({"direction": b"\xff"}, "attributes: expected names in ASCII"),
        ({"hidden_size": 4}, "hidden_size: expected 3, as R has, got 4"),
        ({"hidden_size": 2**62}, "hidden_size: expected 3, as R has, got 4611686018427387904"),
        ({"layout": 2}, "layout: expected 0 or 1, got 2"),
        ({"input_forget": -1}, "input_forget: expected 0 or 1, got -1"),
        ({"clip": 0.0}, "clip: expected a positive number, got 0.0"),
        ({"clip": float("nan")}, "clip: expected a positive number, got nan"),
        ({"activations": ["Tanh"] * 2}, "activations: expected 3 names, got"),
        ({"activations": ["Tanh"] * 6}, "activations: expected 3 names, got"),
        ({"activations": ["Tanh", "Gelu", "Tanh"]}, "activations: expected some of Sigmoid, Tanh"),
        ({"activation_alpha": [1.0]}, "activation_alpha, activation_beta: expected as many as"),
        (
            {"activations": ["Elu"] * 3, "activation_alpha": [float("nan")]},
            "Elu: expected a finite number, got nan",
        ),
        ({"surprise": 1}, "expected no attribute 'surprise' of an LSTM"),
        ({"W": (1, 12)}, "W: expected shape [1, 12, input], got [1, 12]"),
        ({"W": (1, 13, 2)}, "W: expected shape [1, 12, input], got [1, 13, 2]"),
        ({"W": (1, 12, 0)}, "W: expected shape [1, 12, input], got [1, 12, 0]"),
        ({"R": (1, 12, 4)}, "R: expected shape [1, 4·hidden, hidden], got [1, 12, 4]"),
        ({"R": (1, 0, 0)}, "R: expected shape [1, 4·hidden, hidden], got [1, 0, 0]"),
        ({"B": (1, 12)}, "B: expected shape [1, 24], got [1, 12]"),
        ({"P": (2, 9)}, "P: expected shape [1, 9], got [2, 9]"),
        ({"h": (1, 3)}, "initial_h: expected [directions, batch, hidden], got (1, 3)"),
        ({"h": (1, 0, 3)}, "initial_h: expected [directions, batch, hidden], got (1, 0, 3)"),
        ({"c": (1, 1, 2)}, "initial_h, initial_c: expected [1, 3], got"),
        ({"W": np.ones((1, 12, 2), np.int64)}, "W: expected a floating-point dtype, got int64"),
        ({"W": np.ones((1, 12, 2), np.int8)}, "expected a dtype among FLOAT, DOUBLE, FLOAT16"),
        ({"W": np.ones((1, 12, 2))}, "params.w_ih: expected dtype float32, got float64"),
        ({"W": None}, "expected the inputs X, W and R"),
    ],
)  # fmt: skip
def test_nodes_that_are_refused(told: dict[str, Any], message: str) -> None:
    assert message in said_by(from_onnx, node_of(**told))


def test_weights_that_are_computed_are_refused() -> None:
    model = node_of()
    model.graph.node[0].input[1] = "X"
    assert "W: expected constants of the model, got an input of the model" in said_by(
        from_onnx, model
    )
    model.graph.node.insert(0, helper.make_node("Add", ["W", "W"], ["twice"]))
    model.graph.node[-1].input[1] = "twice"
    assert "W: expected constants of the model, got the output of Add" in said_by(from_onnx, model)


def test_a_projection_goes_there_alone() -> None:
    config = COMPOSED["projection"]
    model = to_onnx(config, params_of(config))
    assert "R: expected constants of the model, got the output of MatMul" in said_by(
        from_onnx, model, 0
    )


# Damaged and hostile


def hostile(change: Any) -> str:
    """What is said of a node's model after a change of it."""
    model = node_of()
    change(model.graph, model.graph.initializer[0])
    return said_by(from_onnx, model)


def round_in_circles(graph: Any, w: Any) -> None:
    w.name = "other"
    graph.node.append(helper.make_node("Identity", ["a"], ["W"]))
    graph.node.append(helper.make_node("Identity", ["W"], ["a"]))


def blown_up(graph: Any, w: Any) -> None:
    """10¹⁵ zeros from one number, laid beside each other."""
    w.CopyFrom(numpy_helper.from_array(np.zeros((1, 1, 1), np.float32), "zero"))
    size = np.array([1, 10**9, 10**6])
    graph.initializer.append(numpy_helper.from_array(size, "size"))
    graph.node.append(helper.make_node("Expand", ["zero", "size"], ["many"]))
    graph.node.append(helper.make_node("Concat", ["many", "zero"], ["W"], axis=1))


def with_dims(*dims: int) -> Any:
    def change(graph: Any, w: Any) -> None:
        w.dims[:] = dims

    return change


def without_bytes(graph: Any, w: Any) -> None:
    w.ClearField("raw_data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_dims(2**40, 2**40, 2**40), "expected 5316911983139663491615228241121378304 bytes"),
        (with_dims(1, 12, 3), "tensor 'W': expected 144 bytes for float32 [1, 12, 3], got 96"),
        (with_dims(-1, -12, 2), "tensor 'W': expected the whole of an array, got the shape [-1,"),
        (with_dims(*[1] * 100), "tensor 'W': expected the whole of an array, got the shape [1, 1"),
        (without_bytes, "tensor 'W': expected 24 numbers for [1, 12, 2], got 0"),
        (round_in_circles, "W: expected constants of the model, got the output of Identity"),
        (blown_up, "expected more bytes in the file than it makes"),
    ],
)
def test_what_a_file_claims_is_not_believed(change: Any, message: str) -> None:
    assert message in hostile(change)


@pytest.fixture
def beside(tmp_path: Any) -> Any:
    """A model whose weights are in a file beside it, in a folder beside which there is a secret."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(range(96)))
    onnx.save_model(
        node_of(),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return folder / "model.onnx"


def test_weights_in_a_file_beside_the_model(beside: Any) -> None:
    assert (beside.parent / "weights.bin").exists()
    assert same(from_onnx(beside), from_onnx(node_of()))
    assert same(from_onnx(os.fspath(beside)), from_onnx(node_of()))
    model = onnx.load(beside, load_external_data=False)
    assert "give the path of the model" in said_by(from_onnx, model)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("location", "../secret", "expected its numbers in a file within the model's folder"),
        ("location", "{}/secret", "expected its numbers in a file within the model's folder"),
        ("location", "link", "expected its numbers in a file within the model's folder"),
        ("location", "links/secret", "expected its numbers in a file within the model's folder"),
        ("location", "loop", "expected its numbers in a file within the model's folder"),
        ("location", "pipe", "expected its numbers in a file within the model's folder"),
        ("location", ".", "expected its numbers in a file within the model's folder"),
        ("location", "", "expected its numbers in a file within the model's folder"),
        ("location", "nowhere", "expected its numbers in a file within the model's folder"),
        ("location", "a\0b", "expected its numbers in a file within the model's folder"),
        ("location", "a" * 10_000, "expected its numbers in a file within the model's folder"),
        ("offset", "-4", "expected an offset and a length, got ['-4', "),
        ("offset", "١", "expected an offset and a length"),
        ("offset", "9" * 1000, "expected an offset and a length"),
        ("offset", "1000000", "expected 96 bytes for its shape, got 96 from 1000000 on in w"),
        ("length", "92", "expected 96 bytes for its shape, got 92 from 0 on in weights.bin of"),
        ("length", "1e2", "expected an offset and a length"),
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_folder(beside: Any, key: str, value: str, message: str) -> None:
    outside, folder = beside.parent.parent, beside.parent
    (folder / "link").symlink_to(outside / "secret")
    (folder / "links").symlink_to(outside)
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    model = onnx.load(beside, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value.format(outside)
    beside.write_bytes(model.SerializeToString())
    assert message in said_by(from_onnx, beside)


def test_a_link_within_the_folder_is_followed(beside: Any) -> None:
    (beside.parent / "weights.bin").rename(beside.parent / "elsewhere.bin")
    (beside.parent / "weights.bin").symlink_to("elsewhere.bin")
    assert same(from_onnx(beside), from_onnx(node_of()))


def test_files_that_are_no_models(tmp_path: Any) -> None:
    path = tmp_path / "model.onnx"
    for content, message in (
        (b"", "model: expected an LSTM node in its graph, found none"),
        (b"no model", "is no ONNX model, or not all of one"),
        (node_of().SerializeToString()[:-9], "is no ONNX model, or not all of one"),
    ):
        path.write_bytes(content)
        assert message in said_by(from_onnx, path)
    with open(path, "wb") as file:
        file.truncate(2**40)  # takes no place
    assert "model: expected at most 2147483647 bytes, got 1099511627776" in said_by(from_onnx, path)
    assert said_by(from_onnx, 3).startswith("TypeError: model: expected an onnx.ModelProto or a p")
    for nothing in (tmp_path / "nowhere", tmp_path, "/dev/zero"):
        with pytest.raises(FileNotFoundError, match="model: expected a file, and there is none"):
            from_onnx(nothing)


FILE = to_onnx(CONFIGS["two ways"], params_of(CONFIGS["two ways"])).SerializeToString()


@settings(max_examples=300)
@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path_factory: Any, data: Any) -> None:
    """Some bytes changed, taken out or put in; whatever it is, it is a ValueError or a stack."""
    content = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.sampled_from([0, 1, 1, 1, 7, len(content)]))
        content[at : at + cut] = data.draw(st.binary(max_size=6))
        if not content:
            break
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content)
    try:
        config, _ = from_onnx(path, data.draw(st.sampled_from([None, 0, [0, 1]])))
    except ValueError:
        return
    except TypeError as error:  # weights of another dtype than others
        assert "dtype" in str(error)  # noqa: PT017
        return
    assert isinstance(config, Stack)


def test_without_the_package(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for function in (partial(to_onnx, CHAIN, PARAMS), partial(from_onnx, "model.onnx")):
        with pytest.raises(ImportError, match=r"it comes with: pip install 'jlstm\[interop\]'"):
            function()
