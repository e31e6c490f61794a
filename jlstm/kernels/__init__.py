"""Kernels: the one thing that hardware changes, the walk through a chunk, and the choice of one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax

from jlstm.kernels.native import NATIVE
from jlstm.kernels.xla import XLA as XLA
from jlstm.linear import vary_like
from jlstm.plan import Kernel as Kernel
from jlstm.plan import Plan, Tuning

KERNELS = (NATIVE, XLA)
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


def check_refusal(plan: Plan) -> None:
    """Raise ValueError where the kernel that was asked for refuses on all platforms."""
    if plan.kernel is not None:
        reasons = [plan.kernel.refuses(plan._replace(platform=p)) for p in PLATFORMS]
        if None not in reasons:
            raise ValueError(f"implementation: {plan.kernel.name!r} cannot do this: {reasons[0]}")


def choose(plan: Plan) -> tuple[Kernel, Tuning]:
    """The kernel to take, and how.

    It is the one that was asked for, or else the first; where it refuses, the next, and at last the
    scan. What the caller has chosen goes before what the kernel would.
    """
    wanted = KERNELS if plan.kernel is None else (plan.kernel, XLA)
    kernel = next(k for k in wanted if k.refuses(plan) is None)
    best = kernel.tune(plan)
    if plan.chunk is not None:
        best = best._replace(chunk=plan.chunk, ahead=None)
    return kernel, best._replace(unroll=plan.unroll or best.unroll)


def on_platform(function: Callable[..., Any], plan: Plan, *arrays: Any) -> Any:
    """``function(kernel, tuning, *arrays)``, with those of the platform that it is compiled for.

    Args:
        function: what to compute; the shapes of its results do not depend on the platform.
        plan: for any platform.
        arrays: pytrees of arrays.
    """

    def branch(kernel: Kernel, tuning: Tuning) -> Callable[..., Any]:
        def bind(kernel: Kernel) -> list[Callable[..., Any]]:
            return [partial(kernel.forward, tuning), partial(kernel.backward, tuning)]

        walks = bind(kernel)
        if kernel is not XLA:
            walks = [_with_derivative_of(*both) for both in zip(bind(XLA), walks, strict=True)]
        forward, backward = walks
        return partial(function, kernel._replace(forward=forward, backward=backward), tuning)

    chosen = {platform: choose(plan._replace(platform=platform)) for platform in PLATFORMS}
    default = chosen.pop("gpu")
    others = {p: branch(*choice) for p, choice in chosen.items() if choice != default}
    if not others:
        return branch(*default)(*arrays)
    return lax.platform_dependent(*arrays, default=branch(*default), **others)


def _with_derivative_of(scan: Callable[..., Any], walk: Callable[..., Any]) -> Callable[..., Any]:
    """``walk``, with the derivative of ``scan``, which computes the same."""

    def run(static: Any, *arrays: Any, **options: Any) -> Any:
        known = jax.custom_jvp(lambda *a: walk(static, *a, **options))
        known.defjvp(partial(jax.jvp, lambda *a: scan(static, *a, **options)))
        return vary_like(arrays, known(*arrays))

    return run
