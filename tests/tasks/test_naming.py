"""What results on a file are called: each file by a name of its own, and always the same one."""

import json

import pytest

from jlstm.tasks.naming import name_for, results_path


def judged(folder, file):
    """Judge a file, as far as its name goes; the name."""
    name = name_for(folder, file)
    results_path(folder, name).parent.mkdir(exist_ok=True)
    results_path(folder, name).write_text(json.dumps({"file": str(file.resolve())}))
    return name


def test_each_file_has_a_name_of_its_own(tmp_path):
    files = [tmp_path / name for name in ("a/x.csv", "b/x.csv", "a/x-2.csv", "a/x.parquet")]
    names = ["x", "x-2", "x-2-2", "x-3"]
    assert [judged(tmp_path, file) for file in files] == names
    assert [judged(tmp_path, file) for file in files] == names
    assert results_path(tmp_path, "test") != results_path(tmp_path, None)


def test_a_file_is_known_by_where_its_path_leads(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.csv").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert judged(tmp_path, tmp_path / "a/x.csv") == "x"
    assert judged(tmp_path, tmp_path / "link/../a/x.csv") == "x"
    assert judged(tmp_path, tmp_path / "link/x.csv") == "x"
    monkeypatch.chdir(tmp_path / "a")
    assert judged(tmp_path, tmp_path.__class__("x.csv")) == "x"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"file": null}'])
def test_results_of_nobody_knows_what_are_left_alone(tmp_path, content):
    results_path(tmp_path, "x").parent.mkdir()
    results_path(tmp_path, "x").write_text(content)
    assert name_for(tmp_path, tmp_path / "x.csv") == "x-2"
