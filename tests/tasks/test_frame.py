"""Tables as people have them: every mistake named by column and row, nothing lost in silence."""

import codecs
import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jlstm.tasks import frame as reading
from jlstm.tasks.frame import (
    center_and_spread,
    check_columns,
    counted,
    numbers,
    read_table,
    rounded,
    texts,
    with_points,
)
from jlstm.tasks.times import times


@pytest.fixture
def read(tmp_path):
    def read(content, name="t.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, **options)

    return read


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8])
def test_whatever_the_delimiter_the_line_ends_and_the_byte_order_mark(read, delimiter, end, bom):
    lines = ["time|a", "2016-07-01|1.5", '2016-07-02|"2"', "", ""]
    frame = read(bom + end.join(lines).replace("|", delimiter).encode())
    assert frame.columns == ["time", "a"]
    assert frame.rows() == [("2016-07-01", "1.5"), ("2016-07-02", "2")]


@pytest.mark.parametrize("separator", ["|", ".", " ", "\t", "^", "§"])
def test_a_separator_that_is_said_is_taken(read, separator):
    content = 'a,b|c;d\n"1,|5"|2\n3|"4"\n'.replace("|", separator)
    frame = read(content, separator=separator)
    assert frame.columns == ["a,b", "c;d"]
    assert frame.rows() == [(f"1,{separator}5", "2"), ("3", "4")]


def test_separators_that_fit_equally_well_are_told_apart_by_the_next_row_or_refused(read):
    assert read("a;b,c\n1;2,5\n", separator=";").columns == ["a", "b,c"]
    assert read("x;y,z\n1;2\n").columns == ["x", "y,z"]
    with pytest.raises(
        ValueError, match=r"row 1: .* got 2 names by ',' as well as by ';'; see --separator"
    ):
        read("a;b,c\n1;2,5\n")
    assert read("a\n1;2\n").columns == ["a"]


def test_a_table_of_one_column_asks_for_the_separator(read):
    frame = read("time|y\n2016-07-01|1\n")
    with pytest.raises(ValueError, match=r"target: .* \(time\|y\), got 'y'; .* by --separator"):
        check_columns(frame, ["y"], "target")


def test_blanks_around_quotes_are_no_part_of_a_cell(read):
    frame = read('"Oil Temp (°C)" , "wind, mean" ,n\n"1" ,"2,5",3\n 4 , "a ""b"", c",5\n')
    assert frame.columns == ["Oil Temp (°C)", "wind, mean", "n"]
    assert frame.rows() == [("1", "2,5", "3"), (" 4 ", 'a "b", c', "5")]
    # Where quotes are no quotes, they stay.
    assert read('a,b\n5 "x, "y"\n').rows() == [('5 "x', ' "y"')]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig", "utf-16-le"])
def test_an_encoding_that_is_said_is_taken(read, encoding):
    frame = read("wärme,ß\n1,é\n".encode(encoding), encoding=encoding)
    assert (frame.columns, frame.rows()) == (["wärme", "ß"], [("1", "é")])


def test_packed_tables(read):
    content = b"a\tb\n1\t2\n"
    assert read(gzip.compress(content), "t.csv.gz").rows() == [("1", "2")]
    assert read(gzip.compress(content), "t.TSV.GZ").rows() == [("1", "2")]
    for bad in (content, gzip.compress(content)[:-9], gzip.compress(content)[:20] + b"x" * 30):
        with pytest.raises(ValueError, match=r"t\.csv\.gz: expected a file packed by gzip, got: "):
            read(bad, "t.csv.gz")
    with pytest.raises(ValueError, match=r"ends in \.csv"):
        read(gzip.compress(content), "t.gz")


def test_no_type_is_guessed(read):
    frame = read("a,b,c\n007,true,2016-07-01\n,1e3,x\n")
    assert frame.dtypes == [pl.String] * 3
    assert frame.rows() == [("007", "true", "2016-07-01"), ("", "1e3", "x")]


def test_a_comma_in_quotes_separates_nothing(read):
    frame = read('"a;b;c",d\n"1,5\nx",2\n')
    assert frame.columns == ["a;b;c", "d"]
    assert frame.rows() == [("1,5\nx", "2")]


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,2\n",
        "a,b\r\n1,2\r\n3,4\r\n\r\n",
        "a,b\r1,2\r",
        'a,"b\nc"\n"1,5","say ""hi"""\n"",x\n',
        '"x;y";z\n"1;2\n3";4\n',
        "a\n1\n 2\n\n",
    ],
)
def test_plain_tables_are_read_by_polars_as_by_pythons_reader(read, monkeypatch, content):
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_read_slowly", None)  # there is no need of it
        fast = read(content)
    monkeypatch.setattr(reading, "_read_fast", lambda *_: None)
    assert fast.equals(read(content))


