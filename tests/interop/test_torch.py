"""PyTorch's LSTM: its state dicts, as its own files and as safetensors.

What torch gave is in ``golden/torch_states.npz``; torch itself is asked where it is installed, as
in the environment of ``make test-torch``.
"""

import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interop_witness import (
    NOBODY_ELSE_HAS,
    PROJECTED,
    assert_agree,
    assert_same,
    drawn,
    inputs,
    run_stack,
)

from jlstm import Stack, Variant
from jlstm.extras import MissingExtraError
from jlstm.interop.looking import look
from jlstm.interop.torch import from_torch, read_state, to_torch, write_state
from jlstm.tensors import read_tensors, write_tensors

STACKS = {
    "plain": Stack(sizes=4),
    "no_bias": Stack(sizes=4),
    "stack": Stack(sizes=(4, 4, 4)),
    "bidirectional": Stack(sizes=(4, 4), bidirectional=True),
    "projection": Stack(sizes=(4, 4), output_sizes=2, gates=Variant()),
    "everything": Stack(sizes=(4, 4), output_sizes=2, gates=Variant(), bidirectional=True),
    "cell": Stack(sizes=4),
}


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "golden" / "torch_states.npz"
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def below(stored: dict[str, Any], place: str) -> dict[str, Any]:
    return {n.removeprefix(place): a for n, a in stored.items() if n.startswith(place)}


@pytest.mark.parametrize("case", STACKS)
def test_torch_gave(golden: dict[str, Any], case: str) -> None:
    """The configuration from the weights; hs and all gradients."""
    stored = below(golden, f"{case}/")
    state, gradient = below(stored, "state."), below(stored, "gradient.")
    stack, params = from_torch(state)
    assert stack == STACKS[case]
    xs = stored["xs"]

    # Of the sum of the two biases, the gradient is that of either.
    one = {n: np.zeros_like(a) if n.startswith("bias_hh") else a for n, a in gradient.items()}
    hs, dparams, dxs = run_under(stored["dhs"], stack, params, xs)
    assert_agree((hs, dparams, dxs), (stored["hs"], from_torch(one)[1], stored["dxs"]))

    back = to_torch(stack, params, cell=case == "cell")
    assert {name: a.shape for name, a in back.items()} == {n: a.shape for n, a in state.items()}
    assert_same(from_torch(back)[1], params)
    for name, a in state.items():
        if name.startswith("bias_ih"):
            assert_same(back[name], a + state[name.replace("_ih", "_hh")])
        elif name.startswith("bias_hh"):
            assert not back[name].any()
        else:
            assert_same(back[name], a)


def run_under(dhs: Any, stack: Stack, params: Any, xs: Any) -> Any:
    """As ``run_stack``, but under this cotangent."""
    import jax

    import jlstm

    def both(params: Any, xs: Any) -> Any:
        hs, pull_back = jax.vjp(lambda p, a: jlstm.stack(stack, p, None, a)[1], params, xs)
        return hs, *pull_back(jnp.asarray(dhs))

    return jax.tree.map(np.asarray, jax.jit(both)(*jax.tree.map(jnp.asarray, (params, xs))))


def test_the_sum_with_zeros_is_bitwise() -> None:
    """Also of −0, which −0 + 0 is not."""
    stack = Stack(sizes=4)
    params = drawn(stack)
    params[0].forward.b[:, :2] = [-0.0, 0.0]
    assert_same(from_torch(to_torch(stack, params))[1], params)


def model(golden: dict[str, Any]) -> dict[str, Any]:
    """A state dict as of a whole model: two LSTMs, a cell, a GRU and a linear layer."""
    state = {"linear.weight": np.zeros((4, 3)), "gru.weight_hh_l0": np.zeros((12, 4))}
    for prefix, case in (("lstm.", "bidirectional"), ("a.b.lstm.", "plain"), ("cell.", "cell")):
        state |= {prefix + n: a for n, a in below(golden, f"{case}/state.").items()}
    return state


