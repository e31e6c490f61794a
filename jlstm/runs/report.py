"""A run as a page to read, ``report.html``: what it is worth, and what it was made of and how.

It is made from the files of the run's folder alone, so that every run can have one, and is one
file that needs no other: pictures are inside, and nothing is loaded from anywhere. The same run
gives the same page, but for the seconds that it took.
"""

import base64
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jlstm.extras import require
from jlstm.files import replacing
from jlstm.plots import DPI
from jlstm.records import plain, read_json_lines
from jlstm.runs.command import arguments, typed
from jlstm.runs.folder import SEEDS, WINNER, begins_at, best_run, read_config, read_json
from jlstm.runs.kinds import kind_of, task_of
from jlstm.runs.naming import results_path
from jlstm.tasks.config import Training, flag
from jlstm.tasks.job import Evaluation, Picture, Table, no_forecast

NAME = "report.html"
"""Of the page, in the folder of the run."""

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a page may not have in it, whatever columns are called and models write."""


@dataclass(frozen=True)
class Judgement:
    """An evaluation as the folder has it."""

    of: str | None
    """The file; None for the part that was kept back."""
    splits: str
    """The option of a backtest; empty where the model of the run itself was judged."""
    verdict: str
    notes: Sequence[str]
    tables: Sequence[Table]
    details: Sequence[Table]
    pictures: Sequence[Picture]
    sample: str
    """What a language model writes."""


def for_people(judged: Evaluation, sample: str) -> dict[str, Any]:
    """What a page shows of an evaluation, as JSON has it; ``read_judgement`` is the way back."""
    return {
        "notes": list(judged.notes),
        "tables": [plain(asdict(table)) for table in judged.tables],
        "details": [plain(asdict(table)) for table in judged.details],
        "pictures": [asdict(picture) for picture in judged.pictures],
        "sample": sample,
    }


def read_judgement(path: Path) -> Judgement:
    """What a file of the folder ``evaluation`` says.

    Raises:
        ValueError: it says something else.
    """
    with _as_written(path):
        said = _read(path, dict)
        shown = said.get("for_people", {})  # of an older run, there is only the verdict
        return Judgement(
            of=said["file"],
            splits=str(said.get("splits", "")),
            verdict=str(said["verdict"]),
            notes=[str(note) for note in shown.get("notes", ())],
            tables=[_table(table) for table in shown.get("tables", ())],
            details=[_table(table) for table in shown.get("details", ())],
            pictures=[Picture(str(p["path"]), str(p["about"])) for p in shown.get("pictures", ())],
            sample=str(shown.get("sample", "")),
        )


def _table(said: Mapping[str, Any]) -> Table:
    """A table, as JSON has it."""
    return Table(
        title=str(said["title"]),
        columns=[str(column) for column in said["columns"]],
        rows=[[str(cell) for cell in row] for row in said["rows"]],
        best=[int(row) for row in said["best"]],
    )


@contextmanager
def _as_written(path: Path) -> Iterator[None]:
    """Within the block, what is not as expected is the fault of this file.

    Raises:
        ValueError: something is not.
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: expected what jlstm wrote there, got something else") from None


def _read(path: Path, kind: type) -> Any:
    """What a JSON file says; an empty ``kind`` where there is no file.

    Raises:
        ValueError: it cannot be read, or says something of another kind.
    """
    if not path.exists():
        return kind()
    said = read_json(path)
    if not isinstance(said, kind):
        raise ValueError(f"{path}: expected what jlstm wrote there, got something else")
    return said


def write_report(folder: Path) -> Path:
    """Write the page of a run, whole or not at all.

    Args:
        folder: of the run, in whatever state.

    Returns:
        The page.

    Raises:
        MissingExtraError: Jinja2 is not installed.
        OSError: no folder of a run, or it cannot be written.
        ValueError: a file of it is damaged.
    """
    jinja2 = require("jinja2", "train")
    folder = best_run(folder)
    template = jinja2.Environment(
        autoescape=True,  # people name columns and classes as they like
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).from_string(files("jlstm.runs").joinpath("report.html.jinja").read_text("utf-8"))
    page = template.render(**_contents(folder))
    with replacing(folder / NAME) as beside:
        beside.write_text(CONTROL.sub("�", page), "utf-8")
    return folder / NAME


def _contents(folder: Path) -> dict[str, Any]:
    """What the template asks for."""
    config = read_config(folder)
    with _as_written(folder / "config.json"):
        sources = [str(file) for file in _read(folder / "config.json", dict)["files"]]
    test = results_path(folder, None)
    others = sorted(path for path in test.parent.glob("*.json") if path != test)
    judged = [read_judgement(path) for path in (test, *others) if path.exists()]
    log = folder / "log.txt"
    return {
        "name": folder.resolve().name,
        "kind": kind_of(config),
        "finished": (folder / "result.json").exists(),
        "facts": [*_facts(folder, config)],
        "judged": judged,
        "seeds": _of_seeds(folder.resolve()),
        "search": _of_search(folder.resolve()),
        "picture": lambda path: _picture(folder / path),
        "about": [str(sentence) for sentence in _read(folder / "about.json", list)],
        "files": sources,
        "curve": Picture("plots/training.png", "The loss over the steps of the training."),
        "trials": Picture("../plots/trials.png", "The validation loss of each trial."),
        "validations": [*_validations(folder / "metrics.jsonl")],
        "options": [*_options(config)],
        "environment": [*_flat(_read(folder / "environment.json", dict))],
        "commands": [*_commands(folder, config, sources)],
        "seed": config.seed,
        "log": log.read_text("utf-8", "replace") if log.is_file() else "",
    }