def test_quotes_as_polars_would_not_read_them_are_left_to_pythons_reader(read):
    found = read('a,b\n5",6"\nx"y,"z"\n')
    assert found.rows() == [('5"', '6"'), ('x"y', "z")]


@given(st.lists(st.sampled_from(["1", ",", "\n", '"', '"a,b\n"', " ", ";", "\r\n"]), max_size=12))
def test_whoever_reads_a_table_the_same_is_read_or_refused(pieces):
    path = Path("t.csv")
    content = ("a,b\n" + "".join(pieces)).encode()
    fast = reading._read_fast(content, ",", ["a", "b"])
    if fast is not None:  # so that the slow one has to be of the same mind
        slow = reading._read_slowly(path, content, ",", 2)
        assert fast.rows() == [tuple(cells) for cells in slow]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a table, got an empty file"),
        ("\n\r\n", "expected a table, got an empty file"),
        ("a,b\n", "expected rows below the header, got none"),
        ("\na,b\n1,2\n", "row 1: expected the names of the columns, got an empty line"),
        (b"a,b\n1,\xe9t\xe9\n", r"expected text in UTF-8, got byte 0xe9 at offset 6.*--encoding"),
        (codecs.BOM_UTF8 + b"a\n\xff\n", r"got byte 0xff at offset 5"),
        ("a,b\n1,2\n".encode("utf-16"), r"expected text in UTF-8, got byte 0xff at offset 0"),
        ("a,b,a\n1,2,3\n", "row 1: expected a name of its own for each column, got 'a' 2 times"),
        ("a,,b\n1,2,3\n", "row 1: expected a name for each column, column 2 has none"),
        ("a,b\n1,2\n3\n", "row 3: expected 2 cells, got 1"),
        ("a,b\n1,2\n3,4,5\n", "row 3: expected 2 cells, got 3"),
        ("a,b\n1,2\n\n3,4\n", "row 3: expected 2 cells, got an empty line"),
        ("a\n1\n\n2\n", "row 3: expected 1 cell, got an empty line"),
        ("a,b\n1,2\n,\n3\n", "row 4: expected 2 cells, got 1"),
        ('a,b\n"1,\n,",2\n3\n', "row 3: expected 2 cells, got 1"),
        ('a,b\n"1,\n,",2\n\n3,4\n', "row 3: expected 2 cells, got an empty line"),
        ('a,b\n1,2\n3,"4\n', "row 3: expected cells of a CSV, got: unexpected end of data"),
    ],
)
def test_what_is_no_table_says_why(read, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert "t.csv: " in str(caught.value)


def test_files_that_are_not_there_or_something_else(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="expected a file, got a path where there is none"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(IsADirectoryError, match="expected a file, got a folder"):
        read_table(tmp_path)
    with pytest.raises(ValueError, match=r"ends in \.csv.*\.parquet.*, got \.xlsx"):
        read("a\n1\n", "t.xlsx")
    with pytest.raises(ValueError, match="expected a Parquet file, got: "):
        read("a\n1\n", "t.parquet")


def test_parquet_keeps_its_types(tmp_path):
    frame = pl.DataFrame(
        {
            "n": [1, None, 3],
            "x": [0.5, float("nan"), 2.0],
            "day": pl.Series(["2016-07-01"] * 3).str.to_date(),
            "utc": pl.Series(["2016-07-01 02:00"] * 3)
            .str.to_datetime(time_zone="UTC")
            .dt.convert_time_zone("Europe/Berlin"),
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    back = read_table(tmp_path / "t.parquet")
    np.testing.assert_array_equal(numbers(back, "n"), [1, np.nan, 3])
    np.testing.assert_array_equal(numbers(back, "x"), [0.5, np.nan, 2])
    assert times(back, "day")[0] == np.datetime64("2016-07-01")
    assert times(back, "utc")[0] == np.datetime64("2016-07-01T02:00")
    assert texts(back, "n") == ["1", "", "3"]
    with pytest.raises(ValueError, match="column 'day': expected numbers, got Date"):
        numbers(back, "day")
    with pytest.raises(ValueError, match=r"column 'x': expected times .*, got Float64"):
        times(back, "x")


def test_a_wrong_column_names_those_there_are():
    frame = pl.DataFrame({"date": ["1"], "OT": ["2"]})
    check_columns(frame, ["OT", "date"], "target")
    with pytest.raises(
        ValueError, match=r"^target: expected .* \(date, OT\), got 'OTT'; is it 'OT'"
    ):
        check_columns(frame, ["OTT"], "target")
    with pytest.raises(ValueError, match=r"got 'humidity'$"):
        numbers(frame, "humidity")


def column(*cells):
    return pl.DataFrame({"a": pl.Series(cells, dtype=pl.String)})


def test_a_column_with_a_comma_is_suggested_as_it_has_to_be_typed():
    frame = pl.DataFrame({"date": ["1"], "Close, adj": ["2"]})
    with pytest.raises(ValueError, match=r"""is it '"Close, adj"'[?]$"""):
        check_columns(frame, ["Close"], "target")


def test_numbers():
    found = numbers(column("1", " -2.5e3 ", "", "NaN", "NA", "null", "+0.5", None), "a")
    nan = np.nan
    np.testing.assert_array_equal(found, [1, -2500, nan, nan, nan, nan, 0.5, nan])
    assert found.dtype == np.float64


@pytest.mark.parametrize("bad", ["1.2.3", "x", "1_000", "12 000", "-", "0x10"])
def test_what_is_no_number_is_named_by_column_and_row(bad):
    with pytest.raises(ValueError, match=rf"column 'a', row 4: expected a number, got '{bad}'"):
        numbers(column("1", "2", bad, "y"), "a")


def test_a_decimal_comma_gets_a_hint():
    with pytest.raises(ValueError, match=r"row 3: .* got '1,5'; .* unless --decimal says"):
        numbers(column("1", "1,5"), "a")


def test_decimals_after_a_comma_become_those_after_a_point():
    frame = column("1,5", " -,25 ", "7", "+1,e3", "2,5E-3", "x,1", "", None)
    found = with_points(frame, ["a", "b"])
    assert texts(found, "a") == ["1.5", "-.25", "7", "+1,e3", "2.5E-3", "x,1", "", ""]
    np.testing.assert_array_equal(numbers(found[:3], "a"), [1.5, -0.25, 7])
    assert with_points(frame, []).equals(frame)
    with pytest.raises(ValueError, match=r"row 3: expected a number, got '1\.234,5'"):
        numbers(with_points(column("1", "1.234,5"), ["a"]), "a")


@pytest.mark.parametrize("bad", ["1.500", "-.5", "1.5e3"])
def test_a_point_where_decimals_follow_a_comma_could_be_for_thousands(bad):
    with pytest.raises(ValueError, match=rf"row 3: .* after a comma, as --decimal .* '{bad}'"):
        with_points(column("1,5", bad), ["a"])


@pytest.mark.parametrize("bad", ["inf", "-Infinity", "1e999"])
def test_infinity_is_no_measurement(bad):
    with pytest.raises(ValueError, match="column 'a', row 3: expected a finite number"):
        numbers(column("1", bad), "a")


def test_the_spread_of_numbers_that_are_too_large_is_refused():
    assert center_and_spread(np.array([1.0, 3.0]), "a") == (2, 1)
    with pytest.raises(ValueError, match=r"column 'a': expected .* got some as large as 1e\+300"):
        center_and_spread(np.array([1e300, -1e300]), "a")


def test_one_is_counted_as_one():
    assert [counted(n, "step") for n in (0, 1, 2_000)] == ["0 steps", "1 step", "2,000 steps"]


def test_texts_are_without_blanks_around_them():
    assert texts(column(" x", "y ", None), "a") == ["x", "y", ""]


@pytest.mark.parametrize(
    ("value", "spread", "shown"),
    [
        (23.1421356, 8.5, "23.142"),
        (23.1421356, 0.85, "23.1421"),
        (-1234.56789, 1000.0, "-1235.0"),
        (12345678.9, 1e6, "12345679.0"),
        (0.000012345678, 1e-6, "1.2346e-05"),
        (-0.0001, 1.0, "0.0"),
        (1e22, 1e-200, "1e+22"),
    ],
)
def test_numbers_have_the_decimals_of_their_spread(value, spread, shown):
    assert repr(float(rounded(np.array(value), np.array(spread)))) == shown


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_rounding_changes_no_number_by_much(value, spread):
    assert abs(rounded(np.array(value), np.array(spread)) - value) <= max(0.5, 1e-3 * spread) + 1e-9