def test_prefixes(golden: dict[str, Any]) -> None:
    state = model(golden)
    with pytest.raises(
        ValueError, match=r"prefix: expected it .* not one LSTM, got 'a.b.lstm.', 'cell.', 'lstm.'$"
    ):
        from_torch(state)
    for prefix, case in (("lstm.", "bidirectional"), ("a.b.lstm.", "plain"), ("cell.", "cell")):
        stack, params = from_torch(state, prefix=prefix)
        assert stack == STACKS[case]
        assert_same(from_torch(below(state, prefix))[1], params)
        again = to_torch(stack, params, prefix=prefix, cell=case == "cell")
        assert all(name.startswith(prefix) for name in again)
    with pytest.raises(ValueError, match=r"prefix: expected one of .*'lstm.', got 'x.'"):
        from_torch(state, prefix="x.")
    with pytest.raises(ValueError, match=r"gru.weight_hh_l0|missing"):
        from_torch(state, prefix="gru.")
    # The only one needs no name.
    alone = {n: a for n, a in state.items() if n.startswith(("linear.", "gru.", "a.b."))}
    assert from_torch(alone)[0] == STACKS["plain"]
    with pytest.raises(ValueError, match=r"got none: the names are 'linear.weight'$"):
        from_torch({"linear.weight": np.zeros((4, 3))})
    gru = {name: a for name, a in state.items() if name.startswith(("linear.", "gru."))}
    with pytest.raises(ValueError, match=r"gru.weight_hh_l0 is \[12, 4\], and an LSTM"):
        from_torch(gru)
    for source in (None, [state], 3):
        with pytest.raises(TypeError, match=r"source: expected a state dict .*state_dict\(\)"):
            from_torch(source)


def test_several_that_follow_one_another(golden: dict[str, Any]) -> None:
    """Of any sizes, as torch has them in a list of modules."""
    stack = Stack(sizes=(5, 4, 6))
    params = drawn(stack)
    for cell in (False, True):
        state = to_torch(stack, params, prefix=["a.", "b.", "c."], cell=cell)
        assert state["b.weight_ih" + "_l0" * (not cell)].shape == (16, 5)
        back, weights = from_torch(state, prefix=["a.", "b.", "c."])
        assert back == stack
        assert_same(weights, params)
    # One of two layers, and one upon it.
    lower, upper = below(golden, "bidirectional/state."), Stack(sizes=3, bidirectional=True)
    first, own = from_torch(lower)
    second = drawn(upper, first.output_size)
    mixed = {f"0.{n}": a for n, a in lower.items()} | to_torch(upper, second, prefix="1.")
    back, weights = from_torch(mixed, prefix=["0.", "1."])
    assert back == Stack(sizes=(4, 4, 3), bidirectional=True)
    assert_same(weights, own + second)
    with pytest.raises(ValueError, match="layer 1: expected 6 inputs"):
        from_torch(state, prefix=["c.", "b.", "a."])
    with pytest.raises(ValueError, match=r"prefix: expected one of .*'a.'.* got 'x.'"):
        from_torch(state, prefix=["a.", "x."])
    with pytest.raises(ValueError, match="prefix: expected another for each of 3"):
        to_torch(stack, params, prefix=["a.", "b.", "a."])


def test_state_dicts_that_do_not_fit_are_refused(golden: dict[str, Any]) -> None:
    state = below(golden, "stack/state.")
    without = {name: a for name, a in state.items() if name != "weight_ih_l1"}
    with pytest.raises(ValueError, match=r"missing: 'weight_ih_l1'; unknown: "):
        from_torch(without | {"weight_ih_l3": state["weight_ih_l1"]})
    for name, value, error, match in (
        ("weight_hh_l1_reverse", state["weight_hh_l1"], ValueError, "unknown: 'weight_hh_l1_rev"),
        ("weight_hr_l1", np.zeros((2, 4)), ValueError, "unknown: 'weight_hr_l1'"),
        ("weight_ih_l1", np.zeros((16, 5)), ValueError, "layer 1: expected 4 inputs.* got 5"),
        ("weight_ih_l1", np.zeros((12, 4)), ValueError, r"weight_ih_l1: expected shape \[16, inp"),
        ("bias_hh_l2", np.zeros(15), ValueError, r"bias_hh_l2: expected shape \[16\], got \[15\]"),
        ("bias_hh_l2", np.zeros((2**10, 4)), ValueError, r"expected shape \[16\]"),
        ("weight_ih_l0", np.zeros((16, 3), np.float32), TypeError, "expected dtype|dtype float"),
        ("weight_ih_l0", np.zeros((16, 3), int), TypeError, "expected a floating-point dtype"),
        ("weight_ih_l0", "w", TypeError, "weight_ih_l0: expected an array, got str"),
    ):
        with pytest.raises(error, match=match):
            from_torch(state | {name: value}, prefix="")
    with pytest.raises(ValueError, match=r"missing: 'bias_hh_l0', 'bias_hh_l1', 'bias_hh_l2'"):
        from_torch({name: a for name, a in state.items() if not name.startswith("bias_hh")})


