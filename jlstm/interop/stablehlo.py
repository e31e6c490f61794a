"""A stack as a program in StableHLO: a file that needs JAX, and nothing of jlstm, to run.

``to_stablehlo`` gives what ``jax.export`` makes of a whole sequence or of a single step, for CPU,
CUDA and TPU in one, by ``lax.scan`` alone. Where it runs, it is three lines::

    from jax import export
    program = export.deserialize(bytearray(open("lstm.stablehlo", "rb").read()))
    out = program.call(xs=xs)                        # {"hs": …, "state": …}

Everything goes in by name, and comes out as a dictionary; by platforms other than JAX the inputs
are taken in alphabetical order. With ``b`` streams, ``t`` steps:

============  ======================================================================================
in            what
============  ======================================================================================
``xs``        ``[t, b, input]``, of a sequence
``x``         ``[b, input]``, of a step
``state``     ``[b, size]``: all that is remembered, one row for each sequence, as in
              ``jlstm.streaming``; what ``state`` in the results was, or zeros. Always of a step
``resets``    bool ``[t, b]``, or ``[b]``: where a sequence starts anew, from zeros or the learned
              carry, whatever the state is
``lengths``   int32 ``[b]``, of a sequence: the steps that count
``mask``      bool ``[b]``, of a step: False for who makes none
``weights``   a dictionary of arrays by name, where they are not in the program
============  ======================================================================================

The results are ``hs`` ``[t, b, output]`` or ``h`` ``[b, output]``, and ``state``.

The file ends in a seal, a digest of what is before, which JAX does not look at: ``from_stablehlo``
refuses what is damaged or cut short before any of it is read.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax import export
from jaxtyping import Array

from jlstm.checks import check_choice, check_flag, check_size
from jlstm.extras import require
from jlstm.files import with_an_end
from jlstm.layers import LayerParams, Stack, stack
from jlstm.streaming import check_streamable, evaluated, init_state, pack, stack_step, unpack

Function = Literal["sequence", "step"]

PLATFORMS = ("cpu", "cuda", "tpu")
MAGIC = b"jlstm.stablehlo.1"
"""What the seal begins with; a SHA-256 follows."""
SEAL = len(MAGIC) + 32
"""Bytes of the seal."""


def to_stablehlo(
    config: Stack,
    params: Sequence[LayerParams],
    function: Function = "sequence",
    *,
    time: int | None = None,
    batch: int | None = None,
    baked: bool = True,
    state: bool = False,
    lengths: bool = False,
    resets: bool = False,
    platforms: Sequence[str] = PLATFORMS,
    vjp_order: int = 0,
) -> bytes:
    """A stack as a file's content: ``Path("lstm.stablehlo").write_bytes(to_stablehlo(…))``.

    Args:
        config: the stack, which is taken ``without_noise``.
        params: its weights.
        function: ``"sequence"``, or ``"step"`` for ``jlstm.streaming.stack_step``.
        time: the steps of a sequence; None for any number.
        batch: how many sequences at once; None for any number.
        baked: whether the weights are in the program. If not, it takes them as ``weights``, see
            ``name_weights``.
        state: whether a sequence may start from a state; without it, it starts from zeros or the
            learned carry. (A step takes the state in any case.)
        lengths: whether it takes ``lengths``; of a step, ``mask``.
        resets: whether it takes ``resets``.
        platforms: for which it is: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"``.
        vjp_order: how many times it can be differentiated in reverse mode where it is read.

    Raises:
        TypeError: an argument of another type; weights that are no arrays.
        ValueError: a size below 1, an unknown function or platform; weights that do not fit; a step
            of a stack of two directions, or a stack that is random in evaluation, too.
        MissingExtraError: flatbuffers, in which JAX writes programs, is not installed.
    """
    require("flatbuffers", "interop")
    check_choice("function", function, get_args(Function))
    for name, flag in (
        ("baked", baked),
        ("state", state),
        ("lengths", lengths),
        ("resets", resets),
    ):
        check_flag(name, flag)
    check_size("vjp_order", vjp_order, least=0, most=9)
    if isinstance(platforms, str) or not platforms:
        raise ValueError(f"platforms: expected names of platforms, got {platforms!r}")
    for name in platforms:
        check_choice("platforms", name, ("cpu", "cuda", "rocm", "tpu"))
    step = function == "step"
    if step and time is not None:
        raise ValueError(f"time: expected None for a step, got {time}")
    run = _step(config, params) if step else _sequence(config, params)
    steps, streams = _sizes(time, batch)

    def array(shape: Sequence[Any], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(tuple(shape), dtype)  # type: ignore[no-untyped-call]

    start = jax.eval_shape(lambda: init_state(config, params, (streams,)))
    lead = (streams,) if step else (steps, streams)
    first = params[0].forward
    given = {"x" if step else "xs": array((*lead, first.w_ih.shape[0]), first.w_hh.dtype)}
    if state or step:
        given["state"] = start
    if lengths:
        given["mask" if step else "lengths"] = array((streams,), np.bool_ if step else np.int32)
    if resets:
        given["resets"] = array(lead, np.bool_)
    if not baked:
        given["weights"] = {n: array(a.shape, a.dtype) for n, a in name_weights(params).items()}
    exported = export.export(jax.jit(run), platforms=tuple(platforms))(**given)
    return sealed(exported, vjp_order)


def sealed(exported: export.Exported, vjp_order: int = 0) -> bytes:
    """A program as a file's content, with the seal at its end."""
    data = bytes(exported.serialize(vjp_order=vjp_order))
    return data + MAGIC + hashlib.sha256(data).digest()


