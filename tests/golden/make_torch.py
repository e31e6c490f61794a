"""Write torch_lstm.npz: results and gradients of ``torch.nn.LSTM``, in float64, in jlstm's layout.

To run it, in an environment of its own (any CPU build of torch will do):

    python -m venv torch-env
    torch-env/bin/pip install torch==2.13.0 numpy
    torch-env/bin/python tests/golden/make_torch.py

Keys are ``case/name``. Inputs are ``w_ih [input, 4, hidden]``, ``w_hh [hidden, 4, hidden]``,
``b [4, hidden]`` (absent without bias), ``h0, c0 [*batch, hidden]``, ``xs [time, *batch, input]``,
``lengths [batch]`` (absent where all are full), ``reverse`` (a bool), and the cotangents ``dhs, dh,
dc``. Results are ``hs, h, c`` and the gradients ``dw_ih, dw_hh, db, dh0, dc0, dxs``.

torch keeps a weight as ``[4 · hidden, input]``, gates i, f, g, o stacked in that order, and adds
two biases; jlstm's b is their sum, whose gradient is that of either. torch cannot run in reverse
only, so a reverse case is the second direction of a bidirectional LSTM, with no cotangent on the
first. Sequences of several lengths go through ``pack_padded_sequence``, which knows no length 0.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Array = npt.NDArray[Any]

PATH = Path(__file__).with_name("torch_lstm.npz")

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


def from_torch(weight: torch.Tensor) -> Array:
    """``[4 · hidden, n]`` as ``[n, 4, hidden]``, and ``[4 · hidden]`` as ``[4, hidden]``."""
    stacked = weight.detach().numpy()
    return np.moveaxis(stacked.reshape(4, -1, *stacked.shape[1:]), (0, 1), (-2, -1)).copy()


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
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(draw.standard_normal(shape))

    lstm = torch.nn.LSTM(input_size, hidden_size, bias=bias, bidirectional=reverse).double()
    with torch.no_grad():
        for _, parameter in sorted(lstm.named_parameters()):
            parameter.copy_(0.6 * normal(*parameter.shape))

    directions, ours = (2, slice(1, 2)) if reverse else (1, slice(0, 1))
    xs = normal(time, *batch, input_size).requires_grad_()
    h0 = normal(directions, *batch, hidden_size).requires_grad_()
    c0 = normal(directions, *batch, hidden_size).requires_grad_()
    if lengths is None:
        both_hs, (h, c) = lstm(xs, (h0, c0))
    else:
        packed = pack_padded_sequence(xs, torch.tensor(lengths), enforce_sorted=False)
        packed_hs, (h, c) = lstm(packed, (h0, c0))
        both_hs, _ = pad_packed_sequence(packed_hs, total_length=time)
    hs, h, c = both_hs[..., -hidden_size:], h[ours][0], c[ours][0]

    dhs, dh, dc = normal(*hs.shape), normal(*h.shape), normal(*c.shape)
    torch.autograd.backward((hs, h, c), (dhs, dh, dc))

    suffix = "_reverse" if reverse else ""
    weights = {
        "w_ih": getattr(lstm, f"weight_ih_l0{suffix}"),
        "w_hh": getattr(lstm, f"weight_hh_l0{suffix}"),
    }
    case = {name: from_torch(weight) for name, weight in weights.items()}
    case |= {f"d{name}": from_torch(weight.grad) for name, weight in weights.items()}
    if bias:
        b_ih, b_hh = getattr(lstm, f"bias_ih_l0{suffix}"), getattr(lstm, f"bias_hh_l0{suffix}")
        torch.testing.assert_close(b_ih.grad, b_hh.grad, rtol=0, atol=1e-14)
        case |= {"b": from_torch(b_ih + b_hh), "db": from_torch(b_ih.grad)}
    tensors = {"xs": xs, "dxs": xs.grad, "hs": hs, "h": h, "c": c, "dhs": dhs, "dh": dh, "dc": dc}
    tensors |= {"h0": h0[ours][0], "dh0": h0.grad[ours][0]}
    tensors |= {"c0": c0[ours][0], "dc0": c0.grad[ours][0]}
    case |= {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    case["reverse"] = np.array(reverse)
    if lengths is not None:
        case["lengths"] = np.array(lengths)
    return case


def generate() -> dict[str, Array]:
    """All cases, keyed ``case/name``; the seed of a case is its place in the list."""
    return {
        f"{name}/{leaf}": array
        for seed, (name, sizes) in enumerate(CASES.items())
        for leaf, array in run_case(seed, **sizes).items()
    }


if __name__ == "__main__":
    np.savez_compressed(PATH, **generate())
    print(f"{PATH}: {PATH.stat().st_size} bytes, torch {torch.__version__}")
