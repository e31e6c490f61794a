"""``save`` and ``load``: every stack that is data comes back, and nothing else is let in."""

import dataclasses
import json
import os
import pickle
import tracemalloc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load as parse
from safetensors.numpy import save as unparse

import jlstm
from jlstm import PLAIN, SLSTM, Stack, Variant, activations, init_stack
from jlstm.saving import ACTIVATIONS, read_stack
from jlstm.tensors import read_header

# Every option away from its default, as far as they go together.
FULL = Variant(
    peepholes=True,
    layer_norm=True,
    epsilon=1e-3,
    gate=activations.hard_sigmoid(0.25, 0.4),
    candidate=activations.softsign,
    output=activations.elu(0.7),
    forget_offset=0.1,
    preact_clip=9.0,
    cell_clip=5.0,
    projection_clip=2.0,
    zoneout_h=0.1,
    zoneout_c=0.2,
    recurrent_dropout=0.3,
    state_dropout=0.4,
    deterministic=True,
    product_dtype=jnp.bfloat16,
)
STACKS = {
    "plain": Stack(sizes=4),
    "deep": Stack(sizes=(3, 5, 2), dropout=0.1, input_dropout=0.2, output_dropout=0.3),
    "evaluated": Stack(sizes=(3, 5), dropout=0.1, variational=False, deterministic=True),
    "both_directions": Stack(sizes=(3, 4), bidirectional=True, learned_carry=True),
    "skip": Stack(sizes=(3, 4), connections="skip", bidirectional=True),
    "residual": Stack(sizes=(3, 3), connections="residual", reverse=True),
    "full": Stack(sizes=(5, 6), output_sizes=(3, 4), gates=FULL, learned_carry=True),
    "coupled": Stack(sizes=3, gates=Variant(coupled=True), bidirectional=True),
    "slstm": Stack(sizes=(4, 6), gates=SLSTM(heads=2, forget="exp"), learned_carry=True),
    "mixed": Stack(
        sizes=(4, 6, 5),
        output_sizes=(None, None, 3),
        gates=((PLAIN, Variant(peepholes=True)), SLSTM(heads=3), Variant()),
        bidirectional=True,
    ),
}


def drawn(stack: Stack, dtype: Any = jnp.float32, bias: bool = True) -> Any:
    params = init_stack(jax.random.key(1), 7, stack, dtype=dtype, bias=bias)
    draw = np.random.default_rng(2)
    return jax.tree.map(lambda a: jnp.asarray(draw.normal(size=a.shape), a.dtype), params)


