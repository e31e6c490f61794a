"""The loaders under atheris: whatever is in a file, it is read, or refused in the errors promised.

``make fuzz`` runs it for a minute; ``FUZZ="-max_total_time=3600"`` are options of libFuzzer. It
begins with small whole files and follows what leads to new code. The tests that go with every
change do the same at random, by hypothesis.
"""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris
import h5py
import jax
import numpy as np

with atheris.instrument_imports(include=["jlstm"]):
    import jlstm
    from jlstm.interop.looking import look
    from jlstm.interop.onnx import to_onnx
    from jlstm.interop.torch import to_torch, write_state

ENDS = (".safetensors", ".onnx", ".h5", ".stablehlo")
"""The first byte of an input says which one; .pt files are torch's own to read."""
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def write_seeds(folder: Path) -> None:
    """Whole files to begin with."""
    plain = jlstm.Stack(sizes=2)
    odd = jlstm.Stack(
        sizes=(2, 3),
        bidirectional=True,
        learned_carry=True,
        gates=jlstm.Variant(peepholes=True, gate=jlstm.activations.hard_sigmoid(0.3, 0.4)),
    )
    path = FOLDER / "seed"
    for n, stack in enumerate((plain, odd)):
        params = jlstm.init_stack(jax.random.key(n), 2, stack)
        jlstm.save(path, stack, params)
        (folder / f"ours-{n}").write_bytes(b"\0" + path.read_bytes())
        (folder / f"onnx-{n}").write_bytes(b"\1" + to_onnx(stack, params).SerializeToString())
    write_state(
        path.with_suffix(ENDS[0]), to_torch(plain, jlstm.init_stack(jax.random.key(2), 2, plain))
    )
    (folder / "torch").write_bytes(b"\0" + path.with_suffix(ENDS[0]).read_bytes())
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/lstm/cell/vars")
        for name, shape in (("0", (2, 8)), ("1", (2, 8)), ("2", (8,))):
            group[name] = np.ones(shape, np.float32)
    (folder / "keras").write_bytes(b"\2" + path.read_bytes())


def feed(data: bytes) -> None:
    """One file."""
    path = FOLDER / f"file{ENDS[data[0] % len(ENDS)] if data else '.onnx'}"
    path.write_bytes(data[1:])
    with suppress(ValueError):
        look(path)


if __name__ == "__main__":
    seeds = FOLDER / "seeds"
    seeds.mkdir()
    write_seeds(seeds)
    atheris.Setup([*sys.argv, str(seeds)], feed)
    atheris.Fuzz()
