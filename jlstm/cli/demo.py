"""`jlstm demo`: train a small language model on the text that comes with Python, and judge it."""

import math
import platform
import time as clock
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from jlstm.cli.options import Count, CountOrZero, Fraction, Positive, PositiveOrZero, Seed
from jlstm.extras import require

if TYPE_CHECKING:  # importing these imports JAX, for which `--help` need not wait
    from jlstm.models import LanguageModel, TokenBatch
    from jlstm.train import Best, TrainState
    from jlstm.train.step import TrainStep


@dataclass(frozen=True)
class DemoConfig:
    """What `jlstm demo` is asked for; the defaults were found by measuring on two CPU cores.

    They were chosen by the bits per byte on the very text that the demo validates on.
    """

    steps: Annotated[Count, Parameter(help="Steps of training.")] = 4400
    hidden: Annotated[Count, Parameter(help="Units of the LSTM.")] = 384
    embedding: Annotated[Count, Parameter(help="Features that stand for a byte.")] = 64
    streams: Annotated[
        Count, Parameter(help="Pieces of the text that are read side by side: the batch.")
    ] = 16
    time: Annotated[Count, Parameter(help="Bytes through which a gradient goes back in time.")] = 64
    learning_rate: Annotated[
        Positive, Parameter(help="The highest; it rises from 0 and falls to 0 along a cosine.")
    ] = 0.008
    clip: Annotated[
        Positive, Parameter(help="The length to which a longer gradient is shortened.")
    ] = 1.0
    dropout: Annotated[Fraction, Parameter(help="Part of the features left out in training.")] = 0.2
    weight_decay: Annotated[
        PositiveOrZero,
        Parameter(help="Part of each weight taken off per step, times the learning rate."),
    ] = 0.05
    seed: Annotated[Seed, Parameter(help="Of everything random.")] = 0
    sample: Annotated[CountOrZero, Parameter(help="Bytes of text to write at the end.")] = 600
    compare_seconds: Annotated[
        PositiveOrZero,
        Parameter(
            help="How long to time the hand-derived rules against autodiff at the end; 0: not."
        ),
    ] = 10.0
    out: Annotated[Path, Parameter(help="Where the folder of this run is made.")] = Path("runs")


FILES = {
    "best.safetensors": "the parameters with the lowest validation loss",
    "loss.png": "the loss curve",
    "sample.txt": "text that the model wrote",
    "evaluation.json": "the bits per byte of the model and of the baselines",
    "comparison.json": "the hand-derived rules against autodiff",
    "metrics.jsonl": "the course of the training",
    "config.json": "what was asked for",
    "environment.json": "versions and machine",
}
"""What a run writes."""

ORDER = 5
"""Bytes of context of the best baseline."""
REPORTS, VALIDATIONS = 200, 8
"""In a run, about: a report waits for the device, a validation takes a second or two."""
TEMPERATURE = 0.7
"""Of the sample: a little more cautious than what the model believes."""

Record = dict[str, Any]


