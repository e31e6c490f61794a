"""Write results and gradients of ``torch.nn.LSTM``, in float64, in jlstm's layout.

To run it, in an environment of its own (any CPU build of torch will do):

    python -m venv torch-env
    torch-env/bin/pip install torch==2.13.0 numpy
    torch-env/bin/python tests/golden/make_torch.py

torch_lstm.npz is one layer in one direction; torch_stacks.npz is all that torch builds of them:
layers upon layers, both directions, projections. Keys are ``case/name``. Inputs are ``w_ih [input,
4, hidden]``, ``w_hh [hidden, 4, hidden]``, ``b [4, hidden]`` (absent without bias), ``h0, c0
[*batch, hidden]``, ``xs [time, *batch, input]``, ``lengths [batch]`` (absent where all are full),
``reverse`` (a bool), and the cotangents ``dhs, dh, dc``. Results are ``hs, h, c`` and the gradients
``dw_ih, dw_hh, db, dh0, dc0, dxs``.

torch_states.npz is not in jlstm's layout but has state dicts as torch names and lays them out, for
what reads them: ``state.<name>``, and under a cotangent ``dhs`` of ``hs`` its gradient
``gradient.<name>``, besides ``xs`` and ``dxs``.

In a stack h0, c0, h, c and their cotangents have torch's leading axis, an entry for each layer and
in it for each direction, and weights are named with both: ``1.backward.w_ih``, whose gradient is
``d1.backward.w_ih``. With a projection h has ``output`` features, and its weight is ``w_hr [hidden,
output]``, torch's transposed.

torch keeps a weight as ``[4 · hidden, input]``, gates i, f, g, o stacked in that order, and adds
two biases; jlstm's b is their sum, whose gradient is that of either. torch cannot run in reverse
only, so a reverse case is the second direction of a bidirectional LSTM, with no cotangent on the
first. Sequences of several lengths go through ``pack_padded_sequence``, which knows no length 0.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Array = npt.NDArray[Any]

FOLDER = Path(__file__).parent

CASES: dict[str, dict[str, Any]] = {
    "plain": {"time": 7, "batch": (3,), "input_size": 5, "hidden_size": 4},
    "no_batch_axis": {"time": 5, "batch": (), "input_size": 2, "hidden_size": 3},
    "one_hidden_unit": {"time": 4, "batch": (2,), "input_size": 3, "hidden_size": 1},
    "long": {"time": 50, "batch": (2,), "input_size": 3, "hidden_size": 6},
    "no_bias": {"time": 6, "batch": (2,), "input_size": 3, "hidden_size": 5, "bias": False},
    # The longest of the lengths is shorter than time in the one case, and equal to it in the other.
    "lengths": {
        "time": 7,
        "batch": (4,),
        "input_size": 3,
        "hidden_size": 5,
        "lengths": (2, 6, 1, 5),
    },
    "reverse": {"time": 6, "batch": (3,), "input_size": 4, "hidden_size": 5, "reverse": True},
    "reverse_lengths": {
        "time": 6,
        "batch": (4,),
        "input_size": 5,
        "hidden_size": 3,
        "lengths": (3, 1, 6, 4),
        "reverse": True,
    },
    "reverse_no_bias": {
        "time": 5,
        "batch": (2,),
        "input_size": 4,
        "hidden_size": 3,
        "bias": False,
        "reverse": True,
    },
}

# All that torch combines: each option alone and with the others. All sizes of a case differ.
STACKS: dict[str, dict[str, Any]] = {
    "two_layers": {"time": 6, "batch": (3,), "input_size": 5, "hidden_size": 4},
    "three_layers_lengths": {
        "layers": 3,
        "time": 7,
        "batch": (4,),
        "input_size": 2,
        "hidden_size": 3,
        "lengths": (2, 6, 1, 5),
    },
    "bidirectional": {
        "time": 5,
        "batch": (2,),
        "input_size": 3,
        "hidden_size": 4,
        "bidirectional": True,
    },
    "bidirectional_no_batch_axis_no_bias": {
        "time": 6,
        "batch": (),
        "input_size": 2,
        "hidden_size": 3,
        "bias": False,
        "bidirectional": True,
    },
    "three_layers_bidirectional_lengths": {
        "layers": 3,
        "time": 6,
        "batch": (4,),
        "input_size": 2,
        "hidden_size": 3,
        "lengths": (3, 1, 6, 4),
        "bidirectional": True,
    },
    "one_layer_projection": {
        "layers": 1,
        "time": 7,
        "batch": (3,),
        "input_size": 2,
        "hidden_size": 5,
        "output_size": 4,
    },
    "three_layers_projection_no_bias": {
        "layers": 3,
        "time": 5,
        "batch": (2,),
        "input_size": 6,
        "hidden_size": 4,
        "output_size": 3,
        "bias": False,
    },
    "projection_lengths": {
        "time": 6,
        "batch": (4,),
        "input_size": 3,
        "hidden_size": 5,
        "output_size": 2,
        "lengths": (1, 4, 5, 2),
    },
    "bidirectional_projection_lengths": {
        "time": 6,
        "batch": (3,),
        "input_size": 2,
        "hidden_size": 4,
        "output_size": 3,
        "lengths": (4, 6, 2),
        "bidirectional": True,
    },
}


def from_torch(weight: torch.Tensor) -> Array:
    """``[4 · hidden, n]`` as ``[n, 4, hidden]``, and ``[4 · hidden]`` as ``[4, hidden]``."""
    stacked = weight.detach().numpy()
    return np.moveaxis(stacked.reshape(4, -1, *stacked.shape[1:]), (0, 1), (-2, -1)).copy()


def run_torch(
    lstm: torch.nn.LSTM, xs: torch.Tensor, h0: torch.Tensor, c0: torch.Tensor, lengths: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """hs, h and c of all layers and directions; packed where there are lengths."""
    if lengths is None:
        hs, (h, c) = lstm(xs, (h0, c0))
        return hs, h, c
    packed = pack_padded_sequence(xs, torch.tensor(lengths), enforce_sorted=False)
    packed_hs, (h, c) = lstm(packed, (h0, c0))
    hs, _ = pad_packed_sequence(packed_hs, total_length=len(xs))
    return hs, h, c


def weights_of(lstm: torch.nn.LSTM, suffix: str) -> dict[str, Array]:
    """One layer's weights in one direction, with their gradients, which torch has found by now."""
    weights = {
        "w_ih": getattr(lstm, f"weight_ih{suffix}"),
        "w_hh": getattr(lstm, f"weight_hh{suffix}"),
    }
    named = {name: from_torch(weight) for name, weight in weights.items()}
    named |= {f"d{name}": from_torch(weight.grad) for name, weight in weights.items()}
    if lstm.bias:
        b_ih, b_hh = getattr(lstm, f"bias_ih{suffix}"), getattr(lstm, f"bias_hh{suffix}")
        torch.testing.assert_close(b_ih.grad, b_hh.grad, rtol=0, atol=1e-13)
        named |= {"b": from_torch(b_ih + b_hh), "db": from_torch(b_ih.grad)}
    if lstm.proj_size:
        w_hr = getattr(lstm, f"weight_hr{suffix}")
        named |= {"w_hr": w_hr.detach().numpy().T.copy(), "dw_hr": w_hr.grad.numpy().T.copy()}
    return named


