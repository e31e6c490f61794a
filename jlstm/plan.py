"""How to go through a sequence: in chunks of steps, by which kernel, and what is kept.

Time is cut into *chunks* of a few steps, so that what is computed for many steps at once still fits
into the cache; and what the backward pass needs may be kept for every step, or only between chunks.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jax.sharding import AxisType
from jaxtyping import Array

from jlstm.gates import State
from jlstm.kernels import PLATFORMS, XLA, Kernel, Problem, Tuning, check_refusal, choose
from jlstm.linear import Weights
from jlstm.local import Values
from jlstm.walk import Constants, Steps, Walk, values

Residuals = Literal["gates", "carry", "chunks"]


class Policy(NamedTuple):
    """What the forward pass keeps for the backward pass; what it does not is computed again."""

    carries: bool
    """The carry after every step; else only the one at the start of each chunk."""
    gates: bool
    """What the derivative of a step saved."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is kept, by the names that ``jvp`` gives it."""
        return ("carries",) * self.carries + ("gates",) * self.gates

    @property
    def step_again(self) -> bool:
        """Whether each step is computed again from its carry."""
        return self.carries and not self.gates

    @property
    def wanted(self) -> Literal["gates", "carries", "hs"]:
        """What a kernel has to give for all steps."""
        return "gates" if self.gates else "carries" if self.carries else "hs"

    def keep(self, first: State, after: State, saved: Any) -> dict[str, Any]:
        """What is kept of a chunk; h of all its steps in any case, as that is returned."""
        kept = {"gates": saved} if self.gates else {}
        if self.carries:
            return kept | {"carries": after}
        return kept | {"hs": after.h, "first": jax.tree.map(lambda a: a[None], first)}

    def recall(
        self, walk: Walk, again: Any, constants: Constants, first: State, steps: Steps, kept: Any
    ) -> Values:
        """All that is known of the steps of a chunk; ``again`` is the walk forward."""
        after, saved = kept.get("carries"), kept.get("gates")
        if not self.carries:
            _, after, saved = again(walk, constants, first, steps, keep="gates")
        return values(walk, constants, steps, first, after, saved)


POLICIES: Mapping[str, Policy] = {
    "gates": Policy(carries=True, gates=True),
    "carry": Policy(carries=True, gates=False),
    "chunks": Policy(carries=False, gates=False),
}


class Plan(NamedTuple):
    """How to compute: all that is known before the program is compiled."""

    walk: Walk
    policy: Policy
    kernel: Kernel | None
    """None for the fastest."""
    chunk: int | None
    """None for the measured best, and so is unroll."""
    unroll: int | None
    hidden: int
    """Units of c."""

    def problem(self, weights: Weights, xs: Array, gradient: bool, platform: str) -> Problem:
        """What a kernel would have to do."""
        time, *batch, inputs = xs.shape
        shape, columns = (time, math.prod(batch), inputs, self.hidden), weights.w_ih.shape[1]
        borders = not self.policy.carries
        return Problem(platform, self.walk, shape, columns, xs.dtype, borders, gradient)

    def check(self, weights: Weights, xs: Array, gradient: bool) -> None:
        """Raise ValueError where the kernel that was asked for cannot do this on any platform."""
        if self.kernel is not None:
            asked = (self.problem(weights, xs, gradient, platform) for platform in PLATFORMS)
            check_refusal(self.kernel, asked)

    def tuned(
        self, weights: Weights, xs: Array, gradient: bool, platform: str
    ) -> tuple[Kernel, Tuning]:
        """The kernel to take on a platform, and how; what the caller has chosen goes before."""
        asked, time = self.problem(weights, xs, gradient, platform), xs.shape[0]
        symbolic = any(map(is_symbolic_dim, asked.shape[:2]))
        scan = symbolic or AxisType.Explicit in jax.typeof(xs).sharding.mesh.axis_types
        kernel = XLA if scan else choose(self.kernel, asked)
        tuning = kernel.tune(asked)
        if self.chunk is not None and not is_symbolic_dim(time):
            tuning = tuning._replace(chunk=max(1, min(self.chunk, time)))
        elif asked.borders:  # what is kept has to have the same shape on all platforms
            tuning = tuning._replace(chunk=XLA.tune(asked._replace(platform="cpu")).chunk)
        return kernel, tuning if self.unroll is None else tuning._replace(unroll=self.unroll)


# Time in chunks


def in_chunks(
    walk: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    steps: Any,
    chunk: int,
    *,
    reverse: bool,
    chunks: Any = (),
) -> tuple[Any, Any]:
    """``walk(carry, (steps, chunks)) -> (carry, outs)``, chunk after chunk.

    Args:
        walk: through one chunk.
        carry: what goes from chunk to chunk.
        steps: arrays with the time leading, and so are outs. What is left over where the chunk does
            not divide the time is a chunk of its own, the last in time.
        chunk: how many steps at a time.
        reverse: from the last chunk to the first.
        chunks: arrays with one entry for each chunk.
    """
    time = jax.tree.leaves(steps)[0].shape[0]
    count, rest = divmod(time, chunk)

    def whole(a: Array) -> Array:
        return a[: count * chunk].reshape(count, chunk, *a.shape[1:])

    def run_whole(carry: Any) -> tuple[Any, Any]:
        data = jax.tree.map(whole, steps), jax.tree.map(lambda a: a[:count], chunks)
        if count == 1:  # needs no loop
            return walk(carry, jax.tree.map(lambda a: a[0], data))
        carry, outs = lax.scan(walk, carry, data, reverse=reverse)
        return carry, jax.tree.map(lambda a: a.reshape(count * a.shape[1], *a.shape[2:]), outs)

    if rest == 0:
        return run_whole(carry)
    over = jax.tree.map(lambda a: a[count * chunk :], steps), jax.tree.map(lambda a: a[-1], chunks)
    if reverse:
        carry, outs_over = walk(carry, over)
        carry, outs = run_whole(carry)
    else:
        carry, outs = run_whole(carry)
        carry, outs_over = walk(carry, over)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outs, outs_over)


def starts(first: State, after: State, chunk: int, *, reverse: bool) -> State:
    """The carry that each chunk started from, given those after all steps."""

    def cut(first: Array, after: Array) -> Array:
        if is_symbolic_dim(chunk):
            return first[None]
        if reverse:
            return jnp.concatenate([after[chunk::chunk], first[None]])
        return jnp.concatenate([first[None], after[chunk - 1 : -1 : chunk]])

    return jax.tree.map(cut, first, after)
