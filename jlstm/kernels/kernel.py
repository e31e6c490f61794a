"""What a kernel is: a way to walk through a chunk of steps."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from jlstm.walk import Walk

Keep = Literal["gates", "carries", "hs"]
"""What a walk forward gives for all steps: h; all of the carry; and what the derivative needs."""


class Problem(NamedTuple):
    """What a kernel is asked to do, as far as it is known before the program is compiled."""

    platform: str
    """``"cpu"``, ``"gpu"`` or ``"tpu"``."""
    walk: Walk
    shape: tuple[Any, Any, int, int]
    """Time, sequences, input and hidden size; time and sequences may be symbolic."""
    columns: int
    """Of x·W: gates·hidden."""
    dtype: Any
    """Of the weights."""
    borders: bool
    """Whether only the carries between chunks are kept for the backward pass."""
    gradient: bool
    """Whether a backward pass follows."""


class Tuning(NamedTuple):
    """What may be chosen freely, and is chosen for speed."""

    chunk: int
    """Steps in a chunk."""
    unroll: int = 1
    """Steps of the inner loop that are compiled as one."""
    stepwise: bool = False
    """Whether x·W is computed step by step; only where no gradient is asked for."""
    copies: bool = False
    """Whether a transposed matrix is written down before a product with it."""


class Kernel(NamedTuple):
    """One way to walk through a chunk; the signatures are those of ``jlstm.kernels.xla``.

    It finds all carries from x and the first carry, computing x·W itself, and the cotangents of all
    steps from those of all h. What it saves is what ``Local.forward`` saves. Products over
    time, residual policies and rules of differentiation stay with the engine. ``forward`` and
    ``backward`` need no derivative of their own: where JAX asks for one (for second derivatives),
    the engine takes that of the scan; and so it does for symbolic sizes and explicit mesh axes.
    """

    name: str
    refuses: Callable[[Problem], str | None]
    """The reason why it cannot do this, or None."""
    tune: Callable[[Problem], Tuning]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
