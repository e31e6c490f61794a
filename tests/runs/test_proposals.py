"""What is searched of the options of each kind of training."""

from dataclasses import fields, replace

import pytest

from jlstm.runs.proposals import Search, propose, searched
from jlstm.runs.trials import Trial
from jlstm.tasks.config import Range
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

CONFIGS = {
    TextConfig: {},
    TableConfig: {"time": "when", "target": "load", "horizon": 4},
    SequencesConfig: {"id": "who", "time": "step", "label": "kind"},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_each_kind_may_be_searched_from_its_defaults(kind):
    asked = kind(**CONFIGS[kind])
    names = {field.name for field in fields(kind)}
    assert {*kind.space} <= names
    assert {"learning_rate", "hidden", "layers", "dropout", "weight_decay"} <= {*kind.space}
    assert searched(asked) == kind.space  # what it begins with is within, as it is
    for name, among in kind.space.items():
        for value in among[:2] if isinstance(among, Range) else among:
            replace(asked, **{name: value})


def test_what_changes_the_loss_itself_is_not_searched():
    # Losses of other quantiles, horizons, labels or splits cannot be held against each other.
    for kind in CONFIGS:
        assert not {*kind.space} & {
            "quantiles", "horizon", "lookback", "season", "target", "missing", "tokens",
            "vocabulary", "validation", "test", "smoothing", "class_weights", "label", "seed",
            "epochs", "steps",
        }  # fmt: skip


def test_what_was_said_stays_as_it_is(tmp_path):
    asked = TableConfig(**CONFIGS[TableConfig])
    left = searched(asked, ("hidden", "time", "learning_rate"))
    assert {*left} == {*TableConfig.space} - {"hidden", "learning_rate"}
    own = searched(replace(asked, from_=tmp_path))
    assert {*own} == {*TableConfig.space} - {*TableConfig.kept}
    with pytest.raises(ValueError, match=r"learning_rate, .*: expected one of them left"):
        searched(asked, tuple(TableConfig.space))


def test_what_it_begins_with_is_in_the_space():
    asked = TableConfig(
        **CONFIGS[TableConfig], learning_rate=1.0, weight_decay=0.0, hidden=77, dropout=0.9
    )
    space = searched(asked)
    assert space["learning_rate"] == Range(3e-4, 1.0, log=True)
    assert space["weight_decay"] == Range(0.0, 0.3)  # no logarithm of 0
    assert space["hidden"] == (*TableConfig.space["hidden"], 77)
    assert space["dropout"] == Range(0.0, 0.9)


def test_the_study_knows_what_became_of_each_trial():
    pytest.importorskip("optuna")
    asked = TableConfig(**CONFIGS[TableConfig])
    search = Search(asked, (), searched(asked), 9, None)
    options = {name: getattr(asked, name) for name in search.space}
    ended = [
        Trial(n, options, status, loss, 10, 1.0, {2: 0.5}, "")
        for n, (status, loss) in enumerate([("finished", 0.4), ("pruned", 0.5), ("failed", None)])
    ]
    known = propose(search, ended).study.trials[:3]
    assert [trial.state.name for trial in known] == ["COMPLETE", "PRUNED", "FAIL"]
    assert [trial.value for trial in known] == [0.4, 0.5, None]
    assert [trial.intermediate_values for trial in known] == [{2: 0.5}] * 3
