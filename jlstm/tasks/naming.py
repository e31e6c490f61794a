"""What the results of a run on a file are called."""

import json
from itertools import chain, count
from pathlib import Path


def name_for(folder: Path, file: Path) -> str:
    """The name of what a run's folder has of a file: that of the file, without its ending.

    Where the results of another file have that name already, it is followed by ``-2``, ``-3``… A
    file is another one if its path is, with links followed: a file that was changed is still the
    same, and its results are replaced.

    Args:
        folder: of the run.
        file: what was judged, or is about to be.
    """

    def is_free(name: str) -> bool:
        results = results_path(folder, name)
        return not results.exists() or _file_of(results) == file.resolve()

    numbered = (f"{file.stem}-{number}" for number in count(2))
    return next(filter(is_free, chain([file.stem], numbered)))


def results_path(folder: Path, name: str | None) -> Path:
    """Where the results are: of the file of this name, or, for None, of the part kept back."""
    # There may be a file named test.
    return folder / "evaluation" / ("test.json" if name is None else f"file-{name}.json")


def _file_of(results: Path) -> Path | None:
    """The file that they are of; None where they do not say."""
    try:
        return Path(json.loads(results.read_text("utf-8"))["file"])
    except (ValueError, KeyError, TypeError):
        return None