def demo(*, config: Annotated[DemoConfig, Parameter(name="*")] = DemoConfig()) -> None:
    """Train a small language model and show what it learnt.

    The text is Python's own help on its language. The model reads it byte by byte and foretells
    each next one; it is judged by the bits per byte that it needs on the last tenth of the text,
    which it is not trained on, beside what plain counting needs. Ctrl-C ends the training early and
    what was reached is judged.
    """
    for module, extra in (("matplotlib", "plots"), ("safetensors", "train")):
        require(module, extra)  # before the work, not after it
    start = clock.perf_counter()
    console = Console(highlight=False, markup=False, soft_wrap=True)

    from jlstm.data.text import pydoc_text, split_text
    from jlstm.train import interrupt_flag
    from jlstm.train.records import environment, write_json

    text = pydoc_text()
    training, validation = split_text(text)
    run = prepare(config, training)  # refuses what cannot be, before anything is written
    folder = make_folder(config.out)
    settings = {**asdict(config), "out": str(config.out)}
    write_json(folder / "config.json", settings)
    write_json(folder / "environment.json", environment())
    console.print(
        f"Text: pydoc_data.topics of Python {platform.python_version()}, {len(text):,} bytes: the "
        f"first {len(training):,} to train on,\nthe last {len(validation):,} to validate on. "
        f"{repeated(training, validation):.0%} of the validation text are lines that the training "
        "text has as well."
    )
    bits = baselines(training, validation)

    with interrupt_flag() as interrupted:
        records, best = train(config, run, len(training), validation, folder, console, interrupted)
        stopped = interrupted()

    seconds = clock.perf_counter() - start
    bits = {"LSTM": best.loss / math.log(2), **bits}
    verdict = judge(bits)
    write_json(
        folder / "evaluation.json",
        {
            "training_bytes": len(training),
            "validation_bytes": len(validation),
            "bits_per_byte": bits,
            "verdict": verdict,
            "best_step": best.step,
            "steps": records[-1]["step"],
            "interrupted": stopped,
            "seconds": seconds,
        },
    )
    from jlstm.plots import plot_training

    lines = {name: value for name, value in bits.items() if name != "LSTM"}
    plot_training(records, folder / "loss.png", lines, title="jlstm demo: bits per byte")
    if stopped:
        console.print(f"\nInterrupted after {records[-1]['step']:,} of {config.steps:,} steps.")
    show_bits(bits, verdict, best, console)
    show_sample(config, best.params, validation, folder, console)
    if config.compare_seconds and not stopped:
        compare_rules(config, folder, console)

    minutes, seconds = divmod(round(clock.perf_counter() - start), 60)
    console.print(f"\n{minutes} min {seconds} s. In {folder}:")
    for name, what in FILES.items():
        if (folder / name).exists():
            console.print(f"  {name:<18}{what}")
    if stopped:
        raise KeyboardInterrupt


