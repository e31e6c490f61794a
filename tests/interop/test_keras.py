"""Keras's layers, lists of arrays and files.

Keras's own tanh computes in float32 on JAX whatever it is given, so float64 is compared with
``jnp.tanh``, or with softsign where Keras has to know the activation by its name.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interop_witness import (
    INPUT,
    NOBODY_ELSE_HAS,
    PROJECTED,
    assert_agree,
    assert_same,
    drawn,
    inputs,
    promoting,
    random_like,
    run,
    run_stack,
)

from jlstm import PLAIN, Stack, Variant, activations
from jlstm.interop.keras import ACTIVATIONS, from_keras, to_keras, write_weights

# Keras's variables, on their way into NumPy's arrays, know only how NumPy 1 asked for them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SOFT = Variant(candidate=activations.softsign, output=activations.softsign)
FIXED: dict[str, Any] = {"return_sequences": True, "dtype": "float64", "activation": "softsign"}


def lstm(keras: Any, size: int, **options: Any) -> Any:
    return keras.layers.LSTM(size, **FIXED | options)


def both_ways(keras: Any, size: int, **options: Any) -> Any:
    return keras.layers.Bidirectional(lstm(keras, size, **options), dtype="float64")


def model(keras: Any, *layers: Any) -> Any:
    """A model of these layers with random weights."""
    start = keras.layers.Input((None, INPUT), dtype="float64")
    made = keras.Sequential([start, *layers])
    made.set_weights(random_like(made.get_weights()))
    return made


def run_keras(module: Any, xs: Any) -> Any:
    """hs and gradients, the latter's weights as ``get_weights()`` has them."""
    fixed = [v.value for v in module.non_trainable_variables]

    def apply(weights: Any, xs: Any) -> Any:
        hs, _ = module.stateless_call(weights, fixed, jnp.swapaxes(xs, 0, 1))
        return jnp.swapaxes(hs, 0, 1)

    with promoting():
        return run(apply, [v.value for v in module.trainable_variables], xs)


