"""Files that are whole or not there."""

import pytest

from jlstm.files import replacing


def test_a_file_is_replaced_once_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail(beside):
        beside.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), replacing(path) as beside:
        fail(beside)
    assert path.read_text() == "before"
    with replacing(path) as beside:
        beside.write_text("after")
    assert path.read_text() == "after"
    assert [*tmp_path.iterdir()] == [path]


def test_what_cannot_be_written_is_told_by_its_own_name(tmp_path):
    path = tmp_path / "no" / "a.txt"

    def write(beside):
        beside.write_text("x")

    def write_as_polars_does(beside):
        raise OSError(f"No such file or directory (os error 2): {beside}")

    for way in (write, write_as_polars_does):
        with (
            pytest.raises(OSError, match=r"No such file .*/no/a\.txt") as told,
            replacing(path) as at,
        ):
            way(at)
        assert ".part" not in str(told.value)
    with pytest.raises(FileNotFoundError) as told, replacing(path) as beside:
        write(beside)
    assert told.value.filename == str(path)
    # Errors of other files stay as they are.
    with pytest.raises(PermissionError, match="b") as told, replacing(tmp_path / "c"):
        raise PermissionError(13, "no", "b")
    assert told.value.filename == "b"
