"""Files that are either whole or not there, and whether they are what they were."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside ``path`` to write to; when the block ends well, what is there takes its place.

    Whatever stops the block, an interrupt included, leaves ``path`` as it was::

        with replacing("report.json") as beside:
            beside.write_text(report)

    Raises:
        OSError: as writing and renaming do.
    """
    target = Path(path).resolve()  # a link stays a link, and what it points to is replaced
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal; it is read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