def make_folder(parent: Path) -> Path:
    """A new folder, named after the time, for what a run writes.

    Raises:
        OSError: ``parent`` is no folder, or cannot be written.
    """
    name = clock.strftime("demo-%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"-{n}" for n in range(2, 100))):  # a second run within the second
            try:
                (parent / (name + suffix)).mkdir()
            except FileExistsError:
                continue
            return parent / (name + suffix)
    except OSError as error:
        raise OSError(
            f"--out: expected a folder to write in, got {parent} ({error.strerror})"
        ) from error
    raise FileExistsError(f"--out: {parent} has too many folders named {name}")


def repeated(training: Any, validation: Any) -> float:
    """The part of the validation text that consists of lines of the training text."""
    known = set(training.tobytes().split(b"\n"))
    lines = [line for line in validation.tobytes().split(b"\n") if line.strip()]
    return sum(len(line) for line in lines if line in known) / max(1, sum(map(len, lines)))


def baselines(training: Any, validation: Any) -> dict[str, float]:
    """Bits per byte of what needs no network, on the bytes that the network is judged by."""
    from jlstm.data.ngram import fit_ngram, ngram_bits, uniform_bits

    return {
        "uniform": uniform_bits(),
        "unigram": ngram_bits(fit_ngram(training, 0), validation),
        f"order-{ORDER} Kneser–Ney": ngram_bits(fit_ngram(training, ORDER), validation),
    }


class Run(NamedTuple):
    """A training that is ready to begin: what ``fit`` takes."""

    step: "TrainStep"
    state: "TrainState"
    batches: "Iterator[TokenBatch]"


def prepare(config: DemoConfig, training: Any) -> Run:
    """The model, its optimiser and its batches; raise where they cannot be as asked for."""
    from functools import partial

    import jax

    from jlstm.cell import init_carry
    from jlstm.checks import check_size
    from jlstm.data.text import training_windows
    from jlstm.devices import over_devices, place, use_cores
    from jlstm.models import init_language_model, language_model_loss
    from jlstm.sequence import lstm
    from jlstm.train import init_train_state, make_optimizer, make_train_step

    check_size("sample", config.sample, 0)  # of use only at the end
    check_size("streams", config.streams)
    shares = math.gcd(use_cores(), config.streams)
    devices = jax.devices()[:shares]
    windows = training_windows(
        training, streams=config.streams, time=config.time, steps=config.steps, seed=config.seed
    )
    key_params, key_dropout = jax.random.split(jax.random.key(config.seed))
    params = init_language_model(
        key_params, 256, embedding_size=config.embedding, hidden_size=config.hidden
    )
    batches = (
        window._replace(key=jax.random.fold_in(key_dropout, n)) for n, window in enumerate(windows)
    )
    optimizer = make_optimizer(
        config.learning_rate, config.steps, clip=config.clip, weight_decay=config.weight_decay
    )
    layer = over_devices(devices=devices) if len(devices) > 1 else lstm
    loss = partial(language_model_loss, layer=layer, dropout=config.dropout)
    state = init_train_state(params, optimizer, init_carry(config.streams, config.hidden))
    state = place(state, devices=devices)._replace(carry=place(state.carry, 0, devices))
    return Run(make_train_step(loss, optimizer), state, batches)


def train(
    config: DemoConfig,
    run: Run,
    training_bytes: int,
    validation: Any,
    folder: Path,
    console: Console,
    interrupted: Callable[[], bool],
) -> tuple[list[Record], "Best"]:
    """Train, show how it goes, write it down; all reports, and the best parameters.

    Raises:
        ValueError: a loss is not finite, or that of no validation is.
    """
    import jax

    from jlstm.cell import init_carry
    from jlstm.data.text import evaluation_windows
    from jlstm.models import language_model_loss, token_count
    from jlstm.train import fit, make_evaluate, save_params
    from jlstm.train.records import append_json_line

    evaluate = make_evaluate(language_model_loss, token_count)

    def validate(params: "LanguageModel") -> float:
        params = jax.device_put(params, jax.devices()[0])  # one sequence: nothing to share out
        carry = init_carry(1, config.hidden)
        return evaluate(params, carry, evaluation_windows(validation))

    size = sum(leaf.size for leaf in jax.tree.leaves(run.state.params))
    tokens = config.streams * config.time
    console.print(
        f"Model: {config.embedding} → LSTM {config.hidden} → 256, {size:,} parameters. "
        f"{config.steps:,} steps of {config.streams} × {config.time} bytes, "
        f"{config.steps * tokens / training_bytes:.1f} times the text, "
        f"on {len(run.state.step.devices())} of {len(jax.devices())} devices."
    )
    records: list[Record] = []
    best: Best | None = None
    reports = fit(
        *run,
        report_every=max(1, config.steps // REPORTS),
        validate=validate,
        validate_every=max(1, config.steps // VALIDATIONS),
        stop=interrupted,
    )
    start = clock.perf_counter()
    try:
        with shown(config.steps, console) as show:
            for progress in reports:
                seconds = clock.perf_counter() - start
                valid = progress.validation_loss
                if valid is not None and not math.isfinite(valid):
                    valid = None  # JSON has no word for it
                record = {
                    "step": progress.step,
                    "seconds": round(seconds, 3),
                    "bits_per_byte": progress.loss / math.log(2),
                    "validation_bits_per_byte": None if valid is None else valid / math.log(2),
                    "grad_norm": progress.grad_norm,
                    "bytes_per_second": round(progress.step * tokens / seconds),
                }
                records.append(record)
                append_json_line(folder / "metrics.jsonl", record)
                show(record)
                best = progress.best
                if best is not None and best.step == progress.step:
                    about = {"step": str(best.step), "validation_loss": str(best.loss)}
                    save_params(folder / "best.safetensors", best.params, about)
    except FloatingPointError as error:  # the numbers asked for do not work: a user's mistake
        raise ValueError(f"training: {error}") from error
    if best is None:
        raise ValueError(
            "training: expected a finite validation loss, got none in the whole run; a lower "
            "learning rate may help"
        )
    return records, best


@contextmanager
def shown(steps: int, console: Console) -> Iterator[Callable[[Record], None]]:
    """A function that shows a record: as a progress bar, or as lines where there is no terminal."""
    if not console.is_terminal:

        def say(record: Record) -> None:
            valid = record["validation_bits_per_byte"]
            if valid is None:
                return  # now and then is enough
            left = record["seconds"] / record["step"] * (steps - record["step"])
            console.print(
                f"step {record['step']:,}/{steps:,}: {record['bits_per_byte']:.3f} bits per byte, "
                f"validation {valid:.3f}, {record['bytes_per_second']:,} bytes/s, {left:.0f} s left"
            )

        yield say
        return

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("", total=steps, facts="compiling …")
        valid = ""

        def update(record: Record) -> None:
            nonlocal valid
            if record["validation_bits_per_byte"] is not None:
                valid = f" valid. {record['validation_bits_per_byte']:.3f}"
            facts = (
                f"loss {record['bits_per_byte']:.3f}{valid} bits/byte "
                f"{record['bytes_per_second'] / 1000:.0f} kB/s"
            )
            bar.update(task, completed=record["step"], facts=facts)

        yield update


def judge(bits: Mapping[str, float]) -> str:
    """Who won, in a sentence."""
    others = {name: value for name, value in bits.items() if name != "LSTM"}
    name = min(others, key=lambda name: others[name])
    ours, theirs = bits["LSTM"], others[name]
    if ours < theirs:
        return f"The LSTM wins: {1 - ours / theirs:.1%} fewer bits than the best baseline, {name}."
    return f"The LSTM loses: {name} needs {1 - theirs / ours:.1%} fewer bits."


def show_bits(bits: Mapping[str, float], verdict: str, best: "Best", console: Console) -> None:
    """Print the table of bits per byte, and who won."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("validation text")
    table.add_column("bits per byte", justify="right")
    for name, value in sorted(bits.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{value:.3f}", style="bold green" if name == "LSTM" else "")
    console.print()
    console.print(table)
    console.print(f"{verdict} (Parameters of step {best.step:,}, the best of all validations.)")
    console.print("The command's defaults were chosen by this validation text, too.")


def show_sample(
    config: DemoConfig, params: "LanguageModel", validation: Any, folder: Path, console: Console
) -> None:
    """Let the model go on from the beginning of the validation text; print it and write it."""
    import jax
    import numpy as np

    from jlstm.files import replacing
    from jlstm.models import sample

    if not config.sample:
        return
    prompt = validation[:200]
    params = jax.device_put(params, jax.devices()[0])
    tokens = sample(
        params, jax.random.key(config.seed), prompt.astype(np.int32), config.sample, TEMPERATURE
    )

    def text(part: Any) -> str:
        decoded = bytes(np.asarray(part, np.uint8)).decode(errors="replace")
        # A terminal would obey control characters.
        return "".join(c if c.isprintable() or c == "\n" else "�" for c in decoded)

    written = (
        f"--- given: {len(prompt)} bytes of the validation text\n{text(prompt)}\n"
        f"--- written by the model, at temperature {TEMPERATURE}\n{text(tokens)}\n"
    )
    console.print("\n" + written)
    with replacing(folder / "sample.txt") as beside:
        beside.write_text(written, "utf-8")


def compare_rules(config: DemoConfig, folder: Path, console: Console) -> None:
    """Measure the hand-derived rules against autodiff at the size that was trained."""
    from jlstm.cli.compare import show
    from jlstm.comparison import compare
    from jlstm.train.records import write_json

    console.print("The LSTM of this model, differentiated by hand and by autodiff:")
    comparison = compare(
        time=config.time,
        batch=config.streams,
        input_size=config.embedding,
        hidden_size=config.hidden,
        seconds=config.compare_seconds,
        seed=config.seed,
    )
    show(comparison, console)
    write_json(folder / "comparison.json", comparison.to_dict())
