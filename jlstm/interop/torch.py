"""``torch.nn.LSTM`` and ``torch.nn.LSTMCell``: state dicts, and files of them.

torch keeps a weight as ``[4 · hidden, input]``, the gates i, f, g, o one after another, and adds
two biases, of which ours is the sum. Its projection is ``[output, hidden]``, ours transposed.
"""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from jlstm.equations import PLAIN
from jlstm.extras import MissingExtraError
from jlstm.files import with_an_end
from jlstm.interop.arrays import (
    Direction,
    NDArray,
    apart,
    array,
    as_numpy,
    join_gates,
    listed,
    refusal,
    split_gates,
    together,
)
from jlstm.layers import LayerParams, Stack
from jlstm.tensors import read_tensors, write_tensors
from jlstm.types import format_shape
from jlstm.variants import VariantParams

ORDER = "ifgo"
A_LIST = "or each layer has a prefix, in a list"
NAME = re.compile(
    r"(.*?)((?:weight_(?:ih|hh|hr)|bias_(?:ih|hh))((?:_l\d+(?:_reverse)?)?))", re.DOTALL
)


def from_torch(
    source: Mapping[str, Any] | str | os.PathLike[str],
    *,
    prefix: str | Sequence[str] | None = None,
) -> tuple[Stack, tuple[LayerParams, ...]]:
    """The LSTM of a state dict, with its layers, directions, projection and bias.

    Dropout between layers is not in a state dict, nor is what lies between LSTMs.

    Args:
        source: ``module.state_dict()``, of torch's tensors or any arrays; or a file of one:
            ``.safetensors``, or else what ``torch.load(…, weights_only=True)`` reads.
        prefix: what stands before ``weight_ih_l0``, or before ``weight_ih`` of an ``LSTMCell``:
            ``"lstm."`` for instance; None for the only one there is; of several LSTMs or cells that
            follow one another a list, ``["cells.0.", "cells.1."]`` for instance.

    Returns:
        The stack, and its weights: NumPy arrays of the dtype that they have.

    Raises:
        MissingExtraError: safetensors, or for other files torch, is not installed.
        OSError: the file cannot be read.
        TypeError: no state dict; weights that are no arrays, or not of one floating-point dtype.
        ValueError: no LSTM, or several and no prefix (the message has all prefixes); weights
            that are missing, too many or of a shape that does not fit; a damaged file.
    """
    state: Mapping[Any, Any] = source if isinstance(source, Mapping) else read_state(source)
    found = find_prefixes(state)
    if prefix is None:
        prefixes = [one for one, lstm in found.items() if lstm]
        if len(prefixes) != 1:
            got = listed(prefixes) if prefixes else f"none: {_instead(state)}"
            raise ValueError(f"prefix: expected it where there is not one LSTM, got {got}")
    else:
        prefixes = [prefix] if isinstance(prefix, str) else list(prefix)
    for one in prefixes:
        if one not in found:
            raise ValueError(f"prefix: expected one of {listed(found)}, got {one!r}")
    return together([layer for one in prefixes for layer in _layers(state, one)])


