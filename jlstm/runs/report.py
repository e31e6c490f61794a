"""A run as a page to read, ``report.html``: what it is worth, and what it was made of and how.

It is made from the files of the run's folder alone, so that every run can have one, and is one file
that needs no other: pictures are inside, and nothing is loaded from anywhere. The same run gives the
same page, but for the seconds that it took.
"""

import base64
import csv
import io
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from jlstm.extras import require
from jlstm.files import replacing
from jlstm.records import plain, read_json_lines
from jlstm.runs.folder import begins_at, read_config, read_json
from jlstm.runs.kinds import kind_of, task_of
from jlstm.runs.naming import results_path
from jlstm.tasks.config import Training
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
    said = read_json(path)
    try:
        shown = said.get("for_people", {})  # of an older run, there is only the verdict
        return Judgement(
            of=said["file"],
            verdict=str(said["verdict"]),
            notes=list(map(str, shown.get("notes", ()))),
            tables=[Table(**table) for table in shown.get("tables", ())],
            details=[Table(**table) for table in shown.get("details", ())],
            pictures=[Picture(**picture) for picture in shown.get("pictures", ())],
            sample=str(shown.get("sample", "")),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected what jlstm wrote there, which jlstm evaluate writes anew, got "
            f"something else ({error})"
        ) from None


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
    folder = Path(folder)
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
    known = read_json(folder / "config.json")
    ended = read_json(folder / "result.json")
    records = read_json_lines(folder / "metrics.jsonl")
    test = results_path(folder, None)
    others = sorted(path for path in test.parent.glob("*.json") if path != test)
    judged = [read_judgement(path) for path in (test, *others) if path.exists()]
    about = read_json(folder / "about.json")
    environment = read_json(folder / "environment.json")
    log = folder / "log.txt"
    return {
        "name": folder.resolve().name,
        "kind": kind_of(config),
        "finished": ended is not None,
        "facts": [*_facts(folder, config, ended, records)],
        "judged": judged,
        "picture": lambda path: _picture(folder / path),
        "about": about if isinstance(about, list) else [],
        "files": [str(file) for file in known.get("files", [])],
        "curve": Picture("plots/training.png", "The loss over the steps of the training."),
        "records": [r for r in records if r.get("validation_loss") is not None],
        "options": [*_options(config)],
        "environment": [*_flat(environment)] if isinstance(environment, Mapping) else [],
        "commands": [*_commands(folder, config, known)],
        "seed": config.seed,
        "log": log.read_text("utf-8", "replace") if log.is_file() else "",
    }


def _facts(
    folder: Path, config: Training, ended: Any, records: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """The run in a few words, each with what it is."""
    best = read_json(folder / "best.json")
    timing = read_json_lines(folder / "timing.jsonl")
    try:
        step = ended["step"] if ended else max((r["step"] for r in records), default=0)
        of = f" of {ended['steps']:,}" if ended else ""
        yield "Steps", f"{step:,}{of}"
        if best:
            yield "Best validation", f"{best['loss']:.4g} {best['score']}".rstrip()
            yield "Parameters kept", f"of step {best['step']:,}"
        yield "Seed", str(config.seed)
        if timing:
            # The clock begins anew with each resumption.
            laps = [
                a["seconds"]
                for a, b in zip(timing, [*timing[1:], {"seconds": 0.0}], strict=True)
                if b["seconds"] < a["seconds"]
            ]
            yield "Training took", f"{sum(laps):,.0f} s"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder}: expected what jlstm wrote into result.json, best.json, metrics.jsonl and "
            f"timing.jsonl, got something else ({error})"
        ) from None


def _picture(path: Path) -> str | None:
    """The PNG as an address that holds all of it; None where there is none that is whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not content.startswith(b"\x89PNG\r\n") or b"IEND" not in content[-12:]:
        return None
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _options(config: Training) -> Iterator[tuple[str, str, str, bool]]:
    """Of each option the name, the value, the default, and whether they differ."""
    for field in fields(config):
        value = getattr(config, field.name)
        needed = field.default is MISSING
        default = "" if needed else _typed(field.default) or "–"
        yield _flag(field.name), _typed(value) or "–", default, needed or value != field.default


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of what may be nested, in words."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((inner, str(said or "not installed")) for inner, said in value.items())
        elif isinstance(value, list):
            yield name.replace("_", " "), ", ".join(dict.fromkeys(map(str, value)))
        else:
            yield name.replace("_", " "), str(value)


def _flag(name: str) -> str:
    return "--" + name.strip("_").replace("_", "-")


def _typed(value: Any) -> str:
    """The value of an option as it is typed; nothing where it is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == "\t":
        return "tab"
    if isinstance(value, tuple):  # names with a comma in them stand in quotes
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(value)
        return line.getvalue() if value else ""
    return str(value)


def arguments(config: Training, without: Mapping[str, Any]) -> list[str]:
    """The options on a command line that ask for this configuration.

    Args:
        config: what is asked for.
        without: what holds where nothing is said.
    """
    asked = []
    for name in (field.name for field in fields(config)):
        value = getattr(config, name)
        if value is None or value == () or (name in without and without[name] == value):
            continue
        flag, typed = _flag(name), _typed(value)
        if isinstance(value, bool):
            asked.append(flag if value else f"--no-{flag[2:]}")
        elif typed.startswith("-"):
            asked.append(f"{flag}={typed}")
        else:
            asked += [flag, typed]
    return asked


def _commands(
    folder: Path, config: Training, known: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """What a command does, and the command: of all that can be done with the run."""
    predicts = task_of(config).predict is not no_forecast
    run = str(folder)
    yield "Train the same once more", shlex.join(_asked_by(folder, config, known))
    yield "Go on with the training, where it was stopped", shlex.join(["jlstm", "resume", run])
    yield "Judge the model again", shlex.join(["jlstm", "evaluate", run])
    if predicts:
        yield "Write forecasts or labels", shlex.join(["jlstm", "predict", run]) + " FILE"
    else:
        yield "Let the model write", shlex.join(["jlstm", "sample", run, "--prompt", "…"])
    yield "Take the model elsewhere", shlex.join(["jlstm", "export", run, "--to", "onnx"])


def _asked_by(folder: Path, config: Training, known: Mapping[str, Any]) -> list[str]:
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
            without = {name: without[name] for name in config.of_one_run}
        else:
            taken = set(without) - set(config.of_one_run)
            without |= {name: getattr(origin, name, MISSING) for name in taken}
    named = {**without, "name": config.name}  # which has to be another one
    command = ["jlstm", "train", kind_of(config), *map(str, known.get("files", []))]
    return [*command, *arguments(config, named)]
