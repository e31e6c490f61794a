"""What the training program's defaults reach on real data: `python -m tests.benchmarks.quality`.

Every model is trained by ``jlstm.runs.run.train`` with no option but the file, its columns and its
split, once for each seed, and judged on the test part. The data comes from packages and from files
of yours::

    digits       scikit-learn's handwritten digits, row by row
    vowels       JapaneseVowels, 7 to 29 frames of speech of nine speakers, from the files of sktime
                 (`pip install --no-deps sktime`); its own split
    etth1=FILE   ETTh1.csv: seven loads and temperatures, hour by hour; 12, 4 and 4 months
    ot=FILE      the same file, the temperature OT alone, and no option for the split
    text=FILE    a text, such as tiny Shakespeare: characters; once more by dynamic evaluation
"""

import argparse
import csv
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jlstm.cli.demo import digits
from jlstm.runs.run import train
from jlstm.runs.use import evaluate
from jlstm.tasks.config import Training
from jlstm.tasks.sequences.config import SequencesConfig
from jlstm.tasks.table.config import TableConfig
from jlstm.tasks.text.config import TextConfig

COLUMNS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
ETTH1 = {
    "time": "date", "target": COLUMNS, "horizon": 24,
    "validation": "2017-06-26", "test": "2017-10-24", "until": "2018-02-21",
}  # fmt: skip
VOWELS = {"id": "utterance", "time": "frame", "label": "speaker", "split": "part"}


def vowels(folder: Path) -> Path:
    """JapaneseVowels as a table in long format: a row for each frame of each utterance."""
    spec = find_spec("sktime")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("vowels: expected sktime's files: pip install --no-deps sktime")
    data = Path(spec.submodule_search_locations[0]) / "datasets/data/JapaneseVowels"
    file = folder / "vowels.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("utterance", "frame", "speaker", "part", *(f"c{n}" for n in range(12))))
        for part in ("train", "test"):
            lines = (data / f"JapaneseVowels_{part.upper()}.ts").read_text("utf-8").splitlines()
            for n, line in enumerate(line for line in lines if line and line[0] not in "#@"):
                *channels, speaker = line.split(":")
                frames = zip(*(channel.split(",") for channel in channels), strict=True)
                for frame, numbers in enumerate(frames):
                    writer.writerow((f"{part}-{n}", frame, speaker, part, *numbers))
    return file


def task(name: str, folder: Path, common: dict[str, Any]) -> tuple[Training, Path]:
    """The configuration and the file of one of the names above."""
    name, _, given = name.partition("=")
    file = Path(given)
    if name in ("etth1", "ot", "text") and not file.is_file():
        raise SystemExit(f"{name}: expected {name}=FILE, got {given!r}")
    match name:
        case "digits":
            return digits(folder, common)
        case "vowels":
            return SequencesConfig(**VOWELS, **common), vowels(folder)
        case "etth1":
            return TableConfig(**ETTH1, **common), file
        case "ot":
            return TableConfig(time="date", target="OT", horizon=24, **common), file
        case "text":
            return TextConfig(**common), file
    raise SystemExit(f"expected digits, vowels, etth1=FILE, ot=FILE or text=FILE, got {name!r}")


def scores(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Who reached what, from an evaluation's results."""
    if "models" in results:
        for who, found in results["models"].items():
            nats = next(value for name, value in found.items() if name.startswith("nats"))
            yield who, f"{nats:.4f} nats"
    elif "scaled" in results:
        for who, found in results["scaled"].items():
            yield who, f"MSE {found['mse']:.4f} MAE {found['mae']:.4f}"
    else:
        for who, found in results["measures"].items():
            yield who, f"{found['accuracy']:.2%}"


def run(names: Iterable[str], seeds: Sequence[int], out: Path) -> None:
    """Train and print, a line for each seed."""
    for name in names:
        for seed in seeds:
            common = {"seed": seed, "out": out, "name": f"{name.partition('=')[0]}-{seed}"}
            began = time.perf_counter()
            with TemporaryDirectory() as folder:
                config, file = task(name, Path(folder), common)
                outcome = train(config, file, say=lambda text: None)
            seconds = time.perf_counter() - began
            judged = outcome.evaluation
            assert judged is not None
            if isinstance(config, TextConfig):
                judged = evaluate(outcome.folder, dynamic=True, say=lambda text: None)
            told = ", ".join(f"{who} {said}" for who, said in scores(judged.results))
            print(f"{name.partition('=')[0]}, seed {seed}, {seconds:.0f} s: {told}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", help="digits, vowels, etth1=FILE, ot=FILE, text=FILE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    asked = parser.parse_args()
    run(asked.data, asked.seeds, asked.out)
