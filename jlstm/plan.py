"""How to go through a sequence: what is kept for the backward pass, which kernel, what chunks."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax

from jlstm.gates import State
from jlstm.walk import Constants, Steps, Walk

Residuals = Literal["gates", "carry", "chunks"]

Keep = Literal["gates", "carries", "hs"]
"""What a walk forward gives for all steps: h; all of the carry; and what the derivative needs."""


class Policy(NamedTuple):
    """What the forward pass keeps for the backward pass; what it does not is computed again."""

    kept: tuple[Literal["carries", "gates"], ...]
    """Of every step: the carry, and what the derivative of a step saved. Without the carries, the
    one at the start of each chunk is kept."""

    @property
    def step_again(self) -> bool:
        """Whether each step is computed again from its carry."""
        return self.kept == ("carries",)

    @property
    def wanted(self) -> Keep:
        """What a kernel has to give for all steps."""
        return self.kept[-1] if self.kept else "hs"

    def keep(self, first: State, after: State, saved: Any) -> dict[str, Any]:
        """What is kept of a chunk; h of all its steps in any case, as that is returned."""
        if not self.kept:
            return {"hs": after.h, "first": jax.tree.map(lambda a: a[None], first)}
        return {name: {"carries": after, "gates": saved}[name] for name in self.kept}

    def recall(
        self, walk: Walk, again: Any, constants: Constants, first: State, steps: Steps, kept: Any
    ) -> tuple[State, Any]:
        """The carries after each step of a chunk, and what was saved, or None.

        ``again`` is the walk forward.
        """
        if not self.kept:
            _, after, saved = again(walk, constants, first, steps, keep="gates")
            return after, saved
        return kept["carries"], kept.get("gates")


POLICIES: Mapping[str, Policy] = {
    "gates": Policy(("carries", "gates")),
    "carry": Policy(("carries",)),
    "chunks": Policy(()),
}


class Tuning(NamedTuple):
    """What may be chosen freely, and is chosen for speed."""

    chunk: int
    """Steps in a chunk."""
    unroll: int = 1
    """Steps of the inner loop that are compiled as one."""
    stepwise: bool = False
    """Whether x·W is computed step by step."""
    copies: bool = False
    """Whether a transposed matrix is written down before a product with it."""
    ahead: int | None = None
    """Steps in a chunk of the forward pass, if it is another."""


class Kernel(NamedTuple):
    """One way to walk through a chunk; the signatures are those of ``jlstm.kernels.xla``.

    Forward it finds all carries from x and the first carry, computing x·W itself; backward, from
    the cotangents of all h, those of the first carry, of the weights and of x. What it saves is
    what ``Local.forward`` saves. Residual policies and rules of differentiation stay with the
    engine. ``forward`` and ``backward`` need no derivative of their own: where JAX asks for one
    (for second derivatives), the engine takes that of the scan; and it takes the scan for symbolic
    sizes and for arrays that are cut over devices.
    """

    name: str
    refuses: "Callable[[Plan], str | None]"
    """The reason why it cannot do this, or None."""
    tune: "Callable[[Plan], Tuning]"
    forward: Callable[..., Any]
    backward: Callable[..., Any]


class Plan(NamedTuple):
    """What to compute, and how: all that is known before the program is compiled."""

    walk: Walk
    policy: Policy
    shape: tuple[Any, Any, int, int]
    """Time, sequences, input and hidden size; time and sequences may be symbolic."""
    columns: int
    """Of x·W: gates·hidden."""
    dtype: Any
    """Of the weights."""
    kernel: Kernel | None = None
    """None for the fastest."""
    chunk: int | None = None
    """None for the measured best, and so is unroll."""
    unroll: int | None = None
    gradient: bool = False
    """Whether a backward pass follows."""
    platform: str = "cpu"
    """``"cpu"``, ``"gpu"`` or ``"tpu"``: for which it is compiled."""
