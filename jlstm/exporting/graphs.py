"""The trained models as graphs of ONNX: the stack by ``add_stack``, standard operators around it.

The equations are those of ``model.py`` of each task. Inputs and outputs are those of ``Portable``,
but for the state of a language model, which is the carry of each layer, as ``to_onnx`` has it:
``h_0``, ``c_0``, … before, which may be left out, and ``h_0_last``, ``c_0_last``, … after.
"""

from typing import TYPE_CHECKING

import numpy as np

from jlstm import __version__
from jlstm.exporting.portable import Portable
from jlstm.extras import require
from jlstm.interop.onnx.exporting import IR, OPSET, Writer, add_lengths, add_stack
from jlstm.tasks.table.model import ROUGHEST

if TYPE_CHECKING:
    from onnx import ModelProto


def to_graph(model: Portable) -> "ModelProto":
    """The model for ONNX, checked by ``onnx.checker``.

    Raises:
        MissingExtraError: onnx is not installed.
        TypeError, ValueError: a stack that ONNX has not, as for ``to_onnx``.
    """
    onnx = require("onnx", "interop")
    graph = onnx.GraphProto(name=model.kind)
    write = Writer(onnx, graph)
    {"text": _text, "table": _table, "sequences": _sequences}[model.kind](write, model)
    opset = onnx.helper.make_opsetid("", OPSET)
    made: ModelProto = onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=IR, producer_name="jlstm"
    )
    made.producer_version = __version__
    onnx.checker.check_model(made, full_check=True)
    return made


def _declare(write: Writer, model: Portable, *names: str) -> None:
    for name in names:
        write.declare("input", name, model.inputs[name].dtype, model.inputs[name].shape)


def _linear(write: Writer, x: str, weights: str, bias: str, out: str = "") -> str:
    """x·W + b."""
    product = write.node("MatMul", [x, weights])
    return write.node("Add", [product, bias], [out] if out else ())


def _text(write: Writer, model: Portable) -> None:
    p = model.params
    _declare(write, model, "tokens")
    embedding = write.constant("embedding", p.embedding)
    write.node("Gather", [embedding, "tokens"], ["xs"])
    vocabulary = model.sizes["vocabulary"]
    write.declare("output", "logits", p.embedding.dtype, ["time", "batch", vocabulary])
    add_stack(write.graph, model.stack, p.lstm, "xs", "hs")
    if p.readout is None:
        readout = write.node("Transpose", [embedding], perm=[1, 0])
    else:
        readout = write.constant("readout", p.readout)
    _linear(write, "hs", readout, write.constant("readout_bias", p.readout_bias), "logits")


def _table(write: Writer, model: Portable) -> None:
    p, s = model.params, model.sizes
    lookback, horizon, count, median = (
        s[name] for name in ("lookback", "horizon", "quantiles", "median")
    )
    _declare(write, model, *model.inputs)
    known = "known" in model.inputs

    def ints(name: str, *values: int) -> str:
        return write.constant(name, np.array(values, np.int64))

    def at(x: str, name: str, index: int, axis: int = 0) -> str:
        """One place of an axis, which is gone."""
        return write.node("Gather", [x, write.constant(name, np.array(index))], axis=axis)

    def part(x: str, name: str, first: int, last: int, axis: int = 0) -> str:
        where = [ints(f"{name}_{n}", v) for n, v in zip("abc", (first, last, axis), strict=True)]
        return write.node("Slice", [x, *where])

    def shaped(x: str, name: str, *shape: int) -> str:
        return write.node("Reshape", [x, ints(f"{name}_shape", *shape)])

    def beside(parts: list[str], axis: int) -> str:
        return write.node("Concat", parts, axis=axis) if len(parts) > 1 else parts[0]

    now = at("values", "last_place", -1)
    window = write.node("Sub", ["values", now])
    about = ["about"] if "about" in model.inputs else []
    if p.embedding is not None:
        embedding = write.constant("embedding", p.embedding)
        about.insert(0, write.node("Gather", [embedding, "series"]))

    steps, patch = lookback // s["patch"], s["patch"]
    read = [write.node("Unsqueeze", [window, ints("features", 2)])]
    read += ["past"] if "past" in model.inputs else []
    read += [part("known", "before", 0, lookback)] if known else []
    width = 1 + s["past"] + s["known"]
    whole = part(beside(read, 2), "whole", lookback - steps * patch, lookback)
    patches = shaped(whole, "patches", steps, patch, -1, width)
    patches = write.node("Transpose", [patches], perm=[0, 2, 1, 3])
    xs = [shaped(patches, "steps", steps, -1, patch * width)]
    for n, one in enumerate(about):
        alone = write.node("Unsqueeze", [one, ints(f"about_{n}_axis", 0)])
        xs.append(write.node("Expand", [alone, ints(f"about_{n}_steps", steps, 1, 1)]))
    write.node("Identity", [beside(xs, 2)], ["xs"])
    add_stack(write.graph, model.stack, p.lstm, "xs", "hs", carries=False)

    seen = [at("hs", "last_output", -1), *about]
    if known:
        coming = part("known", "after", lookback, lookback + horizon)
        future = write.node("Transpose", [coming], perm=[1, 0, 2])
        seen.append(shaped(future, "future", -1, horizon * s["known"]))
    hidden, bias = (write.constant(n, getattr(p, n)) for n in ("hidden", "hidden_bias"))
    m = write.node("Relu", [_linear(write, beside(seen, 1), hidden, bias)])
    readout = write.constant("readout", p.readout.reshape(s["width"], -1))
    y = _linear(write, m, readout, write.constant("readout_bias", p.readout_bias.reshape(-1)))
    y = write.node("Transpose", [shaped(y, "y", -1, horizon, count)], perm=[1, 0, 2])

    middle = write.node("Add", [now, at(y, "median", median, axis=2)])
    if p.linear is not None:
        a = write.constant("linear_window", np.ascontiguousarray(p.linear.window.T))
        beyond = _linear(write, a, window, write.constant("linear_bias", p.linear.bias[:, None]))
        middle = write.node("Add", [middle, beyond])
        if known:
            change = write.node("Sub", [coming, at("known", "last_known", lookback - 1)])
            effect = write.constant("linear_effect", p.linear.effect)
            middle = write.node("Add", [middle, write.node("MatMul", [change, effect])])
    middle = write.node("Unsqueeze", [middle, ints("quantile_axis", 2)])
    widths, axis = write.node("Softplus", [y]), write.constant("sum_axis", np.array(2))
    if p.calibration is not None:
        spread, usual, power = (
            write.constant(f"calibration_{name}", array)
            for name, array in p.calibration._asdict().items()
        )
        later, earlier = part("values", "later", 1, lookback), part("values", "earlier", 0, -1)
        steps_of = write.node("Abs", [write.node("Sub", [later, earlier])])
        rough = write.node("ReduceSum", [steps_of, ints("calibration_axis", 0)], keepdims=0)
        counts = write.constant("calibration_steps", np.array(max(1, lookback - 1), p.hidden.dtype))
        ratio = write.node("Div", [rough, counts])
        ratio = write.node("Div", [ratio, write.node("Gather", [usual, "series"])])
        limits = [
            write.constant(f"calibration_{n}", np.array(x, p.hidden.dtype))
            for n, x in (("least", 1 / ROUGHEST), ("most", ROUGHEST))
        ]
        ratio = write.node("Pow", [write.node("Clip", [ratio, *limits]), power])
        ratio = write.node("Unsqueeze", [ratio, ints("calibration_last", 1)])
        own = write.node("Transpose", [write.node("Gather", [spread, "series"])], perm=[1, 0, 2])
        widths = write.node("Mul", [write.node("Mul", [widths, own]), ratio])
    found = [middle]
    if median:
        below = part(widths, "below", 0, median, axis=2)
        below = write.node("CumSum", [below, axis], reverse=1)
        found.insert(0, write.node("Sub", [middle, below]))
    if median + 1 < count:
        above = part(widths, "above", median + 1, count, axis=2)
        found.append(write.node("Add", [middle, write.node("CumSum", [above, axis])]))
    write.declare("output", "quantiles", p.hidden.dtype, [horizon, "batch", count])
    write.node("Identity", [beside(found, 2)], ["quantiles"])


