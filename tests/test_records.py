"""What is written down as JSON."""

import json
import os

import numpy as np
import pytest

from jlstm.records import append_json_line, plain, write_json


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


def test_what_json_has_no_word_for_is_none_however_deep():
    values = {"a": [1.5, float("nan")], "b": ({"c": float("inf")}, "nan", 2, True, None)}
    assert plain(values) == {"a": [1.5, None], "b": [{"c": None}, "nan", 2, True, None]}
    array = np.array([[0.25, np.nan], [-np.inf, 3.0]], np.float32)
    assert plain({"m": array, "n": array[0, 0], "o": array[0, 1]}) == {
        "m": [[0.25, None], [None, 3.0]], "n": 0.25, "o": None
    }  # fmt: skip
    assert plain(np.array([3, 4])) == [3, 4]
    json.dumps(plain(values), allow_nan=False)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="no space"):
        write_json(tmp_path / "new.json", {})
    assert not [*tmp_path.iterdir()]
