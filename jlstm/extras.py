"""Packages that are installed only by those who want what needs them."""

from importlib import import_module
from types import ModuleType


class MissingExtraError(ImportError):
    """A package of one of jlstm's extras is not installed; the message says how to get it."""


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
