"""What may be asked for: every option out of range, or of another type, is named."""

import math
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest

from jlstm.tasks.config import column_names
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

NEEDED = {
    TextConfig: {},
    TableConfig: {"time": "when", "target": "load", "horizon": 4},
    SequencesConfig: {"id": "who", "time": "step", "label": "kind"},
}

COMMON = {
    "epochs": (0, -1, math.nan, math.inf, "3", True),
    "steps": (0, -1, 1.5, "3", True, 2**31),
    "learning_rate": (0, -1e-3, math.nan, math.inf, "high"),
    "optimizer": ("rmsprop", None, 1),
    "warmup": (-1, 0.5),
    "clip": (0, -1, math.inf),
    "weight_decay": (-0.1, math.nan, "none"),
    "patience": (-1, 1.5),
    "validate_every": (0, 0.5),
    "not_finite": ("hope",),
    "seed": (-1, 0.5, 2**31),
    "tensorboard": (1, "yes"),
    "implementation": ("native", 1),
    "name": ("a/b", "a\nb", "a\tb", "", ".", "..", ".hidden", "a/"),
}
FILE = {
    "separator": ("", ";;", "a", "7", '"', "\n", 3),
    "decimal": (";", "", None),
    "encoding": ("latin-99", "", 8, "rot13"),
    "time_format": ("%d/%m", "minutes", "", 3),
}
BAD = {
    TextConfig: {
        "tokens": ("letter", None),
        "vocabulary": (1, 2.5),
        "validation": (0, 1, -0.1, "0.1"),
        "test": (0, 1, math.nan),
        "tied": (1,),
        **dict.fromkeys(("streams", "time", "embedding", "hidden"), (0, 1.5, True)),
        "layers": (0, 1.5, True, 101),
        **dict.fromkeys(
            ("embedding_dropout", "input_dropout", "dropout", "output_dropout", "weight_dropout",
             "recurrent_dropout", "zoneout"),
            (-0.1, 1, math.nan, "0.1"),
        ),
    },
    TableConfig: {
        **FILE,
        "time": ("", "a,b", 3, "load"),
        "target": ("", (), "load,load", "load,", 3, ("load", 3), "when"),
        "past": ("load", "wind,wind", "when"),
        "known_future": ("load", 5),
        "static": ("load",),
        "group": ("load", "when"),
        "missing": ("drop", None),
        "calendar": (1,),
        "calibrate": (1,),
        "linear": ("no",),
        "dropout": (1, -0.1), "augment": (5, -0.1, math.nan),
        "quantiles": ((0, 0.5), (0.5, 1), ("0.5",), 0.5, (math.nan,)),
        **dict.fromkeys(("horizon", "hidden", "batch"), (0, 1.5, None)),
        "layers": (0, 1.5, None, 101),
        **dict.fromkeys(("lookback", "season", "patch"), (0, 1.5)),
    },
    SequencesConfig: {
        **FILE,
        "id": ("", 3, None),
        "time": ("who", "", 3),
        "label": ("who", "step", ""),
        "split": ("who", ""),
        "task": ("guess",),
        "features": ("kind", "who", "x,x", "x,", ("x", 3)),
        "categories": ("kind", "who"),
        "missing": ("fill",),
        "class_weights": ("some",),
        "validation": (0, 1, -0.1),
        "test": (1, -0.1),
        "bidirectional": (1,),
        **dict.fromkeys(("buckets", "batch"), (0, 1.5)),
        "hidden": (0, 1.5, 2**30),
        "layers": (0, 1.5, 101),
        **dict.fromkeys(("input_dropout", "dropout", "smoothing"), (1, -0.1, math.nan)),
    },
}  # fmt: skip
CASES = [
    (config, name, value)
    for config, bad in BAD.items()
    for name, values in (COMMON | bad).items()
    for value in values
]


@pytest.mark.parametrize(("config", "name", "value"), CASES)
def test_a_bad_value_is_refused_and_its_option_named(config, name, value):
    with pytest.raises((TypeError, ValueError), match=r"^[a-z_, ]+: expected ") as told:
        config(**NEEDED[config] | {name: value})
    said = str(told.value)
    named = said.partition(":")[0].split(", ")
    # A column with two uses is named with one of its two options.
    assert name in named or name in said or (name == "time" and value in ("load", "who")), said