CASES: dict[str, Any] = {
    "one": (lambda k: [lstm(k, 4)], Stack(sizes=4, gates=SOFT)),
    "no_bias": (lambda k: [lstm(k, 4, use_bias=False)], Stack(sizes=4, gates=SOFT)),
    "stack": (lambda k: [lstm(k, 4), lstm(k, 5), lstm(k, 2)], Stack(sizes=(4, 5, 2), gates=SOFT)),
    "bidirectional": (
        lambda k: [both_ways(k, 4), both_ways(k, 5, use_bias=False)],
        Stack(sizes=(4, 5), gates=SOFT, bidirectional=True),
    ),
    "cells": (
        lambda k: [
            k.layers.RNN(
                k.layers.StackedRNNCells(
                    [k.layers.LSTMCell(n, dtype="float64", activation="softsign") for n in (4, 5)],
                    dtype="float64",  # which a list would not have, nor its carry
                ),
                return_sequences=True,
                dtype="float64",
            )
        ],
        Stack(sizes=(4, 5), gates=SOFT),
    ),
    "activations": (
        lambda k: [lstm(k, 4, recurrent_activation="hard_sigmoid", activation="elu")],
        Stack(
            sizes=4,
            gates=Variant(
                gate=activations.hard_sigmoid(1 / 6),
                candidate=activations.elu(),
                output=activations.elu(),
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_keras(keras: Any, tmp_path: Path, case: str) -> None:
    make, expected = CASES[case]
    module, xs = model(keras, *make(keras)), inputs()
    stack, params = from_keras(module)
    assert stack == expected
    hs, dweights, dxs = run_keras(module, xs)
    gates = expected.gates[0]
    theirs = hs, from_keras(dweights, gates=gates)[1], dxs
    assert_agree(run_stack(stack, params, xs), theirs)
    # The same from arrays, from layers and from a file.
    arrays = module.get_weights()
    module.save_weights(tmp_path / "m.weights.h5")
    for other in (
        from_keras(arrays, gates=gates),
        from_keras(module.layers),
        from_keras(tmp_path / "m.weights.h5", gates=gates),
        from_keras(str(tmp_path / "m.weights.h5"), gates=gates),
    ):
        assert other[0] == stack
        assert_same(other[1], params)
    assert_same(to_keras(stack, params), arrays)
    assert from_keras(arrays)[0] == Stack(sizes=stack.sizes, bidirectional=stack.bidirectional)


def test_the_plain_cell(keras: Any) -> None:
    """In float32, as Keras's tanh is; a few of its roundings."""
    stack = Stack(sizes=(4, 5), bidirectional=True)
    params, xs = drawn(stack, dtype=np.float32), inputs().astype(np.float32)
    module = model(
        keras, *(both_ways(keras, n, dtype="float32", activation="tanh") for n in (4, 5))
    )
    module.set_weights(to_keras(stack, params))
    back, weights = from_keras(module)
    assert back.cells[0].gates in (PLAIN, (PLAIN, PLAIN))
    assert back == stack
    assert weights[0].forward.w_ih.dtype == np.float32
    hs, dweights, dxs = run_keras(module, xs)
    theirs = hs, from_keras(dweights)[1], dxs
    assert_agree(run_stack(stack, params, xs), theirs, tolerance=2e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_name(keras: Any, name: str) -> None:
    a = np.random.default_rng(0).standard_normal(99).astype(np.float32) * 3
    theirs = keras.activations.get(name)(a)
    # Both in float32.
    assert np.allclose(ACTIVATIONS[name](jnp.asarray(a)), theirs, rtol=0, atol=1e-6)


def test_what_stands_around_the_lstms(keras: Any, tmp_path: Path) -> None:
    """Found in a model with more in it, in its arrays not, and not over what lies between."""
    dense = {"units": 3, "dtype": "float64"}
    module = model(
        keras,
        keras.layers.Dense(**dense),
        lstm(keras, 4, recurrent_dropout=0.1),
        keras.layers.Dropout(0.2, dtype="float64"),
        lstm(keras, 5),
        keras.layers.Dense(**dense),
    )
    stack, params = from_keras(module)
    assert stack == Stack(sizes=(4, 5), gates=SOFT)
    module.save_weights(tmp_path / "m.weights.h5")
    assert_same(from_keras(tmp_path / "m.weights.h5", gates=SOFT)[1], params)
    one, weights = from_keras(tmp_path / "m.weights.h5", layers=["layers/lstm_1/cell"], gates=SOFT)
    assert one == Stack(sizes=5, gates=SOFT)
    assert_same(weights[0], params[1])
    assert_same(from_keras(module.layers[3])[1][0], params[1])
    layer = module.layers[1]
    assert_same(from_keras(layer.get_weights(), gates=SOFT)[1][0], params[0])
    between = model(keras, lstm(keras, 4), keras.layers.Dense(**dense), lstm(keras, 5))
    with pytest.raises(ValueError, match="LSTMs that follow one another, got Dense between"):
        from_keras(between)
    with pytest.raises(ValueError, match="expected LSTM layers, got 'Dense', 'GRU'"):
        from_keras(model(keras, keras.layers.Dense(**dense), keras.layers.GRU(2, dtype="float64")))


def test_models_whose_lstms_do_not_follow_one_another_are_refused(keras: Any) -> None:
    """Not all that computes has weights, and not all that is listed in a row is wired so."""
    layers = keras.layers
    for between in (
        layers.Activation("relu", dtype="float64"),
        layers.MaxPooling1D(2, dtype="float64"),
        layers.Dense(4, dtype="float64"),
    ):
        with pytest.raises(ValueError, match=f"got {type(between).__name__} between"):
            from_keras(model(keras, lstm(keras, 4), between, lstm(keras, 4)))
        with pytest.raises(ValueError, match=f"got {type(between).__name__} between"):
            from_keras([lstm(keras, 4), between, lstm(keras, 4)])
    start = layers.Input((None, 4), dtype="float64")
    one, two = lstm(keras, 4, return_state=True), lstm(keras, 4)
    whole, *state = one(start)
    beside = keras.Model(start, layers.add([whole, two(start)], dtype="float64"))
    with pytest.raises(ValueError, match="whose input is not what the one before gives"):
        from_keras(beside)
    assert from_keras([one, two])[0] == Stack(sizes=(4, 4), gates=SOFT)  # on one's own word
    handed = keras.Model(start, lstm(keras, 4)(whole, initial_state=state))
    with pytest.raises(ValueError, match="whose input is not what the one before gives"):
        from_keras(handed)
    inner = keras.Sequential([layers.Input((None, 3), dtype="float64"), lstm(keras, 4)])
    with pytest.raises(ValueError, match="got a Sequential with some in it"):
        from_keras(model(keras, inner, lstm(keras, 4)))

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(dtype="float64")
            self.upper, self.lower = lstm(keras, 4), lstm(keras, 4)

        def call(self, xs: Any) -> Any:
            return self.upper(self.lower(xs))

    own = Own()
    own(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="whose input is not what the one before gives"):
        from_keras(own)


def test_a_chain_with_a_mask(keras: Any) -> None:
    start = keras.layers.Input((None, 3), dtype="float64")
    masked = keras.layers.Masking(dtype="float64")(start)
    module = keras.Model(start, lstm(keras, 5)(lstm(keras, 4)(masked)))
    assert from_keras(module)[0] == Stack(sizes=(4, 5), gates=SOFT)


def test_backwards(keras: Any) -> None:
    """A first layer that goes backwards gives the last step first, and the next ones follow."""
    module = model(keras, lstm(keras, 4, go_backwards=True), lstm(keras, 5))
    stack, params = from_keras(module)
    assert stack == Stack(sizes=(4, 5), gates=SOFT, reverse=True)
    xs = inputs()
    hs = run_keras(module, xs)[0]
    assert_agree(run_stack(stack, params, xs)[0], hs[::-1])
    assert_same(to_keras(stack, params), module.get_weights())


def test_eleven_layers_are_in_order(keras: Any, tmp_path: Path) -> None:
    module = model(keras, *(lstm(keras, 3) for _ in range(11)))
    module.save_weights(tmp_path / "m.weights.h5")
    params = from_keras(module)[1]
    assert_same(from_keras(tmp_path / "m.weights.h5", gates=SOFT)[1], params)


def test_one_direction_or_two() -> None:
    """Two directions of a layer, or a layer upon another: nearly always one of both fits."""
    for stack in (
        Stack(sizes=(4, 5)),
        Stack(sizes=(4, 4)),
        Stack(sizes=(4, 5, 6), bidirectional=True),
        Stack(sizes=4, bidirectional=True),
        Stack(sizes=(3, 3, 3)),
    ):
        params = drawn(stack)
        back, weights = from_keras(to_keras(stack, params))
        assert back == stack
        assert_same(weights, params)
    for stack in (Stack(sizes=(3, 3)), Stack(sizes=3, bidirectional=True)):
        arrays = to_keras(stack, drawn(stack))
        with pytest.raises(ValueError, match="bidirectional: expected True or False, as the shape"):
            from_keras(arrays)
        back, weights = from_keras(arrays, bidirectional=stack.bidirectional)
        assert back == stack
        assert_same(weights, drawn(stack))
    with pytest.raises(ValueError, match="expected pairs of directions, got 1"):
        from_keras(to_keras(Stack(sizes=4), drawn(Stack(sizes=4))), bidirectional=True)


# Refusals

REFUSED = {name: case for name, case in NOBODY_ELSE_HAS.items() if name != "reverse"} | {
    "offset": (Stack(sizes=4, gates=Variant(forget_offset=1.0)), "forget_offset: .*Keras"),
    "projection": (PROJECTED, "output_sizes: .*Keras"),
    "activation": (Stack(sizes=4, gates=Variant(output=activations.relu)), "output: .*Keras"),
    "directions": (
        Stack(sizes=4, gates=[(PLAIN, SOFT)], bidirectional=True),
        "gates: .*both directions are of one layer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_keras_cannot_represent_is_refused(case: str) -> None:
    stack, match = REFUSED[case]
    with pytest.raises(ValueError, match=match):
        to_keras(stack, drawn(stack))


def test_layers_that_a_stack_cannot_be_are_refused(keras: Any) -> None:
    layers = keras.layers
    with pytest.raises(ValueError, match=r"go_backwards: .*else the first.*True of 'upper'"):
        from_keras(model(keras, lstm(keras, 4), lstm(keras, 4, go_backwards=True, name="upper")))
    for layer, match in (
        (layers.Bidirectional(lstm(keras, 4), merge_mode="sum"), "merge_mode: .*got 'sum'"),
        (lstm(keras, 4, activation="swish"), "activation: .*got 'silu'; say gates"),
        (lstm(keras, 4, activation=jnp.tanh), "activation: .*say gates"),
    ):
        module = model(keras, layer)
        with pytest.raises(ValueError, match=match):
            from_keras(module)
    own = Variant(gate=activations.sigmoid, candidate=activations.activation(jax.nn.silu))
    module = model(keras, lstm(keras, 4, activation="swish"))
    assert from_keras(module, gates=own)[0] == Stack(sizes=4, gates=own)
    with pytest.raises(ValueError, match="expected a layer that is built"):
        from_keras(lstm(keras, 4))
    mixed = model(keras, lstm(keras, 4), both_ways(keras, 4))
    with pytest.raises(ValueError, match="layer 1: expected 1 directions, as layer 0 has, got 2"):
        from_keras(mixed)
    for source in (3, None, {"a": 1}):
        with pytest.raises(TypeError, match="source: expected a layer, a model, a list of arrays"):
            from_keras(source)


def test_arrays_that_do_not_fit_are_refused() -> None:
    kernel, recurrent, bias = to_keras(Stack(sizes=4), drawn(Stack(sizes=4)))
    for arrays, error, match in (
        ([kernel], ValueError, r"expected kernel, recurrent_kernel .* got shapes \[\[3, 16\]\]"),
        ([bias, kernel, recurrent], ValueError, "expected kernel, recurrent_kernel"),
        ([recurrent, kernel, bias], ValueError, r"recurrent_kernel: expected .* got \[3, 16\]"),
        ([kernel[:, :12], recurrent, bias], ValueError, r"\.kernel: expected shape \[input, 16\]"),
        ([kernel, recurrent, bias[:4]], ValueError, r"bias: expected shape \[16\], got \[4\]"),
        ([kernel, recurrent, bias.astype(np.float32)], TypeError, "dtype"),
        ([kernel, recurrent, bias, recurrent, kernel], ValueError, "recurrent_kernel: expected"),
        ([], ValueError, "expected at least one|expected LSTM layers"),
    ):
        with pytest.raises(error, match=match):
            from_keras(arrays)
    with pytest.raises(ValueError, match="layers: expected None, as the source is no file"):
        from_keras([kernel, recurrent, bias], layers=["a"])


ARRAYS = st.sampled_from([(3, 16), (4, 16), (16,), (0, 0), (), (8, 16), (2,), (4, 12)]).map(
    np.zeros
)


@given(st.lists(ARRAYS, max_size=7), st.sampled_from([None, False, True]))
def test_any_arrays_are_taken_or_refused(arrays: Any, bidirectional: Any) -> None:
    try:
        from_keras(arrays, bidirectional=bidirectional)
    except (TypeError, ValueError):
        return


# Files

h5py: Any = pytest.importorskip("h5py", reason="the extra `interop` is not installed")


def write(path: Path, stack: Stack, change: Any = None) -> Any:
    """A file as Keras writes it, then changed."""
    params = drawn(stack)
    arrays = iter(to_keras(stack, params))
    with h5py.File(path, "w") as file:
        for n in range(len(stack.cells)):
            ways = ("/forward_layer", "/backward_layer") if stack.bidirectional else ("",)
            for way in ways:
                name = "bidirectional" if stack.bidirectional else "lstm"
                number = f"_{n}" if n else ""
                group = file.create_group(f"layers/{name}{number}{way}/cell/vars")
                for k in range(3):
                    group[str(k)] = next(arrays)
        if change:
            change(file)
    return params


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_file_for_keras(keras: Any, tmp_path: Path, bidirectional: bool, bias: bool) -> None:
    stack = Stack(sizes=(4, 5), bidirectional=bidirectional)
    params = drawn(stack, bias=bias)
    write_weights(tmp_path / "m.weights.h5", stack, params)
    back, weights = from_keras(tmp_path / "m.weights.h5")
    assert back == stack
    assert_same(weights, params)
    kind = both_ways if bidirectional else lstm
    module = model(keras, *(kind(keras, n, activation="tanh", use_bias=bias) for n in (4, 5)))
    module.load_weights(tmp_path / "m.weights.h5")
    assert_same(from_keras(module)[1], params)


def test_into_the_file_of_a_model(keras: Any, tmp_path: Path) -> None:
    """Whose other weights stay; also into the very file."""
    dense = {"units": 3, "dtype": "float64"}
    module = model(
        keras,
        keras.layers.Dense(**dense),
        lstm(keras, 4, recurrent_dropout=0.1),
        lstm(keras, 5, use_bias=False),
        keras.layers.Dense(**dense),
    )
    old, new = tmp_path / "old.weights.h5", tmp_path / "new.weights.h5"
    module.save_weights(old)
    before = module.get_weights()
    stack, params = from_keras(module)
    other = jax.tree.map(lambda a: a + 1, params)
    write_weights(new, stack, other, old)
    write_weights(old, Stack(sizes=5, gates=SOFT), other[1:], old, layers=["layers/lstm_1/cell"])
    module.load_weights(new)
    assert_same(from_keras(module)[1], other)
    assert_same(module.get_weights()[:2] + module.get_weights()[-2:], before[:2] + before[-2:])
    assert_same(from_keras(old, gates=SOFT)[1], (params[0], other[1]))
    content = new.read_bytes()
    with pytest.raises(ValueError, match=r"old\.weights\.h5: layers/lstm_1/cell: expected shapes"):
        write_weights(new, Stack(sizes=(4, 6)), drawn(Stack(sizes=(4, 6))), old)
    with pytest.raises(ValueError, match="expected a name for each of 1 layers"):
        write_weights(new, Stack(sizes=4), drawn(Stack(sizes=4)), old)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.weights\.h5"):
        write_weights(tmp_path / "new.h5", stack, params)
    with pytest.raises(ValueError, match="layers: expected None without like"):
        write_weights(new, stack, params, layers=["a", "b"])
    assert new.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, old.name]


CELL = "layers/lstm/cell/vars"


def replaced(name: str, **options: Any) -> Any:
    def change(file: Any) -> None:
        del file[f"{CELL}/{name}"]
        file.create_dataset(f"{CELL}/{name}", **options)

    return change


def circle(file: Any) -> None:
    file["layers/lstm/cell/round"] = file["layers"]


def deep(file: Any) -> None:
    file.create_group("x" + "/x" * 99)


def soft(file: Any) -> None:
    file["layers/lstm_1"] = h5py.SoftLink("/layers/lstm")


def external(file: Any) -> None:
    file["layers/lstm_1"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_set(file: Any) -> None:
    del file[f"{CELL}/1"]
    file[f"{CELL}/1"] = h5py.ExternalLink("/etc/passwd", "/x")


def elsewhere(file: Any) -> None:
    del file[f"{CELL}/2"]
    file.create_dataset(f"{CELL}/2", (16,), "f8", external=[("/etc/passwd", 0, 128)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((16,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (16,))
    del file[f"{CELL}/2"]
    file.create_virtual_dataset(f"{CELL}/2", layout)


NUMBERS = r"/vars/\d: expected floating-point numbers in a file of \d+ bytes, got "
HOSTILE = {
    "huge": (replaced("0", shape=(2**40, 16), dtype="f8", chunks=(2**10, 16)), NUMBERS),
    "integers": (replaced("2", data=np.zeros(16, int)), NUMBERS),
    "text": (replaced("2", data=np.array([b"x"] * 16)), NUMBERS),
    "compressed": (
        replaced("0", shape=(2**30, 16), dtype="f4", chunks=(2**10, 16), compression=9),
        NUMBERS,
    ),
    "elsewhere": (elsewhere, NUMBERS),
    "virtual": (virtual, NUMBERS),
    "circle": (circle, "expected a tree of groups, got a circle"),
    "deep": (deep, "expected groups at most 32 deep"),
    "soft": (soft, "layers/lstm_1: expected weights in the file, got a link"),
    "external": (external, "layers/lstm_1: expected weights in the file, got a link"),
    "soft_set": (soft_set, "expected weights of LSTM layers, got none"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "m.weights.h5"
    change, match = HOSTILE[case]
    write(path, Stack(sizes=4), change)
    with pytest.raises(ValueError, match=r"m\.weights\.h5: .*" + match):
        from_keras(path)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    write(path, Stack(sizes=4), lambda file: file.__delitem__("layers"))
    with pytest.raises(ValueError, match="expected weights of LSTM layers, got none"):
        from_keras(path)
    both = Stack(sizes=(4, 2), bidirectional=True)
    params = write(path, both)
    assert_same(from_keras(path)[1], params)
    write(path, Stack(sizes=4), lambda file: file.move("layers", "encoder"))
    with h5py.File(path, "a") as file:
        file.copy(file["encoder"], "decoder")
    with pytest.raises(ValueError, match="names do not tell the order: 'decoder/lstm/cell', 'enc"):
        from_keras(path)
    write(path, both)
    with pytest.raises(ValueError, match=r"layers: expected cells out of 'layers/bi.* got 'x'"):
        from_keras(path, layers=["x"])
    write(path, both, lambda file: file.__delitem__("layers/bidirectional/forward_layer"))
    with pytest.raises(ValueError, match="expected a forward direction beside it"):
        from_keras(path)
    with pytest.raises(FileNotFoundError):
        from_keras(tmp_path / "nothing.h5")
    with pytest.raises(ValueError, match=r"expected a file named \S+\.weights\.h5"):
        from_keras("model.keras")


@given(st.data())
def test_damaged_files(tmp_path_factory: Any, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.weights.h5"
    write(path, Stack(sizes=4))
    content = bytearray(path.read_bytes())
    places = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, max_size=5)):
        content[place] = value
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for damaged in (bytes(content), path.read_bytes()):
        path.write_bytes(damaged)
        try:
            from_keras(path)
        except (TypeError, ValueError):
            continue