def from_stablehlo(source: str | os.PathLike[str] | bytes) -> export.Exported:
    """The program in a file, or in its content: ``from_stablehlo(path).call(xs=xs)``.

    What it takes and gives is in ``in_tree``, ``in_avals``, ``out_tree`` and ``out_avals``. A stack
    and its weights are not to be had back from it.

    Args:
        source: a path, or bytes from ``to_stablehlo``.

    Raises:
        TypeError: neither a path nor bytes.
        ValueError: no such program: cut short, damaged, not written by ``to_stablehlo``, or by a
            version of JAX that this one cannot read.
        OSError: the file cannot be read.
        MissingExtraError: flatbuffers is not installed.
    """
    name = "source"
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        with open(with_an_end(source), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - SEAL))
            content = file.read()
            if content.startswith(MAGIC):  # what has no seal may be of any size, and is not read
                file.seek(0)
                content = file.read()
    elif isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
    else:
        raise TypeError(f"source: expected a path or bytes, got {type(source).__name__}")
    data, seal = content[:-SEAL], content[-SEAL:]
    if not seal.startswith(MAGIC):
        raise ValueError(
            f"{name}: expected a whole file of to_stablehlo, which ends in its seal, got something "
            "else, or what is left of one"
        )
    if seal != MAGIC + hashlib.sha256(data).digest():
        raise ValueError(
            f"{name}: expected a file as to_stablehlo wrote it, got {len(content)} bytes of which "
            "some have changed since"
        )
    require("flatbuffers", "interop")
    try:
        return export.deserialize(bytearray(data))
    except Exception as error:
        raise ValueError(
            f"{name}: expected a program that JAX {jax.__version__} can read, got one that it "
            f"cannot: {type(error).__name__}: {error}"
        ) from error


def name_weights(params: Sequence[LayerParams]) -> dict[str, Array]:
    """The weights of a stack by name, such as ``"0.forward.w_ih"``: what ``weights`` is.

    Raises:
        TypeError: no arrays.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    named = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if not hasattr(leaf, "shape"):
            raise TypeError(f"params: expected arrays, got {type(leaf).__name__} as {name}")
        named[name] = leaf
    return named


# What is exported


def _sequence(config: Stack, params: Any) -> Callable[..., dict[str, Array]]:
    quiet = evaluated(config)

    def sequence(
        xs: Array,
        state: Array | None = None,
        lengths: Array | None = None,
        resets: Array | None = None,
        weights: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        known = _filled(params, weights)
        carry = None if state is None else unpack(quiet, known, state)
        masks: dict[str, Any] = {"lengths": lengths, "resets": resets}
        carry, hs = stack(quiet, known, carry, xs, **masks, implementation="xla")
        return {"hs": hs, "state": pack(carry)}

    return sequence


def _step(config: Stack, params: Any) -> Callable[..., dict[str, Array]]:
    check_streamable(config)

    def step(
        x: Array,
        state: Array,
        mask: Array | None = None,
        resets: Array | None = None,
        weights: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        known = _filled(params, weights)
        masks: dict[str, Any] = {"mask": mask, "resets": resets}
        state, h = stack_step(config, known, state, x, **masks, implementation="xla")
        return {"h": h, "state": state}

    return step


def _filled(params: Any, weights: Mapping[str, Array] | None) -> Any:
    """The same weights with these in their place."""
    if weights is None:
        return params
    return jax.tree.unflatten(
        jax.tree.structure(params), [weights[n] for n in name_weights(params)]
    )


def _sizes(time: int | None, batch: int | None) -> tuple[Any, Any]:
    """Numbers, or symbols of one scope."""
    t, b = export.symbolic_shape("t, b")
    for name, size in (("time", time), ("batch", batch)):
        if size is not None:
            check_size(name, size)
    return (t if time is None else time), (b if batch is None else batch)