@pytest.mark.parametrize("config", BAD)
def test_every_option_has_bad_values_here(config):
    free = {"out", "from_"}  # paths, which are looked at when a run is started
    free |= {"validation", "test", "until"} if config is TableConfig else set()
    assert {field.name for field in fields(config)} - free == (COMMON | BAD[config]).keys()


@pytest.mark.parametrize("config", BAD)
def test_the_defaults_are_good_and_stay(config):
    one = config(**NEEDED[config])
    assert one == config(**NEEDED[config])
    with pytest.raises(FrozenInstanceError):
        one.epochs = 3
    with pytest.raises(TypeError):
        config("positional")


@pytest.mark.parametrize("config", BAD)
def test_the_edges_are_good(config):
    edges = {"epochs": 0.5, "warmup": 0, "weight_decay": 0, "patience": 0, "seed": 0}
    edges |= {"dropout": 0.0, "hidden": 1, "out": "some/where", "name": "a name, b"}
    one = config(**NEEDED[config], **edges)
    assert one.out == Path("some/where")
    assert config(**NEEDED[config], seed=2**31 - 1, steps=np.int64(3)).steps == 3


@pytest.mark.parametrize("config", BAD)
def test_epochs_and_steps_are_one_thing_said_twice(config):
    with pytest.raises(ValueError, match=r"^epochs, steps: expected one of them, got 2 and 3"):
        config(**{**NEEDED[config], "epochs": 2, "steps": 3})


@pytest.mark.parametrize(
    ("config", "parts"),
    [(TextConfig, (0.5, 0.5)), (SequencesConfig, (0.9, 0.2))],
)
def test_something_is_left_to_train_on(config, parts):
    with pytest.raises(ValueError, match=r"^validation, test: expected to leave something"):
        config(**NEEDED[config], validation=parts[0], test=parts[1])


def test_columns_are_named_in_one_string_or_one_by_one():
    for value in ("load, wind", ["load", "wind"], ("load", "wind")):
        assert column_names("past", value) == ("load", "wind")
    assert column_names("past", ("a, b",)) == ("a, b",)  # one by one: a comma is a comma
    assert column_names("past", None) == column_names("past", "") == ()
    one = TableConfig(time="when", target="load,wind", horizon=4, group=["place"])
    assert (one.target, one.group) == (("load", "wind"), ("place",))
    two = SequencesConfig(**NEEDED[SequencesConfig], features="x, y,step", categories="y")
    assert (two.features, two.categories) == (("x", "y", "step"), ("y",))


def test_a_name_with_a_comma_stands_in_quotes():
    assert column_names("past", '"a, b", c d') == ("a, b", "c d")
    one = TableConfig(time='"day, hour"', target='"load, net"', horizon=4)
    assert (one.time, one.target) == ("day, hour", ("load, net",))


def test_a_tab_has_a_name():
    for said in ("tab", r"\t", "\t"):
        assert TableConfig(**NEEDED[TableConfig], separator=said).separator == "\t"


def test_what_is_not_above_0_is_asked_for_in_one_way():
    for name in ("epochs", "learning_rate", "clip"):
        for value in (0, -1):
            with pytest.raises(ValueError, match=f"{name}: expected a finite number above 0, got"):
                TextConfig(**{name: value})
    for value in (0, -1, 1):
        with pytest.raises(ValueError, match="test: expected a finite number above 0 and below 1"):
            TextConfig(test=value)


def test_no_more_steps_are_read_at_once_than_there_are():
    with pytest.raises(ValueError, match="patch: expected at most the 8 steps of lookback, got 9"):
        TableConfig(**NEEDED[TableConfig], lookback=8, patch=9)


def test_quantiles_rise_and_have_the_median():
    assert TableConfig(**NEEDED[TableConfig], quantiles=(0.9, 0.1, 0.9)).quantiles == (
        *(0.1, 0.5, 0.9),
    )
    assert TableConfig(**NEEDED[TableConfig], quantiles=[]).quantiles == (0.5,)


def test_a_column_of_a_forecast_is_no_column_of_the_group():
    with pytest.raises(ValueError, match=r"^time, group: .*, got target$"):
        TableConfig(**NEEDED[TableConfig], group="target")
    with pytest.raises(ValueError, match=r"^time, group: .*, got q0\.25$"):
        TableConfig(time="q0.25", target="load", horizon=4, quantiles=(0.25,))


def test_numbers_have_no_classes_to_weigh():
    with pytest.raises(ValueError, match=r"^class_weights: expected 'none' for the task 'regress'"):
        SequencesConfig(**NEEDED[SequencesConfig], task="regress", class_weights="balanced")
