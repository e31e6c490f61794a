"""Kernels: the one thing that hardware changes, the walk through a chunk, and the choice of one."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
from jax import lax

from jlstm.kernels.kernel import Kernel as Kernel
from jlstm.kernels.kernel import Problem as Problem
from jlstm.kernels.kernel import Tuning as Tuning
from jlstm.kernels.xla import XLA as XLA
from jlstm.linear import vary_like

KERNELS = (XLA,)
"""All kernels, the fastest first."""

PLATFORMS = ("cpu", "gpu", "tpu")
"""Those for which a choice is made; any other is taken for a GPU."""


def check_implementation(implementation: Any) -> Kernel | None:
    """The kernel of this name, or one that was handed over; None for the fastest.

    Raises:
        TypeError: neither a name nor a kernel.
        ValueError: no kernel of this name.
    """
    if implementation is None or isinstance(implementation, Kernel):
        return implementation
    known = {kernel.name: kernel for kernel in KERNELS}
    if isinstance(implementation, str) and implementation in known:
        return known[implementation]
    error = ValueError if isinstance(implementation, str) else TypeError
    raise error(
        f"implementation: expected None, a Kernel or one of {[*known]}, got {implementation!r}"
    )


def choose(kernel: Kernel | None, problem: Problem) -> Kernel:
    """The kernel that was asked for, or else the first, unless it refuses: the next, the scan."""
    wanted = KERNELS if kernel is None else (kernel, XLA)
    return next(k for k in wanted if k.refuses(problem) is None)


def check_refusal(kernel: Kernel, problems: Iterable[Problem]) -> None:
    """Raise ValueError where the kernel that was asked for refuses on all platforms."""
    reasons = [kernel.refuses(problem) for problem in problems]
    if None not in reasons:
        raise ValueError(f"implementation: {kernel.name!r} cannot do this: {reasons[0]}")


def on_platform(
    function: Callable[..., Any], tuned: Callable[[str], tuple[Kernel, Tuning]], *arrays: Any
) -> Any:
    """``function(kernel, tuning, *arrays)``, with those of the platform that it is compiled for.

    Args:
        function: what to compute; the shapes of its results do not depend on the platform.
        tuned: from the name of a platform to what to take there.
        arrays: pytrees of arrays.
    """

    def branch(choice: tuple[Kernel, Tuning]) -> Callable[..., Any]:
        kernel, tuning = choice

        def bind(kernel: Kernel) -> list[Callable[..., Any]]:
            return [partial(kernel.forward, tuning), partial(kernel.backward, tuning)]

        walks = bind(kernel)
        if kernel is not XLA:
            walks = [_with_derivative_of(*both) for both in zip(bind(XLA), walks, strict=True)]
        forward, backward = walks
        return partial(function, kernel._replace(forward=forward, backward=backward), tuning)

    chosen = {platform: tuned(platform) for platform in PLATFORMS}
    default = chosen.pop("gpu")
    others = {p: branch(choice) for p, choice in chosen.items() if choice != default}
    if not others:
        return branch(default)(*arrays)
    return lax.platform_dependent(*arrays, default=branch(default), **others)


def _with_derivative_of(scan: Callable[..., Any], walk: Callable[..., Any]) -> Callable[..., Any]:
    """``walk``, with the derivative of ``scan``, which computes the same."""

    def run(static: Any, *arrays: Any, **options: Any) -> Any:
        known = jax.custom_jvp(lambda *a: walk(static, *a, **options))
        known.defjvp(partial(jax.jvp, lambda *a: scan(static, *a, **options)))
        return vary_like(arrays, known(*arrays))

    return run
