"""Small tables with a row for each hour, for the tests of series and their windows."""

import numpy as np
import polars as pl

from jlstm.tasks.table.clock import Step
from jlstm.tasks.table.schema import learn
from jlstm.tasks.table.series import Roles, regular

HOUR = Step(microseconds=3_600_000_000)
ROLES = Roles("time", ("y",))
GROUPED = Roles("time", ("y",), group=("g",))


def table(**columns):
    """A table of text, as read from a CSV."""
    return pl.DataFrame({name: [str(cell) for cell in cells] for name, cells in columns.items()})


def hours(count, start="2016-07-01"):
    return HOUR.times(np.datetime64(start, "us"), np.arange(count))


def one(count, values=None, **roles):
    frame = table(time=hours(count), y=range(count) if values is None else values)
    return regular(frame, ROLES)[0]


def schema_of(series, roles=ROLES, *, validation=12, test=20, **options):
    start = series.starts.min()
    defaults = {"horizon": 2, "lookback": 4, "season": 1, "missing": "fill", "calendar": True}
    nothing = np.zeros((len(series.names), 0)), ()
    split = tuple(HOUR.times(start, np.array(n)) for n in (validation, test))
    more = {"split": split, "static": nothing}
    return learn(series, roles, HOUR, **defaults | more | options)