def _of_seeds(folder: Path) -> list[Table]:
    """Of one of several runs with a seed each, once all have ended: how they compare."""
    path = folder.parent / SEEDS
    with _as_written(path):
        said = _read(path, dict)
        if folder.name not in [f"seed-{seed}" for seed in said.get("seeds", ())]:
            return []
        return [_table(table) for table in said.get("for_people", ())]


def _of_search(folder: Path) -> list[Table]:
    """Of the winner of a search: the best trials."""
    path = folder.parent / WINNER
    with _as_written(path):
        said = _read(path, dict)
        if folder.name != f"trial-{said.get('trial')}":
            return []
        return [_table(table) for table in said.get("for_people", ())]


def _facts(folder: Path, config: Training) -> Iterator[tuple[str, str]]:
    """The run in a few words, each with what it is."""
    with _as_written(folder / "metrics.jsonl"):
        step = max((int(r["step"]) for r in read_json_lines(folder / "metrics.jsonl")), default=0)
    with _as_written(folder / "result.json"):
        ended = _read(folder / "result.json", dict)
        yield "Steps", f"{ended['step']:,} of {ended['steps']:,}" if ended else f"{step:,}"
    with _as_written(folder / "best.json"):
        best = _read(folder / "best.json", dict)
        if best:
            yield "Best validation", f"{best['loss']:.4g} {best['score']}".rstrip()
            yield "Parameters kept", f"of step {best['step']:,}"
    yield "Seed", str(config.seed)
    with _as_written(folder / "timing.jsonl"):
        clock = [float(record["seconds"]) for record in read_json_lines(folder / "timing.jsonl")]
        if clock:  # which begins anew with each resumption
            laps = [a for a, b in zip(clock, [*clock[1:], 0.0], strict=True) if b < a]
            yield "Training took", f"{sum(laps):,.0f} s"


def _validations(path: Path) -> Iterator[tuple[str, str, str]]:
    """Step, training loss and validation loss of each validation."""
    with _as_written(path):
        for record in read_json_lines(path):
            step, loss, validation = (record[n] for n in ("step", "loss", "validation_loss"))
            if validation is not None:
                yield f"{step:,}", "–" if loss is None else f"{loss:.4g}", f"{validation:.4g}"


class Image(NamedTuple):
    """A picture in the page."""

    content: str
    """As an address that holds all of it."""
    width: int
    height: int
    """As large as it was drawn, in the page's pixels, of which an inch has 96."""


def _picture(path: Path) -> Image | None:
    """The PNG; None where there is none that is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not content.startswith(b"\x89PNG\r\n") or b"IEND" not in content[-12:]:
        return None
    width, height = (round(int.from_bytes(content[n : n + 4]) * 96 / DPI) for n in (16, 20))
    return Image("data:image/png;base64," + base64.b64encode(content).decode(), width, height)


def _options(config: Training) -> Iterator[tuple[str, str, str, bool]]:
    """Of each option the name, the value, the default, and whether they differ."""
    for field in fields(config):
        value = getattr(config, field.name)
        needed = field.default is MISSING
        default = "" if needed else typed(field.default) or "–"
        yield flag(field.name), typed(value) or "–", default, needed or value != field.default


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of what may be nested, in words."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((inner, str(said or "not installed")) for inner, said in value.items())
        elif isinstance(value, list):
            yield name.replace("_", " "), ", ".join(dict.fromkeys(map(str, value)))
        else:
            yield name.replace("_", " "), str(value)


def _commands(folder: Path, config: Training, sources: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What a command does, and the command: of all that can be done with the run."""
    predicts = task_of(config).predict is not no_forecast
    run = str(folder)
    yield "Train the same once more", shlex.join(_asked_by(folder, config, sources))
    if (asked := folder / "config.toml").is_file():
        again = ["jlstm", "train", kind_of(config), "--config", str(asked)]
        yield "The same, from the file that says what was asked for", shlex.join(again)
    with _as_written(folder / "result.json"):
        ended = _read(folder / "result.json", dict)
        steps = 2 * int(ended["steps"]) if ended else None
    if steps is not None:
        longer = ["jlstm", "resume", run, "--steps", str(steps)]
        yield "Make the training twice as long, in a new folder", shlex.join(longer)
    else:
        go_on = ["jlstm", "resume", run]
        yield "Go on with the training where it was stopped", shlex.join(go_on)
    yield "Judge the model again", shlex.join(["jlstm", "evaluate", run])
    if predicts:
        yield "Write forecasts or labels", shlex.join(["jlstm", "predict", run]) + " FILE"
    else:
        yield "Let the model write", shlex.join(["jlstm", "sample", run])
    yield "Take the model elsewhere", shlex.join(["jlstm", "export", run, "--to", "onnx"])


def _asked_by(folder: Path, config: Training, sources: Sequence[str]) -> list[str]:
    """The command that began the run."""
    if begins_at(folder):  # a longer one
        length = ["--steps", str(config.steps)]
        if config.epochs is not None:
            length = ["--epochs", f"{config.epochs:g}"]
        rate = ["--learning-rate", str(config.learning_rate)]
        return ["jlstm", "resume", str(config.from_), *length, *rate]
    without = {field.name: field.default for field in fields(config)}
    if config.from_ is not None:
        # What is not said is as it was there, where that can still be seen; else all is said.
        try:
            origin = read_config(config.from_)
        except (OSError, ValueError):
            without = {n: default for n, default in without.items() if n in config.of_one_run}
        else:
            taken = set(without) - set(config.of_one_run)
            without |= {name: getattr(origin, name, MISSING) for name in taken}
    named = {**without, "name": config.name}  # which has to be another one
    command = ["jlstm", "train", kind_of(config), *sources]
    return [*command, *arguments(config, named)]