def _layers(state: Mapping[Any, Any], prefix: str) -> list[list[Direction]]:
    """The layers of the LSTM with this prefix."""
    own = {
        match[2]: value
        for name, value in state.items()
        if isinstance(name, str) and (match := NAME.fullmatch(name)) and match[1] == prefix
    }
    layered = any(name.startswith("weight_ih_l") for name in own)
    depth = sum(re.fullmatch(r"weight_ih_l\d+", name) is not None for name in own) or 1
    first = "_l0" if layered else ""
    directions = ("", "_reverse") if f"weight_ih{first}_reverse" in own else ("",)
    bias = own.keys() & {f"bias_ih{first}", f"bias_hh{first}"}
    kinds = ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if bias else ())]
    kinds += ["weight_hr"] if f"weight_hr{first}" in own else []
    places = [[f"_l{n}{d}" if layered else "" for d in directions] for n in range(depth)]
    wanted = {f"{kind}{place}" for layer in places for place in layer for kind in kinds}
    if wanted != own.keys():
        missing = {f"{prefix}{name}" for name in wanted - own.keys()}
        unknown = {f"{prefix}{name}" for name in own.keys() - wanted}
        raise ValueError(
            f"{prefix or 'state'}: expected the weights of an LSTM of {depth} layers and "
            f"{len(directions)} directions; missing: {listed(missing)}; unknown: {listed(unknown)}"
        )

    def direction(place: str) -> Direction:
        sizes: dict[str, int] = {}

        def take(kind: str, *shape: str) -> NDArray:
            name = f"{kind}{place}"
            return array(f"{prefix}{name}", own[name], shape, sizes)

        output = "output" if "weight_hr" in kinds else "hidden"
        w_hh = take("weight_hh", "4 hidden", output)
        w_ih = take("weight_ih", "4 hidden", "input")
        b = None
        if "bias_ih" in kinds:
            first, second = take("bias_ih", "4 hidden"), take("bias_hh", "4 hidden")
            # Not −0 + 0 = 0: what to_torch wrote is what it was, bit for bit.
            b = split_gates(np.where(second == 0, first, first + second), ORDER)
        w_hr = take("weight_hr", "output", "hidden").T if "weight_hr" in kinds else None
        weights: Any = split_gates(w_ih.T, ORDER), split_gates(w_hh.T, ORDER), b, None, w_hr
        return Direction(PLAIN, VariantParams(*weights))

    return [[direction(place) for place in layer] for layer in places]


def to_torch(
    stack: Stack,
    params: Sequence[LayerParams],
    *,
    prefix: str | Sequence[str] = "",
    cell: bool = False,
) -> dict[str, NDArray]:
    """A state dict of ``torch.nn.LSTM``, for ``load_state_dict``; ``bias_hh`` is zeros.

    It goes into ``torch.nn.LSTM(input_size, hidden_size, num_layers, bias, bidirectional=…,
    proj_size=…)`` by ``module.load_state_dict({k: torch.from_numpy(w) for k, w in ….items()})``.

    Args:
        stack: layers of one size, with a projection to one size or none; of any sizes, where each
            becomes an LSTM of its own.
        params: its weights.
        prefix: what to write before each name; a list, with one for each layer, makes an LSTM of
            each.
        cell: whether to name them as ``torch.nn.LSTMCell`` does.

    Raises:
        TypeError: no stack, or weights of another kind.
        ValueError: what torch cannot represent, and why.
    """
    to = "torch.nn.LSTMCell" if cell else "torch.nn.LSTM"
    layers = apart(to, stack, params, bidirectional=not cell, projection=not cell)
    if not isinstance(prefix, str):
        return _one_by_one(stack, params, prefix, cell)
    if cell and len(layers) > 1:
        raise refusal("sizes", to, f"one layer; {A_LIST}", f"{len(layers)} layers")
    for name, values in (
        ("sizes", {one.size for one in stack.cells}),
        ("output_sizes", {one.output for one in stack.cells}),
    ):
        if len(values) > 1:
            raise refusal(name, to, f"one size for all layers; {A_LIST}", getattr(stack, name))
    size, output = stack.cells[0].size, stack.cells[0].output
    if output is not None and output >= size:
        raise refusal("output_sizes", to, "fewer than the units", f"{output} of {size}")
    if len({one.weights.b is None for layer in layers for one in layer}) > 1:
        raise refusal("params", to, "all have a bias, or none has", "some with, some without")
    state: dict[str, NDArray] = {}
    for n, layer in enumerate(layers):
        for (_, weights), way in zip(layer, ("", "_reverse"), strict=False):
            place = "" if cell else f"_l{n}{way}"
            own = {
                "weight_ih": _rows(weights.w_ih),
                "weight_hh": _rows(weights.w_hh),
            }
            if weights.b is not None:
                own["bias_ih"] = join_gates(np.asarray(weights.b), ORDER)
                own["bias_hh"] = np.zeros_like(own["bias_ih"])
            if weights.w_hr is not None:
                own["weight_hr"] = np.array(np.asarray(weights.w_hr).T, order="C")
            state |= {f"{prefix}{kind}{place}": value for kind, value in own.items()}
    return state


