"""One random LSTM problem, and every way of running and differentiating it.

A ``Problem`` is what ``jlstm.lstm`` and the NumPy oracle both take, with cotangents for all that
they return. ``run_oracle`` and ``run_jlstm`` answer in the same form, a dictionary of NumPy
arrays: the results ``hs, h, c`` and, d<name> being the cotangent of <name>, the gradients ``dw_ih,
dw_hh, db, dh0, dc0, dxs, dreset_h, dreset_c`` (those whose argument the problem has).
``assert_agree`` compares two such answers.

The library is imported only by the functions that run it, so that the oracle's own tests stand
without it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import oracle

Array = npt.NDArray[Any]


class Problem(NamedTuple):
    """The arguments of an LSTM over a sequence, and the cotangents of its results."""

    w_ih: Array  # [input, 4, hidden]
    w_hh: Array  # [hidden, 4, hidden]
    b: Array | None  # [4, hidden]
    h0: Array  # [*batch, hidden]
    c0: Array  # [*batch, hidden]
    xs: Array  # [time, *batch, input]
    dhs: Array  # [time, *batch, hidden]
    dh: Array  # [*batch, hidden]
    dc: Array  # [*batch, hidden]
    lengths: Array | None = None  # [*batch]
    resets: Array | None = None  # [time, *batch]
    reset_to: tuple[Array, Array] | None = None  # (h, c), [*batch, hidden] each
    reverse: bool = False


def random_problem(
    seed: int = 0,
    *,
    time: int = 7,
    batch: tuple[int, ...] = (3,),
    input_size: int = 5,
    hidden_size: int = 2,
    bias: bool = True,
    lengths: bool = False,
    resets: bool = False,
    reset_to: bool = False,
    reverse: bool = False,
) -> Problem:
    """Draw a problem with normal entries in float64; the flags say which options it uses.

    The sizes all differ by default, so that a transposed axis cannot go unnoticed. Weights of scale
    0.6 keep the gates off both their linear and their saturated range. Random ``lengths`` span 0 to
    time, both ends included where the batch has two members to carry them; about a third of the
    ``resets`` are True, some of them at padded steps.
    """
    draw = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return scale * draw.standard_normal(shape)

    drawn_lengths = draw.integers(0, time, endpoint=True, size=batch)
    if drawn_lengths.size >= 2:
        drawn_lengths.reshape(-1)[[0, -1]] = time, 0
    state = (*batch, hidden_size)
    return Problem(
        w_ih=normal(input_size, 4, hidden_size, scale=0.6),
        w_hh=normal(hidden_size, 4, hidden_size, scale=0.6),
        b=normal(4, hidden_size) if bias else None,
        h0=normal(*state),
        c0=normal(*state),
        xs=normal(time, *batch, input_size),
        dhs=normal(time, *state),
        dh=normal(*state),
        dc=normal(*state),
        lengths=drawn_lengths if lengths else None,
        resets=draw.random((time, *batch)) < 0.35 if resets else None,
        reset_to=(normal(*state), normal(*state)) if reset_to else None,
        reverse=reverse,
    )


def run_oracle(problem: Problem, *, misprint: str | None = None) -> dict[str, Array]:
    """The results and the gradients of a problem, by the NumPy oracle."""
    p = problem
    masks: dict[str, Any] = {name: getattr(p, name) for name in Problem._fields[-4:]}
    arguments = (p.w_ih, p.w_hh, p.b, p.h0, p.c0, p.xs)
    out = oracle.forward(*arguments, **masks)
    gradients = oracle.backward(*arguments, p.dhs, p.dh, p.dc, **masks, misprint=misprint)
    named = {f"d{name}": d for name, d in gradients._asdict().items() if d is not None}
    return {"hs": out.hs, "h": out.h, "c": out.c} | named


def arguments(problem: Problem, dtype: npt.DTypeLike = np.float64) -> tuple[Any, Any, Any, Any]:
    """(params, carry, xs, reset_to) of a problem, as ``jlstm.lstm`` takes them."""
    import jax

    import jlstm

    p = problem
    params, carry = jlstm.LSTMParams(p.w_ih, p.w_hh, p.b), jlstm.Carry(p.h0, p.c0)
    reset_to = None if p.reset_to is None else jlstm.Carry(*p.reset_to)
    tree = params, carry, p.xs, reset_to
    return jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, dtype), tree)


def run_jlstm(
    problem: Problem, dtype: npt.DTypeLike = np.float64, layer: Any = None, **options: Any
) -> dict:
    """The results and the gradients of a problem, by ``jax.vjp`` of ``jlstm.lstm`` under jit.

    All floating-point arrays go in as ``dtype``. ``layer`` may stand in for ``lstm``; ``options``
    go to it as they are (``derivative``, ``residuals``, ``chunk``…).
    """
    import jax

    import jlstm

    layer = jlstm.lstm if layer is None else layer

    p, primals = problem, arguments(problem, dtype)
    given = jlstm.Carry(p.dh, p.dc), p.dhs
    cotangents = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, dtype), given)
    masks = {"lengths": p.lengths, "resets": p.resets, "reverse": p.reverse}

    def lstm(params: Any, carry: Any, xs: Any, reset_to: Any) -> Any:
        return layer(params, carry, xs, reset_to=reset_to, **masks, **options)

    @jax.jit
    def run(primals: Any, cotangents: Any) -> Any:
        out, pull_back = jax.vjp(lstm, *primals)
        return out, pull_back(cotangents)

    (carry, hs), (dparams, dcarry, dxs, dreset) = run(primals, cotangents)
    named = {"hs": hs, "h": carry.h, "c": carry.c}
    named |= {"dw_ih": dparams.w_ih, "dw_hh": dparams.w_hh, "db": dparams.b}
    named |= {"dh0": dcarry.h, "dc0": dcarry.c, "dxs": dxs}
    if dreset is not None:
        named |= {"dreset_h": dreset.h, "dreset_c": dreset.c}
    return {name: np.asarray(leaf) for name, leaf in named.items() if leaf is not None}


def relative_error(actual: Array, expected: Array) -> float:
    """max |actual − expected| / max |expected|; the absolute error where all of expected is 0."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    scale = np.max(np.abs(expected), initial=0.0) or 1.0
    return float(np.max(np.abs(actual - expected), initial=0.0) / scale)