REFUSED = NOBODY_ELSE_HAS | {
    "offset": (Stack(sizes=4, gates=Variant(forget_offset=1.0)), "forget_offset: .*torch"),
    "sizes": (Stack(sizes=(4, 5)), "sizes: .*one size for all layers"),
    "output_sizes": (
        Stack(sizes=(4, 4), output_sizes=(2, 3), gates=Variant()),
        "output_sizes: .*one size for all layers",
    ),
    "no_smaller": (
        Stack(sizes=4, output_sizes=4, gates=Variant()),
        "output_sizes: .*fewer than the units.* 4 of 4",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_torch_cannot_represent_is_refused(case: str) -> None:
    stack, match = REFUSED[case]
    with pytest.raises(ValueError, match=match):
        to_torch(stack, drawn(stack))


def test_what_a_cell_of_torch_cannot_represent_is_refused() -> None:
    for stack, match in (
        (Stack(sizes=(4, 4)), "sizes: .*LSTMCell .*one layer"),
        (Stack(sizes=4, bidirectional=True), "bidirectional: .*LSTMCell"),
        (PROJECTED, "output_sizes: .*LSTMCell"),
    ):
        with pytest.raises(ValueError, match=match):
            to_torch(stack, drawn(stack), cell=True)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_safetensors(tmp_path: Path, dtype: Any) -> None:
    stack = STACKS["everything"]
    params = drawn(stack, dtype=dtype)
    write_state(tmp_path / "m.safetensors", to_torch(stack, params, prefix="lstm."))
    back, weights = from_torch(tmp_path / "m.safetensors")
    assert back == stack
    assert_same(weights, params)
    assert "lstm.weight_hr_l1_reverse" in read_tensors(tmp_path / "m.safetensors")[0]
    # What is counted besides, by a BatchNorm for instance, is no weight.
    arrays = read_tensors(tmp_path / "m.safetensors")[0] | {"norm.steps": np.array(3)}
    write_tensors(tmp_path / "m.safetensors", arrays)
    assert_same(from_torch(tmp_path / "m.safetensors")[1], params)
    assert "norm.steps" not in read_state(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"expected a name that ends in \.safetensors"):
        write_state(tmp_path / "m.pt", {})


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"\xff" * 99)
    with pytest.raises(ValueError, match="expected a safetensors file"):
        from_torch(tmp_path / "m.safetensors")
    with pytest.raises(FileNotFoundError):
        from_torch(tmp_path / "nothing.safetensors")


def test_without_torch_its_files_say_what_is_missing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from jlstm.interop.torch import from_torch\n"
        f"from_torch({str(tmp_path / 'm.pt')!r})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert MissingExtraError.__name__ in said
    assert "torch is not installed" in said
    assert "pip install torch" in said


SHAPES = st.sampled_from([(16, 3), (16, 4), (16,), (0, 0), (), (2, 4), (16, 2), (8, 2), (12, 4)])
NAMES = st.sampled_from(
    [
        f"{prefix}{kind}{place}"
        for prefix in ("", "x.")
        for kind in ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")
        for place in ("", "_l0", "_l1", "_l0_reverse", "_l00", "_l" + "9" * 30, "_l-1")
    ]
    + ["weight", "", 3]
)


@given(
    st.dictionaries(NAMES, SHAPES.map(np.zeros) | st.none() | st.text(max_size=2)),
    st.sampled_from([None, "", "x."]),
    st.sampled_from(sorted(STACKS)),
)
def test_any_state_dict_is_taken_or_refused(
    golden: dict[str, Any], changes: Any, prefix: Any, case: str
) -> None:
    for state in (changes, below(golden, f"{case}/state.") | changes):
        try:
            from_torch(state, prefix=prefix)
        except (TypeError, ValueError):
            continue


# With torch itself


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed; make test-torch has it")


def module_of(torch: Any, stack: Stack, bias: bool = True) -> Any:
    first = stack.cells[0]
    return torch.nn.LSTM(
        3,
        first.size,
        len(stack.cells),
        bias=bias,
        bidirectional=stack.bidirectional,
        proj_size=first.output or 0,
        dtype=torch.float64,
    )


@pytest.mark.parametrize("case", STACKS)
def test_ours_into_theirs(torch: Any, case: str) -> None:
    """All sizes, weights of ours: the same hs, and the same gradients."""
    stack, bias, xs = STACKS[case], case != "no_bias", inputs()
    params = drawn(stack, bias=bias)
    state = {name: torch.from_numpy(a) for name, a in to_torch(stack, params).items()}
    module = module_of(torch, stack, bias)
    module.load_state_dict(state)  # strict: the same names and shapes
    theirs = torch.tensor(xs, requires_grad=True)
    hs, _ = module(theirs)
    dhs = np.random.default_rng(13).standard_normal(hs.shape)
    hs.backward(torch.from_numpy(dhs))
    gradient = {
        name: torch.zeros_like(w) if name.startswith("bias_hh") else w.grad
        for name, w in module.named_parameters()
    }
    expected = hs.detach().numpy(), from_torch(gradient)[1], theirs.grad.numpy()
    assert_agree(run_stack(stack, params, xs), expected)
    assert_same(from_torch(module.state_dict())[1], params)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_files_of_torch(torch: Any, tmp_path: Path, dtype: str) -> None:
    module = torch.nn.Module()
    module.lstm = module_of(torch, STACKS["everything"]).to(getattr(torch, dtype))
    module.steps = torch.nn.Parameter(torch.tensor([3]), requires_grad=False)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    stack, params = from_torch(tmp_path / "m.pt")
    assert stack == STACKS["everything"]
    assert_same(from_torch(module.state_dict(), prefix="lstm.")[1], params)
    assert jnp.dtype(params[0].forward.w_ih.dtype).name == dtype
    from safetensors.torch import load_file, save_file

    save_file(module.state_dict(), tmp_path / "m.safetensors")
    assert "steps" in module.state_dict()
    for name in ("m.pt", "m.safetensors"):
        assert "steps" not in read_state(tmp_path / name)  # integers
    del module.steps
    assert_same(from_torch(tmp_path / "m.safetensors")[1], params)
    write_state(tmp_path / "n.safetensors", to_torch(stack, params, prefix="lstm."))
    module.load_state_dict(load_file(tmp_path / "n.safetensors"))


class Hostile:
    """What runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_files_of_torch_that_are_more_than_weights(torch: Any, tmp_path: Path) -> None:
    path, hostile = tmp_path / "m.pt", Hostile(tmp_path / "it-ran")
    whole = torch.nn.LSTM(3, 4)
    for thing in (hostile, {"weight_ih_l0": hostile}, whole, OrderedDict(a=whole)):
        torch.save(thing, path)
        with pytest.raises(ValueError, match=r"m.pt: expected a state dict saved by") as raised:
            from_torch(path)
        assert "still be loaded" not in str(raised.value)  # torch's advice to run it anyway
        path.write_bytes(pickle.dumps(hostile))
        with pytest.raises(ValueError, match=r"m.pt: expected a state dict saved by torch, got: "):
            from_torch(path)
    assert not hostile.path.exists()
    torch.save([torch.zeros(3)], path)
    with pytest.raises(ValueError, match=r"m.pt: expected a state dict, got list"):
        from_torch(path)
    torch.save({"state_dict": whole.state_dict(), "epoch": 3}, path)
    with pytest.raises(ValueError, match=r"m\.pt: .*may have one below 'state_dict': from_torch"):
        from_torch(path)
    inner = torch.load(path, weights_only=True)["state_dict"]
    assert from_torch(inner)[0] == Stack(sizes=4)


@pytest.mark.parametrize("ending", ["pt", "pth", "bin"])
def test_looked_into(torch: Any, tmp_path: Path, ending: str) -> None:
    """``jlstm import`` says what is in a file, and the code that it shows does it."""
    module = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 4), "gru": torch.nn.GRU(3, 4)})
    path = tmp_path / f"m.{ending}"
    torch.save(module.state_dict(), path)
    (found,) = look(path)
    assert "3 inputs to 4 outputs" in found.what
    names: dict[str, Any] = {"xs": inputs().astype(np.float32)}
    exec("\n".join(found.code), names)
    hs = module["lstm"](torch.from_numpy(names["xs"]))[0].detach().numpy()
    np.testing.assert_allclose(names["hs"], hs, atol=1e-6)
    torch.save(torch.nn.GRU(3, 4).state_dict(), path)
    with pytest.raises(ValueError, match="expected weights of an LSTM, got 'weight_ih_l0'"):
        look(path)


@given(st.data())
def test_damaged_files_of_torch(torch: Any, tmp_path_factory: Any, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.pt"
    torch.save(torch.nn.LSTM(3, 4).state_dict(), path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        name = next(name for name in file.namelist() if name.endswith("data.pkl"))
        start = content.find(file.read(name))
        size = file.getinfo(name).file_size
    places = st.tuples(st.integers(start, start + size - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, max_size=3)):
        content[place] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for damaged in (bytes(content), path.read_bytes()):
        path.write_bytes(damaged)
        try:
            from_torch(path)
        except (TypeError, ValueError):
            continue
    try:
        read_state(path)
    except ValueError:
        return
