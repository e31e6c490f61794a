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
    names = [kernel.name for kernel in KERNELS]
    if not isinstance(implementation, str):
        raise TypeError(
            f"implementation: expected None, a Kernel or one of {names}, "
            f"got {type(implementation).__name__}"
        )
    if implementation not in names:
        raise ValueError(
            f"implementation: expected None, a Kernel or one of {names}, got {implementation!r}"
        )
    return KERNELS[names.index(implementation)]


def choose(kernel: Kernel | None, problem: Problem) -> Kernel:
    """The kernel that was asked for, or else the first, unless it refuses: the next, the scan."""
    wanted = KERNELS if kernel is None else (kernel, XLA)
    return next(k for k in wanted if k.refuses(problem) is None)


def check_refusal(kernel: Kernel | None, problems: Iterable[Problem]) -> None:
    """Raise ValueError where the kernel that was asked for refuses on all platforms."""
    reasons = [] if kernel is None else [kernel.refuses(problem) for problem in problems]
    if kernel is not None and None not in reasons:
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
    chosen = {platform: tuned(platform) for platform in PLATFORMS}
    default = chosen.pop("gpu")
    others = {platform: choice for platform, choice in chosen.items() if choice != default}

    def branch(choice: tuple[Kernel, Tuning]) -> Callable[..., Any]:
        kernel, tuning = choice
        kernel = _differentiable(kernel)
        bound = kernel._replace(
            forward=partial(kernel.forward, tuning), backward=partial(kernel.backward, tuning)
        )
        return partial(function, bound, tuning)

    if not others:
        return branch(default)(*arrays)
    return lax.platform_dependent(
        *arrays, default=branch(default), **{p: branch(choice) for p, choice in others.items()}
    )


def _differentiable(kernel: Kernel) -> Kernel:
    """The same kernel, for JAX's own derivatives, which are those of the scan."""
    if kernel is XLA:
        return kernel
    return kernel._replace(
        forward=_like(kernel.forward, XLA.forward), backward=_like(kernel.backward, XLA.backward)
    )


def _like(function: Callable[..., Any], scan: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, with the derivative of ``scan``, which computes the same."""

    def run(tuning: Tuning, walk: Any, *arrays: Any, **options: Any) -> Any:
        known = jax.custom_jvp(lambda *a: function(tuning, walk, *a, **options))

        def tangent(primals: Any, tangents: Any) -> Any:
            return jax.jvp(lambda *a: scan(tuning, walk, *a, **options), primals, tangents)

        known.defjvp(tangent)
        return known(*arrays)

    return run
