"""What is asked for of a training, as a file of TOML: what is written is read again as it was."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jlstm.runs.kinds import KINDS, kind_of
from jlstm.runs.toml import Asked, key_of, read_toml, sentences, write_toml
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

NEEDED = {
    "text": {},
    "table": {"time": "when", "target": ("load",), "horizon": 4},
    "sequences": {"id": "walk", "time": "t", "label": "kind"},
}


def again(path, config, *files):
    """What the file that is written of a configuration asks for, as a configuration."""
    write_toml(path, config, files)
    asked = read_toml(path, kind_of(config))
    return type(config)(**asked.options)


@pytest.fixture
def said(tmp_path):
    """A function that reads TOML."""

    def read(text, kind="table", replaced=()):
        (tmp_path / "asked.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_toml(tmp_path / "asked.toml", kind, replaced)

    return read


# Written and read.


@pytest.mark.parametrize("kind", KINDS)
def test_of_the_defaults_only_what_is_needed_is_asked_for(tmp_path, kind):
    config = KINDS[kind](**NEEDED[kind])
    assert again(tmp_path / "config.toml", config) == config
    assert {*tomllib.loads((tmp_path / "config.toml").read_text())} == {
        "kind", "files", *NEEDED[kind],
    }  # fmt: skip


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda name: name == name.strip()
)
numbers = st.floats(1e-30, 1e30)


@given(
    columns=st.lists(names, min_size=2, max_size=4, unique=True),
    quantiles=st.lists(st.floats(0.01, 0.99), max_size=3),
    rate=numbers,
    steps=st.none() | st.integers(1, 2**31 - 1),
    flag=st.booleans(),
    separator=st.none() | st.sampled_from(";|\t"),
)
def test_options_come_back_bit_for_bit(
    tmp_path_factory, columns, quantiles, rate, steps, flag, separator
):
    target, past = tuple(columns[:1]), tuple(columns[1:])
    config = TableConfig(
        time="\x1f when", target=target, past=past, horizon=3, quantiles=tuple(quantiles),
        learning_rate=rate, clip=rate, steps=steps, calendar=flag, linear=not flag,
        separator=separator,
    )  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "config.toml"
    assert again(path, config, Path(columns[0])) == config


def test_files_and_folders_are_absolute_and_the_name_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TextConfig(out=Path("elsewhere"), name="one", hidden=8)
    (tmp_path / "run").mkdir()
    write_toml(Path("run/config.toml"), config, [Path("a b.txt"), Path("../c.txt")])
    monkeypatch.chdir(tmp_path.parent)
    asked = read_toml(tmp_path / "run/config.toml", "text")
    assert asked.files == (tmp_path / "a b.txt", tmp_path.parent / "c.txt")
    assert asked.options == {"hidden": 8, "out": tmp_path / "elsewhere"}


def test_of_a_run_that_goes_on_from_another_all_is_said(tmp_path):
    # What is left out would be as it was in the other run, not as by default.
    config = TextConfig(from_=tmp_path / "old", clip=1.0)
    write_toml(tmp_path / "config.toml", config, [])
    asked = read_toml(tmp_path / "config.toml", "text")
    assert asked.options["clip"] == 1.0
    assert asked.options["from_"] == tmp_path / "old"
    assert TextConfig(**asked.options) == config


def test_people_are_told_what_an_option_means_and_what_else_there_is(tmp_path):
    config = TableConfig(**NEEDED["table"], dropout=0.3)
    write_toml(tmp_path / "config.toml", config, [Path("load.csv")])
    text = (tmp_path / "config.toml").read_text()
    assert "\n# Part of the features left out after each layer.\ndropout = 0.3\n" in text
    assert "\n# learning-rate = 0.003\n" in text
    assert "\n# Left open: epochs, steps, warmup, " in text
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_has_a_sentence(kind):
    meaning = sentences(KINDS[kind])
    for field in dataclasses.fields(KINDS[kind]):
        assert meaning[field.name].endswith((".", ".)")), field.name
    assert sentences(SequencesConfig)["patience"].startswith("Validations without a better one")


# Read.


def test_dashes_underscores_dates_and_one_file_are_understood(said, tmp_path):
    assert said(
        'kind = "table"\nfiles = "data/load.csv"\nlearning_rate = 1e-2\nknown-future = ["b"]\n'
        "until = 2020-01-02\ntest = 2020-01-01\nfrom = 'old'"
    ) == Asked(
        (tmp_path / "data/load.csv",),
        {
            "learning_rate": 0.01, "known_future": ["b"], "until": "2020-01-02",
            "test": "2020-01-01", "from_": tmp_path / "old",
        },
    )  # fmt: skip


def test_nothing_and_a_byte_order_mark_are_fine(said):
    assert said("") == Asked((), {})
    assert said(b"\xef\xbb\xbfhidden = 3\r\n").options == {"hidden": 3}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hidden = ", "expected TOML, got: "),
        (b"\xff\xfe", "expected TOML, got: "),
        ("hidden = 1\nhidden = 2", "expected TOML, got: "),
        ('kind = "text"', "kind: expected 'table', got 'text'"),
        ("kind = 3", "kind: expected 'table', got 3"),
        ("files = 3", "files: expected paths, got 3"),
        ('files = ["a", 3]', "files: expected paths, got ['a', 3]"),
        ('files = [""]', "files: expected paths, got ['']"),
        ("seeds = 3", "seeds: expected an option of a run; it is typed: --seeds"),
        ("hiden = 3", "expected options of jlstm train table, got 'hiden'; is it hidden?"),
        ("learning.rate = 3", "expected options of jlstm train table, got 'learning'"),
        ("[table]\nhidden = 3", "expected options of jlstm train table, got 'table'"),
        ("tokens = 'char'", "expected options of jlstm train table, got 'tokens'"),
        ("clip = 1\nseed = 1\nclip_ = 1", "clip_: expected each option once, got it in two spell"),
        ('hidden = "64"', "hidden: expected an int, got str '64'"),
        ("hidden = 64.0", "hidden: expected an int, got float 64.0"),
        ("hidden = true", "hidden: expected an int, got bool True"),
        ("hidden = 0", "hidden: expected at least 1, got 0"),
        ('learning-rate = "fast"', "learning-rate: expected a number, got str 'fast'"),
        ("learning_rate = nan", "learning_rate: expected a finite number above 0, got nan"),
        ("calendar = 1", "calendar: expected True or False, got int 1"),
        ("quantiles = 0.5", "quantiles: expected numbers, got 0.5"),
        ('quantiles = [0.5, "b"]', "quantiles: expected a number, got str 'b'"),
        ('missing = "mask"', "missing: expected one of 'error', 'fill', 'interpolate', got 'mask'"),
        ("target = 3", "target: expected names of columns, got 3"),
        ("out = 3", "out: expected a path, got int 3"),
        ("name = 3", "name: expected a string, got int 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_file_and_key(said, tmp_path, text, complaint):
    with pytest.raises(ValueError, match="asked") as told:
        said(text)
    assert str(told.value).startswith(f"{tmp_path / 'asked.toml'}: {complaint}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", KINDS)
def test_of_each_option_another_type_is_refused_by_name(said, kind):
    for field in dataclasses.fields(KINDS[kind]):
        if field.name in ("validation", "test") and kind == "table":
            continue  # whatever can be written is taken for a date, and seen to be none later
        key = key_of(field.name)
        with pytest.raises(ValueError, match=rf"asked\.toml: {key}: expected "):
            said(f"{key} = {{ a = 1 }}", kind)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("validation = 0.6\ntest = 0.6", "text", "validation, test: expected to leave something"),
        ("epochs = 1\nsteps = 1", "table", "epochs, steps: expected one of them"),
        ("lookback = 4\npatch = 8", "table", "patch: expected at most the 4 steps of lookback"),
        ('tokens = "byte"\nvocabulary = 5', "text", "tokens, vocabulary: expected no size"),
    ],
)
def test_options_that_do_not_go_together_are_named_with_the_file(said, text, kind, message):
    with pytest.raises(ValueError, match=rf"asked\.toml: {message}"):
        said(text, kind)


def test_what_takes_the_place_of_an_option_settles_it(said):
    late = said("validation = 0.6\ntest = 0.6", "text", {"test"})
    assert late.options == {"validation": 0.6}
    # By itself 0.95 would be too much, with the test's default.
    both = said("validation = 0.95\ntest = 0.01", "text")
    assert both.options == {"validation": 0.95, "test": 0.01}
    assert said("lookback = 4\npatch = 8", "table", {"lookback"}).options == {"patch": 8}
    with pytest.raises(ValueError, match=r"asked\.toml: steps: expected at least 1"):
        said("steps = 0", "table", {"steps"})
    # What a column is called is not known before all columns are.
    assert said('features = ["id", "time"]', "sequences").options == {"features": ["id", "time"]}


def test_what_is_no_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.toml"):
        with pytest.raises(OSError, match=str(path)):
            read_toml(path, "text")
