"""Files that are either whole or not there, and whether they are what they were."""

import hashlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside ``path`` to write to; when the block ends well, what is there takes its place.

    Whatever stops the block, an interrupt or a power cut included, leaves ``path`` as it was::

        with replacing("report.json") as beside:
            beside.write_text(report)

    Raises:
        OSError: as writing and renaming do.
    """
    target = Path(path).resolve()  # a link stays a link, and what it points to is replaced
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield beside
        sync(beside)  # or the name could be there after a power cut, and not what it names
        beside.replace(target)
        sync(target.parent)
    except OSError as error:  # is told of the file that was asked for
        if str(beside) not in str(error):
            raise
        if error.errno is None:
            raise OSError(str(error).replace(str(beside), str(target))) from error
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        with suppress(OSError):
            beside.unlink()


def quoted(path: str | os.PathLike[str]) -> str:
    """A path as it is typed in a shell."""
    return shlex.quote(os.fspath(path))


def with_an_end(path: str | os.PathLike[str]) -> Path:
    """The path of a file that can be read to its end; what is not there is left to who opens it.

    Raises:
        OSError: a folder; a pipe or a device, from which one would read, or wait, for ever.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: expected a file, got a folder, a pipe or a device")
    return path


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file, or what a folder lists, is on the disk and not only on its way there.

    Raises:
        OSError: it cannot be written.
    """
    if os.name != "posix" and os.path.isdir(path):
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal; it is read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