def assert_same(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("name", STACKS)
def test_there_and_back(tmp_path, name):
    stack, params = STACKS[name], drawn(STACKS[name])
    jlstm.save(tmp_path / "m.safetensors", stack, params)
    back, weights = jlstm.load(tmp_path / "m.safetensors")
    assert back == stack
    assert_same(params, weights)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_dtypes(tmp_path, dtype, bias):
    params = drawn(STACKS["both_directions"], dtype, bias)
    jlstm.save(tmp_path / "m", STACKS["both_directions"], params)
    assert_same(params, jlstm.load(tmp_path / "m")[1])


def test_the_options_tested_are_all():
    assert not [f.name for f in dataclasses.fields(Variant)
                if f.name != "coupled" and getattr(FULL, f.name) == f.default]  # fmt: skip
    for field in dataclasses.fields(Stack):
        assert any(getattr(stack, field.name) != field.default for stack in STACKS.values())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_has_a_name(tmp_path, name):
    own = getattr(activations, name)
    own = (
        own if isinstance(own, activations.Activation) else own(*(0.3, 0.6)[: len(own().constants)])
    )
    stack = Stack(sizes=2, gates=Variant(gate=own, candidate=own, output=own))
    jlstm.save(tmp_path / "m", stack, drawn(stack))
    assert jlstm.load(tmp_path / "m")[0] == stack


def test_no_activation_is_forgotten():
    public = {
        name
        for name, value in vars(activations).items()
        if isinstance(value, activations.Activation)
        or (callable(value) and getattr(value, "__module__", "") == activations.__name__)
    }
    assert {n for n in public if not n.startswith("_")} - {"Activation", "activation"} == {
        *ACTIVATIONS
    }


def test_numbers_of_numpy(tmp_path):
    stack = Stack(
        sizes=np.array([3, 4]).tolist(), dropout=np.float32(0.1), gates=SLSTM(heads=np.int64(1))
    )
    jlstm.save(tmp_path / "m", stack, drawn(stack))
    assert jlstm.load(tmp_path / "m")[0] == stack


# What is refused on the way out


def test_code_is_refused(tmp_path):
    mine = Stack(sizes=2, gates=Variant(gate=activations.activation(jnp.sin)))
    with pytest.raises(ValueError, match=r"gate: .* activation\(sin\) is code"):
        jlstm.save(tmp_path / "m", mine, drawn(mine))

    @dataclasses.dataclass(frozen=True)
    class Own(SLSTM):
        """A cell of one's own, however like another."""

    own = Stack(sizes=2, gates=Own())
    with pytest.raises(ValueError, match=r"gates: .*Own.* is code"):
        jlstm.save(tmp_path / "m", own, drawn(own))
    assert not [*tmp_path.iterdir()]


def test_weights_of_another_stack_are_refused(tmp_path):
    one, two = STACKS["plain"], STACKS["deep"]
    for params, stack, error, match in (
        (drawn(one), two, ValueError, "params: expected one for each of 3 layers"),
        (drawn(one), Stack(sizes=5), ValueError, r"params\[0\].forward: expected 5 units"),
        (drawn(one), Stack(sizes=4, bidirectional=True), ValueError, "backward: expected weights"),
        (drawn(one), Stack(sizes=4, learned_carry=True), ValueError, "start: expected weights"),
        (drawn(one), Stack(sizes=4, gates=SLSTM()), TypeError, "expected SLSTMParams"),
        ([drawn(one)[0].forward], one, TypeError, "expected LayerParams"),
        (drawn(one), "stack", TypeError, "stack: expected Stack, got str"),
        (
            (*drawn(two)[:1], *drawn(two, jnp.float64)[1:]),
            two,
            ValueError,
            "expected 3 inputs of float32",
        ),
    ):
        with pytest.raises(error, match=match):
            jlstm.save(tmp_path / "m", stack, params)
    assert not [*tmp_path.iterdir()]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m"
    jlstm.save(path, STACKS["plain"], drawn(STACKS["plain"]))
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space"):
        jlstm.save(path, STACKS["deep"], drawn(STACKS["deep"]))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m"]


# What is refused on the way in


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "m"
    jlstm.save(path, STACKS["mixed"], drawn(STACKS["mixed"]))
    return path.read_bytes()


def changed(content: bytes, change: Any = None, arrays: Any = None) -> bytes:
    """The file with its header, or its arrays, changed."""
    size = int.from_bytes(content[:8], "little")
    said = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["jlstm"])
    said = change(said) if change else said
    tensors = parse(content)
    tensors = arrays(tensors) if arrays else tensors
    text = said if isinstance(said, str) else json.dumps(said)
    return unparse(tensors, metadata={"jlstm": text})


def in_stack(**options: Any) -> Any:
    return lambda said: said | {"stack": said["stack"] | options}


def first_cell(cell: Any) -> Any:
    return lambda said: in_stack(gates=[cell, *said["stack"]["gates"][1:]])(said)