def normal_from(seed: int) -> Callable[..., torch.Tensor]:
    """What draws normal entries of a shape."""
    draw = np.random.default_rng(seed)
    return lambda *shape: torch.from_numpy(draw.standard_normal(shape))


def fill(lstm: torch.nn.LSTM, normal: Callable[..., torch.Tensor]) -> None:
    """Draw all weights; of scale 0.6, which keeps the gates off their linear range."""
    with torch.no_grad():
        for _, parameter in sorted(lstm.named_parameters()):
            parameter.copy_(0.6 * normal(*parameter.shape))


def run_case(
    seed: int,
    *,
    time: int,
    batch: tuple[int, ...],
    input_size: int,
    hidden_size: int,
    bias: bool = True,
    lengths: tuple[int, ...] | None = None,
    reverse: bool = False,
) -> dict[str, Array]:
    """Draw one case, run it forward and backward in torch, and return all of it by name."""
    normal = normal_from(seed)
    lstm = torch.nn.LSTM(input_size, hidden_size, bias=bias, bidirectional=reverse).double()
    fill(lstm, normal)
    directions, ours = (2, slice(1, 2)) if reverse else (1, slice(0, 1))
    xs = normal(time, *batch, input_size).requires_grad_()
    h0 = normal(directions, *batch, hidden_size).requires_grad_()
    c0 = normal(directions, *batch, hidden_size).requires_grad_()
    both_hs, both_h, both_c = run_torch(lstm, xs, h0, c0, lengths)
    hs, h, c = both_hs[..., -hidden_size:], both_h[ours][0], both_c[ours][0]

    dhs, dh, dc = normal(*hs.shape), normal(*h.shape), normal(*c.shape)
    torch.autograd.backward((hs, h, c), (dhs, dh, dc))

    case = weights_of(lstm, "_l0_reverse" if reverse else "_l0")
    tensors = {"xs": xs, "dxs": xs.grad, "hs": hs, "h": h, "c": c, "dhs": dhs, "dh": dh, "dc": dc}
    tensors |= {"h0": h0[ours][0], "dh0": h0.grad[ours][0]}
    tensors |= {"c0": c0[ours][0], "dc0": c0.grad[ours][0]}
    case |= {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    case["reverse"] = np.array(reverse)
    if lengths is not None:
        case["lengths"] = np.array(lengths)
    return case


def run_stack(
    seed: int,
    *,
    time: int,
    batch: tuple[int, ...],
    input_size: int,
    hidden_size: int,
    output_size: int = 0,
    layers: int = 2,
    bias: bool = True,
    lengths: tuple[int, ...] | None = None,
    bidirectional: bool = False,
) -> dict[str, Array]:
    """The same for a stack; ``output_size`` is that of the projection, 0 for none."""
    normal = normal_from(seed)
    lstm = torch.nn.LSTM(
        input_size,
        hidden_size,
        num_layers=layers,
        bias=bias,
        bidirectional=bidirectional,
        proj_size=output_size,
    ).double()
    fill(lstm, normal)
    walks = layers * (2 if bidirectional else 1)
    xs = normal(time, *batch, input_size).requires_grad_()
    h0 = normal(walks, *batch, output_size or hidden_size).requires_grad_()
    c0 = normal(walks, *batch, hidden_size).requires_grad_()
    results = run_torch(lstm, xs, h0, c0, lengths)
    cotangents = tuple(normal(*result.shape) for result in results)
    torch.autograd.backward(results, cotangents)

    directions = {"forward": "", "backward": "_reverse"} if bidirectional else {"forward": ""}
    case = {}
    for layer, (direction, suffix) in itertools.product(range(layers), directions.items()):
        for name, weight in weights_of(lstm, f"_l{layer}{suffix}").items():
            d, plain = ("d", name[1:]) if name.startswith("d") else ("", name)
            case[f"{d}{layer}.{direction}.{plain}"] = weight
    tensors = {"xs": xs, "h0": h0, "c0": c0, "dxs": xs.grad, "dh0": h0.grad, "dc0": c0.grad}
    tensors |= dict(zip(("hs", "h", "c"), results, strict=True))
    tensors |= dict(zip(("dhs", "dh", "dc"), cotangents, strict=True))
    case |= {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    if lengths is not None:
        case["lengths"] = np.array(lengths)
    return case


# State dicts as torch names and orders them, with all that an import can meet.
STATES: dict[str, dict[str, Any]] = {
    "plain": {"input_size": 3, "hidden_size": 4},
    "no_bias": {"input_size": 3, "hidden_size": 4, "bias": False},
    "stack": {"input_size": 3, "hidden_size": 4, "num_layers": 3},
    "bidirectional": {
        "input_size": 3,
        "hidden_size": 4,
        "num_layers": 2,
        "bidirectional": True,
    },
    "projection": {"input_size": 3, "hidden_size": 4, "num_layers": 2, "proj_size": 2},
    "everything": {
        "input_size": 3,
        "hidden_size": 4,
        "num_layers": 2,
        "proj_size": 2,
        "bidirectional": True,
        "bias": False,
    },
    "cell": {"input_size": 3, "hidden_size": 4},
}


def run_state(seed: int, **options: Any) -> dict[str, Array]:
    """A module's state dict, hs of random xs, and the gradients of all under a random dhs."""
    torch.manual_seed(seed)
    cell = seed == list(STATES).index("cell")
    module = (torch.nn.LSTMCell if cell else torch.nn.LSTM)(**options, dtype=torch.float64)
    xs = torch.randn(6, 4, options["input_size"], dtype=torch.float64, requires_grad=True)
    if cell:
        state, steps = None, []
        for x in xs:
            state = module(x, state)
            steps.append(state[0])
        hs = torch.stack(steps)
    else:
        hs, _ = module(xs)
    dhs = torch.randn(hs.shape, dtype=torch.float64)
    hs.backward(dhs)
    case = {"xs": xs, "hs": hs, "dhs": dhs, "dxs": xs.grad}
    for name, weight in module.named_parameters():
        case |= {f"state.{name}": weight, f"gradient.{name}": weight.grad}
    return {name: tensor.detach().numpy() for name, tensor in case.items()}


FILES: dict[str, tuple[Callable[..., dict[str, Array]], dict[str, Any]]] = {
    "torch_lstm": (run_case, CASES),
    "torch_stacks": (run_stack, STACKS),
    "torch_states": (run_state, STATES),
}


def generate(file: str) -> dict[str, Array]:
    """All cases of a file, keyed ``case/name``; the seed of a case is its place in the list."""
    run, cases = FILES[file]
    return {
        f"{name}/{leaf}": array
        for seed, (name, sizes) in enumerate(cases.items())
        for leaf, array in run(seed, **sizes).items()
    }


if __name__ == "__main__":
    for file in FILES:
        path = FOLDER / f"{file}.npz"
        np.savez_compressed(path, **generate(file))
        print(f"{path}: {path.stat().st_size} bytes, torch {torch.__version__}")