def assert_agree(actual: dict[str, Array], expected: dict[str, Array], tolerance: float) -> None:
    """Assert that two answers name the same arrays, each within this ``relative_error``."""
    assert actual.keys() == expected.keys()
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    # Written so that a nan counts as a disagreement.
    assert all(error <= tolerance for error in errors.values()), errors


def as_numpy(tree: Any) -> Any:
    """The same pytree, of NumPy arrays."""
    import jax

    return jax.tree.map(np.asarray, tree)


def assert_trees_agree(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    """Assert that two pytrees have as many arrays, each within this ``relative_error``."""
    import jax

    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    errors = [relative_error(np.asarray(a), np.asarray(e)) for a, e in pairs]
    assert all(error <= tolerance for error in errors), errors


def equations_of(jaxpr: Any, name: str, platform: str = "cpu") -> Iterator[Any]:
    """The equations of a jaxpr and all within whose primitive starts with a name.

    Where a jaxpr has a branch for each platform, those of the branch that this one takes.
    """
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name.startswith(name):
            yield eqn
        for sub in programs_in(eqn, platform):
            yield from equations_of(sub, name, platform)


def programs_in(eqn: Any, platform: str) -> Iterator[Any]:
    """The jaxprs within an equation; of a choice between platforms, the one for this platform."""
    from jax.extend.core import jaxprs_in_params

    choice = eqn.params.get("branches_platforms")
    if choice is None:
        yield from jaxprs_in_params(eqn.params)
    else:
        named = [n for n, platforms in enumerate(choice) if platforms and platform in platforms]
        yield eqn.params["branches"][named[0] if named else choice.index(None)]
