"""Texts, configurations and trained language models, small enough for a test."""

from dataclasses import replace

import jax
import numpy as np
import optax

from jlstm.devices import place
from jlstm.tasks.text.config import TextConfig
from jlstm.tasks.text.preparing import prepare
from jlstm.tasks.text.training import build
from jlstm.train import init_train_state, make_train_step

SENTENCES = ["the cat sat on the mat", "a dog ran to the cat", "we read the red book", "so it is"]


def some_text(lines: int, seed: int = 0) -> str:
    order = np.random.default_rng(seed).integers(len(SENTENCES), size=lines)
    return "".join(f"{SENTENCES[n]}\n" for n in order)


SMALL = TextConfig(
    streams=4, time=16, embedding=8, hidden=12, layers=1, steps=20, validation=0.1, test=0.2
)
NOISY = replace(
    SMALL,
    layers=2,
    tied=True,
    embedding_dropout=0.1,
    input_dropout=0.1,
    dropout=0.2,
    output_dropout=0.3,
    weight_dropout=0.4,
    recurrent_dropout=0.1,
    zoneout=0.1,
)


def prepared(folder, config=SMALL, content=None):
    content = some_text(150) if content is None else content
    (folder / "run").mkdir()
    file = folder / "book.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    prepare(config, [file], folder / "run")
    file.unlink()  # from here on the folder is enough
    return folder / "run"


def trained(config, folder, steps, optimizer=None):
    job = build(config, folder)
    optimizer = optimizer or optax.adam(0.02)
    params = job.init(jax.random.key(0))
    state = init_train_state(params, optimizer, job.carry(params))
    devices = jax.devices()[: job.devices]
    state = place(state, devices=devices)._replace(carry=place(state.carry, 0, devices))
    step = make_train_step(job.loss, optimizer)
    losses = []
    for n in range(steps):
        state, metrics = step(state, job.batch(n))
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    return state.params, losses
