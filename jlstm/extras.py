"""Packages that may be missing, and files of jlstm that are imported when they are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


class MissingExtraError(ImportError):
    """A package that is no dependency is not installed; the message says how to get it."""


@contextmanager
def needs(module: str, extra: str) -> Iterator[None]:
    """What is imported within comes with the extra ``jlstm[extra]``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, and broken: that is another story
            raise
        raise MissingExtraError(
            f"{module} is not installed; it comes with: pip install 'jlstm[{extra}]'", name=module
        ) from None


def require(module: str, extra: str) -> ModuleType:
    """The module of this name, which comes with the extra ``jlstm[extra]``.

    Raises:
        MissingExtraError: it is not installed.
    """
    package = module.partition(".")[0]
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # it is there, and broken: that is another story
            raise
        raise MissingExtraError(
            f"{package} is not installed; it comes with: pip install 'jlstm[{extra}]'", name=package
        ) from None
    return import_module(module)


def file_in(package: str, name: str) -> ModuleType:
    """``__getattr__`` of a package: its files are there whether or not they were imported before.

    Raises:
        AttributeError: there is no file of this name.
    """
    if name.startswith("_") or find_spec(f"{package}.{name}") is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return import_module(f"{package}.{name}")