HEADERS = {
    "another_version": (lambda s: s | {"version": 2}, "version: expected 1, got 2"),
    "no_version": (lambda s: {"stack": s["stack"]}, "expected an object with a version"),
    "version_true": (lambda s: s | {"version": True}, "version: expected 1, got True"),
    "no_stack": (lambda s: {"version": 1}, "stack: expected an object"),
    "more": (lambda s: s | {"x": 1}, r"metadata: expected keys out of .* got \['x'\]"),
    "unknown_option": (in_stack(gate="σ"), "stack: expected keys out of"),
    "no_json": (lambda s: "{", "Expecting property name"),
    "a_list": (lambda s: "[]", "expected an object with a version"),
    "deep": (lambda s: "[" * 100_000, "nested at most 64"),
    "twice": (lambda s: '{"version": 1, "version": 1}', "each key once"),
    "fewer_layers": (in_stack(sizes=[4, 6]), "output_sizes: expected one for each of 2 layers"),
    "sizes_one": (in_stack(sizes=4), "sizes: expected a list"),
    "sizes_text": (in_stack(sizes=["4", 6, 5]), "sizes: expected an int"),
    "sizes_huge": (in_stack(sizes=[10**15, 6, 5]), "sizes: expected at most"),
    "so_many_layers": (in_stack(sizes=[4] * 10**6), "sizes: expected a list with one entry"),
    "size": (in_stack(sizes=[4, 6, 50]), "expected 50 units"),
    "rate": (in_stack(dropout=2), "dropout: expected a finite number"),
    "rate_nan": (in_stack(dropout=float("nan")), "dropout: expected a finite number"),
    "flag": (in_stack(learned_carry=1), "learned_carry: expected True or False"),
    "connections": (in_stack(connections="dense"), "connections: expected one of"),
    "one_direction": (in_stack(bidirectional=False), "gates: expected a single one"),
    "cell_unknown": (first_cell({"cell": "gru"}), "gates: expected a cell out of plain"),
    "cell_list": (first_cell({"cell": ["plain"]}), "gates: expected a cell out of plain"),
    "cell_text": (first_cell("plain"), "gates: expected a cell out of plain"),
    "cell_option": (first_cell({"cell": "plain", "x": 1}), "gates: expected keys out of"),
    "cell_number": (
        first_cell({"cell": "variant", "forget_offset": 10**400}),
        "int too large to convert",
    ),
    "cell_dtype": (
        first_cell({"cell": "variant", "product_dtype": "O"}),
        "product_dtype: expected a floating-point dtype",
    ),
    "activation": (
        first_cell({"cell": "variant", "gate": {"activation": "activation", "constants": []}}),
        "gate: expected one of sigmoid",
    ),
    "activation_text": (
        first_cell({"cell": "variant", "gate": "tanh"}),
        "gate: expected an object",
    ),
    "constants": (
        first_cell({"cell": "variant", "gate": {"activation": "elu", "constants": [1, 2]}}),
        "gate: expected 1 constants of elu",
    ),
    "constant_text": (
        first_cell({"cell": "variant", "gate": {"activation": "elu", "constants": ["1"]}}),
        "alpha: expected a number",
    ),
    "heads": (
        lambda s: in_stack(gates=[*s["stack"]["gates"][::2], {"cell": "slstm", "heads": 2}])(s),
        r"params\[1\].forward: params: expected VariantParams|output_sizes: expected None",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_is_not_ours_is_refused(tmp_path, content, case):
    change, match = HEADERS[case]
    (tmp_path / "m").write_bytes(changed(content, change))
    with pytest.raises(ValueError, match=match) as caught:
        jlstm.load(tmp_path / "m")
    assert str(caught.value).startswith(str(tmp_path / "m"))


ARRAYS = {
    "missing": (lambda a: {n: w for n, w in a.items() if n != "1.forward.w_hh"}, "w_hh"),
    "missing_peepholes": (
        lambda a: {n: w for n, w in a.items() if "peep" not in n},
        "peepholes: expected an array",
    ),
    "unknown": (lambda a: a | {"x": np.zeros(3, np.float32)}, r"expected only the arrays .*'x'"),
    "a_path": (lambda a: a | {"../x": np.zeros(3, np.float32)}, r"expected only the arrays"),
    "another_layer": (lambda a: a | {"3.forward.b": a["0.forward.b"]}, "expected only the arrays"),
    "shape": (lambda a: a | {"1.forward.b": a["1.forward.b"].T.copy()}, "b: expected shape"),
    "input": (lambda a: a | {"1.forward.w_ih": a["0.forward.w_ih"]}, r"params\[1\].forward"),
    "dtype": (lambda a: a | {"0.forward.b": a["0.forward.b"].astype(np.float64)}, "dtype float32"),
    "integers": (lambda a: a | {"0.forward.b": a["0.forward.b"].astype(np.int32)}, "got I32"),
    "one_dtype_per_layer": (
        lambda a: {n: w.astype(np.float16) if n[0] == "2" else w for n, w in a.items()},
        "float16",
    ),
    "empty": (lambda a: {}, "sizes: expected a list"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_not_those_of_the_stack_are_refused(tmp_path, content, case):
    change, match = ARRAYS[case]
    (tmp_path / "m").write_bytes(changed(content, arrays=change))
    with pytest.raises(ValueError, match=match):
        jlstm.load(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"0.start.1.c": np.zeros(4, np.float32)}, r"params\[0\].start\[1\].c: expected float32"),
        ({"0.start.0.h": np.zeros((1, 3), np.float32)}, r"start\[0\].h: expected .* shape \(3,\)"),
        ({"1.start.0.c": np.zeros(4)}, r"params\[1\].start\[0\].c: expected float32"),
        ({"1.start.0.c": None}, r"params\[1\].start\[0\].c: expected float32"),
        ({"1.start.2.c": np.zeros(4, np.float32)}, "expected only the arrays of its stack"),
    ],
)
def test_learned_carries_that_do_not_fit_are_refused(tmp_path, change, match):
    stack = STACKS["both_directions"]
    jlstm.save(tmp_path / "m", stack, drawn(stack))

    def arrays(known: Any) -> Any:
        return {name: a for name, a in (known | change).items() if a is not None}

    (tmp_path / "m").write_bytes(changed((tmp_path / "m").read_bytes(), arrays=arrays))
    with pytest.raises(ValueError, match=match):
        jlstm.load(tmp_path / "m")


def test_float64_is_not_cut_short_in_silence(tmp_path):
    jlstm.save(tmp_path / "m", STACKS["plain"], drawn(STACKS["plain"], jnp.float64))
    with jax.enable_x64(False), pytest.raises(ValueError, match="expected jax_enable_x64=True"):
        jlstm.load(tmp_path / "m")


def test_files_of_others(tmp_path):
    (tmp_path / "m").write_bytes(unparse({"w": np.zeros(3)}))
    with pytest.raises(ValueError, match=r"expected a file of jlstm.save"):
        jlstm.load(tmp_path / "m")
    (tmp_path / "m").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(ValueError, match="expected a safetensors file"):
        jlstm.load(tmp_path / "m")
    with pytest.raises(FileNotFoundError):
        jlstm.load(tmp_path / "nothing")
    with pytest.raises(OSError):  # noqa: PT011  (a folder; each system says it in its own words)
        jlstm.load(tmp_path)


def declared(shape: list[int], size: int) -> bytes:
    """A file that declares an array of this shape and so many bytes, and has none of them."""
    text = json.dumps(
        {
            "__metadata__": {"jlstm": json.dumps({"version": 1, "stack": {"sizes": [1]}})},
            "0.forward.w_ih": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]},
        }
    ).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "hostile",
    [
        declared([2**31, 4, 2**20], 2**53),
        declared([2**40], 2**42),
        declared([2**62, 4], 2**60),  # the product overflows 64 bits
        (2**63).to_bytes(8, "little") + b"{}",
        (10**8 - 1).to_bytes(8, "little") + b"{}",
        b"\0" * 8,
        b"",
    ],
    ids=["shape", "long", "overflow", "header", "header_short", "zeros", "empty"],
)
def test_what_a_file_declares_is_not_allocated(tmp_path, hostile):
    (tmp_path / "m").write_bytes(hostile)
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected a safetensors file"):
        jlstm.load(tmp_path / "m")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20