def _sequences(write: Writer, model: Portable) -> None:
    p, s = model.params, model.sizes
    _declare(write, model, "xs")
    lengths = add_lengths(write.graph, "xs")
    add_stack(write.graph, model.stack, p.lstm, "xs", "hs", lengths=lengths, carries=False)
    features, axes = "hs", ["time", "batch"]
    if s["pooled"]:
        features, axes = _pooled(write, model, lengths), ["batch"]
    write.declare("output", "scores", p.readout.dtype, [*axes, s["outputs"]])
    readout, bias = (write.constant(n, getattr(p, n)) for n in ("readout", "readout_bias"))
    _linear(write, features, readout, bias, "scores")


def _pooled(write: Writer, model: Portable, lengths: str) -> str:
    """The last state, the mean and the maximum over the steps that count, side by side."""
    dtype = model.params.readout.dtype
    zero, one = (write.constant(f"pool_{n}", np.array(n, np.int64)) for n in (0, 1))
    first = write.constant("pool_first", np.zeros(1, np.int64))
    nothing = write.constant("pool_nothing", np.zeros((), dtype))

    def summed(x: str) -> str:
        return write.node("ReduceSum", [x, first], keepdims=0)

    count = write.node("Cast", [lengths], to=write.number(np.int64))
    shape = write.node("Shape", ["hs"])
    time = write.node("Gather", [shape, zero])  # a number, not a list of one
    behind = write.constant("pool_behind", np.array([1, 2]))
    steps = write.node("Unsqueeze", [write.node("Range", [zero, time, one]), behind])
    until = write.node("Unsqueeze", [count, write.constant("pool_last", np.array([1]))])
    valid = write.node("Less", [steps, until])  # [time, batch, 1]

    at_end = write.node("Equal", [write.node("Add", [steps, one]), until])
    ends = summed(write.node("Where", [at_end, "hs", nothing]))
    if model.stack.bidirectional:
        start = write.node("Gather", ["hs", zero])
        backward = np.arange(model.stack.output_size) >= model.stack.output_size // 2
        ends = write.node("Where", [write.constant("pool_back", backward), start, ends])
    many = write.node("Max", [until, one])
    mean = write.node("Div", [summed("hs"), write.node("Cast", [many], to=write.number(dtype))])
    lowest = write.constant("pool_lowest", np.array(-np.inf, dtype))
    most = write.node("Where", [valid, "hs", lowest])
    most = write.node("ReduceMax", [most], axes=[0], keepdims=0)
    some = write.node("Greater", [until, zero])
    most = write.node("Where", [some, most, nothing])
    return write.node("Concat", [ends, mean, most], axis=1)
