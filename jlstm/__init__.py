"""The LSTM for JAX: the public names, each imported when it is first asked for.

`jlstm --help` has to answer at once, and importing JAX takes half a second; so nothing is imported
here that was not asked for.
"""

import sys
from importlib import import_module, metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names again, for type checkers and editors
    from jlstm.cell import cell as cell
    from jlstm.cell import init_carry as init_carry
    from jlstm.cell import init_params as init_params
    from jlstm.comparison import Comparison as Comparison
    from jlstm.comparison import compare as compare
    from jlstm.devices import over_devices as over_devices
    from jlstm.layers import Stack as Stack
    from jlstm.layers import init_stack as init_stack
    from jlstm.layers import init_stack_carry as init_stack_carry
    from jlstm.layers import stack as stack
    from jlstm.sequence import lstm as lstm
    from jlstm.types import GATES as GATES
    from jlstm.types import Carry as Carry
    from jlstm.types import LSTMParams as LSTMParams
    from jlstm.variants import Variant as Variant
    from jlstm.variants import VariantParams as VariantParams

    __version__: str

_NAMES = {
    "types": ("GATES", "LSTMParams", "Carry"),
    "cell": ("init_params", "init_carry", "cell"),
    "variants": ("Variant", "VariantParams"),
    "sequence": ("lstm",),
    "layers": ("Stack", "init_stack", "init_stack_carry", "stack"),
    "devices": ("over_devices",),
    "comparison": ("compare", "Comparison"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [*_HOME]  # for `from jlstm import *`


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("jlstm")
    if name not in _HOME:
        raise AttributeError(f"module 'jlstm' has no attribute {name!r}")
    value = getattr(import_module(f"jlstm.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})


class _Package(ModuleType):
    """A package in which a public name keeps its meaning.

    Importing the file `jlstm/cell.py` sets `jlstm.cell` to that module; `jlstm.cell` is to be the
    function, whichever of the two was asked for first.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