def load_or_refuse(path: Any) -> bool:
    """Whether the file is taken; anything but a ValueError fails the test."""
    try:
        jlstm.load(path)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("fuzz") / "m"


@given(st.data())
def test_damaged_files(content, scratch, data):
    """Cut off, or with bytes changed in the header: refused, or as it was."""
    size = 8 + int.from_bytes(content[:8], "little")
    cut = data.draw(st.integers(0, len(content)))
    scratch.write_bytes(content[:cut])
    assert load_or_refuse(scratch) == (cut == len(content))
    places = data.draw(
        st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)), max_size=4)
    )
    damaged = bytearray(content)
    for place, value in places:
        damaged[place] = value
    scratch.write_bytes(damaged)
    load_or_refuse(scratch)


WORDS = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(WORDS, some, max_size=3),
    max_leaves=8,
)
OPTIONS = st.dictionaries(
    st.sampled_from([f.name for f in dataclasses.fields(Stack)]), JSON, min_size=1, max_size=3
)
CELL_OPTIONS = st.dictionaries(
    st.sampled_from(["cell", "heads", *(f.name for f in dataclasses.fields(Variant))]),
    JSON,
    max_size=3,
)


@given(
    JSON | OPTIONS.map(lambda o: in_stack(**o)), st.sampled_from(["variant", "slstm"]), CELL_OPTIONS
)
def test_any_configuration(content, scratch, said, kind, options):
    scratch.write_bytes(
        changed(content, said if callable(said) else lambda _: {"version": 1, "stack": said})
    )
    load_or_refuse(scratch)
    scratch.write_bytes(changed(content, first_cell({"cell": kind} | options)))
    load_or_refuse(scratch)


def test_the_header_alone(tmp_path):
    stack = STACKS["full"]
    jlstm.save(tmp_path / "m", stack, drawn(stack))
    assert read_stack(tmp_path / "m") == stack
    shapes, _ = read_header(tmp_path / "m")
    assert shapes["0.forward.w_ih"] == ("F32", (7, 4, 5))
    assert shapes["1.start.0.c"] == ("F32", (6,))
