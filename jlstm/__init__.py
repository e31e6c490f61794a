"""The LSTM for JAX: the public names, each imported when it is first asked for.

`jlstm --help` has to answer at once, and importing JAX takes half a second; so nothing is imported
here that was not asked for.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from jlstm.extras import file_in

if TYPE_CHECKING:  # the same names again, for type checkers and editors
    from jlstm.comparison import Comparison as Comparison
    from jlstm.comparison import compare as compare
    from jlstm.devices import over_devices as over_devices
    from jlstm.equations import PLAIN as PLAIN
    from jlstm.initializers import init_carry as init_carry
    from jlstm.initializers import init_params as init_params
    from jlstm.layers import Stack as Stack
    from jlstm.layers import init_stack as init_stack
    from jlstm.layers import init_stack_carry as init_stack_carry
    from jlstm.layers import stack as stack
    from jlstm.saving import load as load
    from jlstm.saving import save as save
    from jlstm.sequence import cell as cell
    from jlstm.sequence import lstm as lstm
    from jlstm.slstm import SLSTM as SLSTM
    from jlstm.slstm import SLSTMCarry as SLSTMCarry
    from jlstm.slstm import SLSTMParams as SLSTMParams
    from jlstm.types import GATES as GATES
    from jlstm.types import Carry as Carry
    from jlstm.types import LSTMParams as LSTMParams
    from jlstm.variants import Variant as Variant
    from jlstm.variants import VariantParams as VariantParams

    __version__: str

_NAMES = {
    "types": ("GATES", "LSTMParams", "Carry"),
    "initializers": ("init_params", "init_carry"),
    "equations": ("PLAIN",),
    "variants": ("Variant", "VariantParams"),
    "slstm": ("SLSTM", "SLSTMParams", "SLSTMCarry"),
    "sequence": ("lstm", "cell"),
    "layers": ("Stack", "init_stack", "init_stack_carry", "stack"),
    "devices": ("over_devices",),
    "saving": ("save", "load"),
    "comparison": ("compare", "Comparison"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [*_HOME]  # for `from jlstm import *`


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("jlstm")
    if name in _HOME:
        value = getattr(import_module(f"jlstm.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    return file_in(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