def _one_by_one(
    stack: Stack, params: Sequence[LayerParams], prefixes: Sequence[str], cell: bool
) -> dict[str, NDArray]:
    """``to_torch`` of each layer alone."""
    if not len(prefixes) == len({*prefixes}) == len(params):
        raise ValueError(
            f"prefix: expected another for each of {len(params)} layers, got {prefixes}"
        )
    state: dict[str, NDArray] = {}
    for prefix, own, one in zip(prefixes, params, stack.cells, strict=True):
        alone = Stack(
            sizes=one.size,
            output_sizes=one.output,
            gates=[one.gates],
            bidirectional=stack.bidirectional,
        )
        state |= to_torch(alone, [own], prefix=prefix, cell=cell)
    return state


def read_state(path: str | os.PathLike[str]) -> dict[str, NDArray]:
    """The arrays of a file: ``.safetensors``, or else torch's own, read with ``weights_only=True``.

    What is no floating-point tensor is left out.

    Raises:
        MissingExtraError: safetensors, or torch, is not installed.
        OSError: the file cannot be read.
        ValueError: no such file, or one with more in it than weights.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"source: expected a state dict or a file of one, got {type(path).__name__}; "
            "of a module take state_dict()"
        )
    if Path(path).suffix == ".safetensors":
        return read_tensors(path, all_weights=False)[0]
    try:
        torch = import_module("torch")
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"{path}: torch is not installed, and only torch reads its own files; it comes with: "
            "pip install torch. (A .safetensors file is read without it.)",
            name="torch",
        ) from None
    with open(with_an_end(path), "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a file that it knows well or refuses
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file may make it raise anything
            reason = str(error).partition("\n")[0].partition(". ")[0]  # not how to load it anyway
            raise ValueError(
                f"{path}: expected a state dict saved by torch, got: {reason}"
            ) from None
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: expected a state dict, got {type(found).__name__}")
    if inner := [name for name, value in found.items() if isinstance(value, Mapping)]:
        raise ValueError(
            f"{path}: expected a state dict, got a dictionary that may have one below "
            f"{listed(map(str, inner))}: from_torch(torch.load(…, weights_only=True)[…])"
        )
    return {
        name: as_numpy(value)
        for name, value in found.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor) and value.is_floating_point()
    }


def write_state(path: str | os.PathLike[str], state: Mapping[str, NDArray]) -> None:
    """Write what ``to_torch`` gave as ``.safetensors``, for ``safetensors.torch.load_file``.

    Raises:
        MissingExtraError: safetensors is not installed.
        OSError: the file cannot be written.
        ValueError: a name that ends otherwise: torch's own files are written by torch.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"path: expected a name that ends in .safetensors, got {path}")
    write_tensors(path, state)


def find_prefixes(state: Mapping[Any, Any]) -> dict[str, bool]:
    """What stands before the names of recurrent weights, and whether they look like an LSTM's."""
    found: dict[str, bool] = {}
    for name, value in state.items():
        match = NAME.fullmatch(name) if isinstance(name, str) else None
        if match and match[2] in ("weight_hh_l0", "weight_hh"):
            rows, *rest = tuple(getattr(value, "shape", ())) or (0,)
            projects = match[1] + "weight_hr_l0" in state
            lstm = len(rest) == 1 and rows % 4 == 0 and (projects or rows == 4 * rest[0])
            found[match[1]] = found.get(match[1], False) or lstm
    return found


def _instead(state: Mapping[Any, Any]) -> str:
    """What there is where there is no LSTM, for a message."""
    for name, value in state.items():
        match = NAME.fullmatch(name) if isinstance(name, str) else None
        if match and match[2].startswith("weight_hh") and len(getattr(value, "shape", ())) == 2:
            shape = format_shape(value.shape)
            return f"{name} is {shape}, and an LSTM's has 4 rows for each column"
    return f"the names are {listed(map(str, state))}"


def _rows(w: Any) -> NDArray:
    """``[input, 4, hidden]`` to ``[4 · hidden, input]``."""
    return np.array(join_gates(np.asarray(w), ORDER).T, order="C")
