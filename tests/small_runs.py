"""Runs of each kind, small enough for a test, and all of a run that must not depend on chance."""

import jax
import numpy as np

from jlstm.runs.folder import read_config
from jlstm.runs.kinds import task_of
from jlstm.runs.state import restore
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

TEXT = "".join(f"{n} bottles of beer on the wall, {n % 7} fell.\n" for n in range(400))
SMALL = {
    "hidden": 8, "layers": 1, "embedding": 4, "streams": 4, "time": 8, "steps": 60,
    "validate_every": 6, "warmup": 5, "weight_dropout": 0.2, "zoneout": 0.1,
}  # fmt: skip


def nothing(text):
    pass


def result(folder, steps=60):
    """What has to be the same, bit for bit, however often a run was stopped."""
    config = read_config(folder)
    job = task_of(config).build(config, folder)
    state, book = restore(folder, config, job, nothing)
    assert int(state.step) == steps
    names = ("metrics.jsonl", "best.safetensors", "best.json")
    return {
        "state": [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)],
        "book": [book.stale, book.best.loss, book.best.step, book.losses, book.grad_norms],
        **{name: (folder / name).read_bytes() for name in names},
    }


WORSE = {"steps": 24, "validate_every": 5, "learning_rate": 1.0, "patience": 0}
"""With so high a learning rate validation gets worse again: the best parameters grow old."""


def text(path):
    path.write_text(TEXT)
    return TextConfig(**{**SMALL, "out": path.parent, "name": "run", **WORSE, "warmup": 0})


def table(path):
    hours = np.datetime64("2020-01-01T00:00") + 60 * np.arange(600)
    load = np.sin(np.arange(600) * 2 * np.pi / 24) + np.random.default_rng(0).normal(0, 0.1, 600)
    rows = (f"{hour},{value:.4f}\n" for hour, value in zip(hours, load, strict=True))
    path.write_text("hour,load\n" + "".join(rows))
    return TableConfig(
        time="hour", target="load", horizon=4, lookback=16, hidden=6, batch=16, out=path.parent,
        **WORSE,
    )  # fmt: skip


def labelled(path):
    generator = np.random.default_rng(0)
    rows = (
        f"{n},{t},{generator.normal(n % 2):.4f},{'ab'[n % 2]}\n"
        for n in range(60)
        for t in range(int(generator.integers(2, 9)))
    )
    path.write_text("walk,t,x,label\n" + "".join(rows))
    return SequencesConfig(
        id="walk", time="t", label="label", hidden=6, batch=8, buckets=2, out=path.parent, **WORSE
    )  # fmt: skip
