"""What a run writes: parameters that come back bit by bit, and JSON."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jlstm import init_params
from jlstm.tasks.text.model import init_language_model
from jlstm.train import load_params, save_params
from jlstm.train.records import append_json_line, environment, write_json


def model(hidden=4, dtype=jnp.float32, bias=True):
    params = init_language_model(
        jax.random.key(0), 10, embedding_size=3, hidden_size=hidden, dtype=dtype
    )
    return params if bias else params._replace(lstm=params.lstm._replace(b=None))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_there_and_back(tmp_path, dtype, bias):
    params = model(dtype=dtype, bias=bias)
    save_params(tmp_path / "p.safetensors", params, {"step": "7"})
    template = jax.eval_shape(lambda: model(dtype=dtype, bias=bias))
    back = load_params(tmp_path / "p.safetensors", template)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_others_can_read_it(tmp_path):
    from safetensors import safe_open

    save_params(tmp_path / "p.safetensors", model(), {"step": "7"})
    with safe_open(tmp_path / "p.safetensors", framework="numpy") as file:
        assert set(file.keys()) == {
            "embedding", "lstm.w_ih", "lstm.w_hh", "lstm.b", "readout", "readout_bias"
        }  # fmt: skip
        assert file.metadata() == {"step": "7"}
        np.testing.assert_array_equal(file.get_tensor("lstm.w_hh"), model().lstm.w_hh)


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    save_params(path, model())
    with pytest.raises(
        ValueError,
        match=r"p.safetensors: lstm.w_ih: expected float32 of shape \(3, 4, 5\), "
        r"got float32 of shape \(3, 4, 4\)",
    ):
        load_params(path, model(hidden=5))
    with pytest.raises(ValueError, match=r"expected float64 of shape .* got float32"):
        load_params(path, model(dtype=jnp.float64))
    with pytest.raises(ValueError, match=r"missing: none; unknown: lstm.b$"):
        load_params(path, model(bias=False))
    with pytest.raises(ValueError, match=r"missing: b, w_hh, w_ih; unknown: embedding, "):
        load_params(path, init_params(jax.random.key(0), 3, 4))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"p.safetensors: expected a safetensors file, got"):
        load_params(path, model())
    with pytest.raises(FileNotFoundError):
        load_params(tmp_path / "nothing", model())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    save_params(path, model())
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space"):
        save_params(path, model(hidden=6))
    with pytest.raises(OSError, match="no space"):
        write_json(tmp_path / "new.json", {})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1.5, "y": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.5, "y": None}
    for step in range(3):
        append_json_line(tmp_path / "a.jsonl", {"step": step})
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]
    with pytest.raises(ValueError, match="JSON"):  # NaN is not JSON, though Python writes it
        append_json_line(tmp_path / "a.jsonl", {"step": float("nan")})
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3


def test_environment():
    known = environment()
    assert known["versions"]["jax"] == jax.__version__
    assert known["backend"] == jax.default_backend()
    json.dumps(known)
