"""Stacks of LSTM layers: depth, two directions, connections between layers, dropout, pooling.

A stack is a layer of layers: like ``lstm`` it takes (params, carry, xs) and gives (carry, hs), its
parameters and its carry being tuples with one entry for each layer. With D for dropout, layer l
gives yˡ from

    chain:     y¹ = lstm(D(xs)),  yˡ = lstm(D(yˡ⁻¹))
    residual:  y¹ = lstm(D(xs)),  yˡ = lstm(D(yˡ⁻¹)) + yˡ⁻¹
    skip:      y¹ = lstm(D(xs)),  yˡ = lstm([D(yˡ⁻¹), D(xs)])

and the stack gives D(yᴸ) of the last layer, or for skip of all layers side by side. (Residual: Wu
et al. 2016; skip: Graves 2013.) In a layer of two directions, what the LSTM gives is both side by
side, forward first (Schuster & Paliwal 1997).
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from jlstm.checks import check_choice, check_flag, check_function, check_number, check_size
from jlstm.dropout import draw_steps, dropout_mask, fold_keys, sequence_keys, step_numbers
from jlstm.equations import PLAIN
from jlstm.gates import Gates, State, check_gates, extras_of
from jlstm.initializers import check_batch_shape
from jlstm.linear import along, batch_sharding
from jlstm.sequence import lstm, valid_steps
from jlstm.types import at_least_32_bits, check_array, check_key, check_step, exportable

Connections = Literal["chain", "residual", "skip"]


@exportable
class LayerParams(NamedTuple):
    """The weights of one layer of a stack."""

    forward: Any
    """``LSTMParams``, or the ``VariantParams`` of its gates; also of a stack that is reverse."""
    backward: Any = None
    """The same for the direction from the end to the start; None where there is none."""
    start: Any = None
    """The learned carry before the first step, ``[hidden]``, one for each direction; or None."""


class Cell(NamedTuple):
    """One layer of a ``Stack``."""

    size: int
    """Units of c."""
    output: int | None
    """Units of h, where there is a projection."""
    gates: Any
    """The gate arithmetic, or a pair of them, one for each direction."""

    @property
    def ways(self) -> tuple[Gates, Gates]:
        """The gate arithmetic of the direction forward, and of the one backward."""
        first, second = self.gates if _is_pair(self.gates) else (self.gates, self.gates)
        return first, second


def _is_pair(gates: Any) -> bool:
    return type(gates) in (tuple, list)  # exactly, as a gate arithmetic may be a NamedTuple


def _quiet(cell: Cell) -> Cell:
    ways = (g.without_noise() if hasattr(g, "without_noise") else g for g in cell.ways)
    return cell._replace(gates=tuple(ways))


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What a stack is made of: all but its weights.

    Args:
        sizes: the units of c of each layer, from the first; one int for a single layer.
        output_sizes: the units of h of each layer, where it has a projection (as a
            ``Variant`` has); one for all layers, or one for each; None for none.
        gates: the cell of all layers, or one for each; for a layer of two directions it may be a
            pair, forward and backward.
        bidirectional: whether each layer also walks from the end to the start.
        reverse: whether each layer walks from the end to the start alone.
        connections: what a layer hands to the next; see the module.
        learned_carry: whether the carry before the first step is a parameter, for each layer and
            direction. It is also what a reset puts in place.
        input_dropout: the part of xs that is dropped.
        dropout: the part of what is handed from layer to layer that is dropped; nothing where there
            is one layer.
        output_dropout: the part of the outputs that is dropped.
        variational: whether what is dropped stays the same for a whole sequence (Gal & Ghahramani
            2016), or is drawn anew at every step.
        deterministic: True for evaluation, see ``without_noise``.

    Raises:
        TypeError: an option of another type.
        ValueError: a size below 1 or a rate outside 0 … 1; as many sizes, output sizes or gates as
            there are not layers; a pair of gates for one direction; reverse with bidirectional; a
            projection of a cell that has none; residual connections between layers of different
            outputs.
    """

    sizes: int | Sequence[int]
    output_sizes: int | Sequence[int | None] | None = None
    gates: Gates | Sequence[Gates | Sequence[Gates]] = PLAIN
    bidirectional: bool = False
    reverse: bool = False
    connections: Connections = "chain"
    learned_carry: bool = False
    input_dropout: float = 0.0
    dropout: float = 0.0
    output_dropout: float = 0.0
    variational: bool = True
    deterministic: bool = False

    def __post_init__(self) -> None:
        # One entry for each layer, in tuples: what was given may be one for all, or a list.
        sizes = self.sizes if isinstance(self.sizes, Sequence) else (self.sizes,)
        if not sizes:
            raise ValueError("sizes: expected at least one layer, got none")
        for n in sizes:
            check_size("sizes", n)

        def each(name: str, single: bool) -> tuple[Any, ...]:
            value = getattr(self, name)
            value = (value,) * len(sizes) if single else tuple(value)
            if len(value) != len(sizes):
                raise ValueError(
                    f"{name}: expected one for each of {len(sizes)} layers, got {len(value)}"
                )
            return value

        outputs = each("output_sizes", not isinstance(self.output_sizes, Sequence))
        gates = each("gates", not isinstance(self.gates, Sequence))
        gates = tuple(tuple(g) if _is_pair(g) else g for g in gates)
        for name, value in (("sizes", tuple(sizes)), ("output_sizes", outputs), ("gates", gates)):
            object.__setattr__(self, name, value)
        for name in ("bidirectional", "reverse", "learned_carry", "variational", "deterministic"):
            check_flag(name, getattr(self, name))
        if self.reverse and self.bidirectional:
            raise ValueError("reverse: expected False where bidirectional=True, got True")
        for n, some in zip(outputs, gates, strict=True):
            if _is_pair(some) and not (self.bidirectional and len(some) == 2):
                wanted = "a pair, forward and backward," if self.bidirectional else "a single one"
                raise ValueError(f"gates: expected {wanted} for each layer, got {len(some)}")
            ways = [check_gates(g) for g in (some if _is_pair(some) else (some,))]
            if n is not None:
                check_size("output_sizes", n)
                for g in ways:
                    if "output_size" not in inspect.signature(g.init).parameters:
                        raise ValueError(
                            f"output_sizes: expected None for {g!r}, which has no projection; "
                            f"take gates=Variant(); got {n}"
                        )
        for name in ("input_dropout", "dropout", "output_dropout"):
            check_number(name, getattr(self, name), least=0, below=1)
            object.__setattr__(self, name, float(getattr(self, name)))  # NumPy's have a dtype
        check_choice("connections", self.connections, get_args(Connections))
        if self.connections == "residual" and len(set(self.outputs)) > 1:
            raise ValueError(
                f"connections: expected layers of one output size for 'residual', "
                f"got {list(self.outputs)}"
            )

    @property
    def cells(self) -> tuple[Cell, ...]:
        """What each layer is made of."""
        columns: Any = (self.sizes, self.output_sizes, self.gates)
        cells = (Cell(*cell) for cell in zip(*columns, strict=True))
        return tuple(map(_quiet, cells)) if self.deterministic else tuple(cells)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The features that each layer gives, both directions together."""
        ways = 2 if self.bidirectional else 1
        return tuple(ways * (c.size if c.output is None else c.output) for c in self.cells)

    @property
    def output_size(self) -> int:
        """The features that the stack gives."""
        return sum(self.outputs) if self.connections == "skip" else self.outputs[-1]

    @property
    def random(self) -> bool:
        """Whether it needs a key."""
        between = self.dropout if len(self.cells) > 1 else 0.0
        rates = (self.input_dropout, between, self.output_dropout)
        random = any(rates) or any(extras_of(g).random for c in self.cells for g in c.ways)
        return random and not self.deterministic

    def without_noise(self) -> "Stack":
        """The same stack for evaluation: nothing dropped, zoneout by its mean."""
        return replace(self, deterministic=True)


def init_stack(
    key: PRNGKeyArray,
    input_size: int,
    config: Stack,
    *,
    dtype: DTypeLike = jnp.float32,
    **options: Any,
) -> tuple[LayerParams, ...]:
    """Fresh weights for a stack, each layer and direction drawn on its own.

    Learned carries start as those of the cell do.

    Args:
        key: a key of ``jax.random``.
        input_size: features of xs, at least 1.
        config: the stack.
        dtype: of all weights.
        options: of the cells' ``init``, such as ``forget_bias`` and ``bias``.

    Raises:
        TypeError: an argument of another type, or a dtype that is not floating-point.
        ValueError: a size below 1, or a bias that is not finite.
    """
    check_key("key", key, single=True)
    check_size("input_size", input_size)
    _check_config(config)
    layers, width, directions = [], input_size, 2 if config.bidirectional else 1
    for n, cell in enumerate(config.cells):
        keys = jax.random.split(jax.random.fold_in(key, n), directions)
        own = options if cell.output is None else options | {"output_size": cell.output}
        weights = [
            g.init(k, width, cell.size, dtype=dtype, **own)
            for k, g in zip(keys, cell.ways, strict=False)
        ]
        start = None
        if config.learned_carry:
            start = tuple(g.start(w, ()) for g, w in zip(cell.ways, weights, strict=False))
        backward = weights[1] if config.bidirectional else None
        layers.append(LayerParams(weights[0], backward, start))
        width = config.outputs[n] + (input_size if config.connections == "skip" else 0)
    return tuple(layers)


def stack(
    config: Stack,
    params: Sequence[LayerParams],
    carry: Any,
    xs: Float[Array, "time *batch input"],
    *,
    lengths: Int[Array, "*batch"] | None = None,
    resets: Bool[Array, "time *batch"] | None = None,
    key: PRNGKeyArray | None = None,
    t: int | Int[Array, ""] = 0,
    layer: Callable[..., tuple[State, Array]] = lstm,
    **options: Any,
) -> tuple[Any, Float[Array, "time *batch output"]]:
    """Layer upon layer. ``partial(stack, config)`` goes wherever ``lstm`` goes.

    Args:
        config: the stack.
        params: its weights, from ``init_stack``.
        carry: what a call before returned, so that a sequence may come in pieces; None for the
            start. A tuple with the carry of each layer; with a pair of them, forward and
            backward, where it is bidirectional. (Pieces are for one direction: the backward one
            of a pair is where that walk begins, and nobody knows it before what follows.)
        xs: the inputs, ``[time, *batch, input]``.
        lengths: as for ``lstm``; the backward direction starts at the last step that counts.
        resets: as for ``lstm``: True where a sequence starts anew. The backward direction is reset
            on the other side of the same border.
        key: for dropout and random cells: one key, or one for each sequence, ``[*batch]``.
        t: the number of the first step, from which what is random at every step is drawn: for
            pieces of a sequence, how many steps came before.
        layer: what runs one layer.
        options: of ``lstm``, for all layers: ``derivative``, ``residuals``, ``chunk``… (gates,
            reverse and reset_to are the stack's own.)

    Returns:
        The carry after the last step, in the form described, and the outputs, 0 at padding.

    Raises:
        TypeError, ValueError: as for ``lstm``, with the number of the layer, from 0; and for params
            or a carry that are not those of so many layers.
    """
    _check_config(config)
    check_function("layer", layer)
    check_step("t", t)
    depth = len(config.cells)
    for name in {"gates", "reverse", "reset_to"} & set(options):
        raise TypeError(f"{name}: expected it in config, which says it for each layer")
    _check_layers("params", params, depth, LayerParams)
    for n, one in enumerate(params):
        _check_layer(n, one, config)
    if carry is not None:
        _check_carries(carry, params, config)
    xs = check_array("xs", xs, ("time", "...", "input"))
    time, *batch = xs.shape[:-1]
    if key is not None:
        check_key("key", key)
    keys = sequence_keys(key, batch) if config.random else None
    resets_back = None
    if resets is not None:
        resets = check_array("resets", resets, (time, *batch), jnp.bool_)
        if lengths is not None:  # at padding nothing starts
            resets = resets & valid_steps(lengths, time, batch)
        # What starts anew at t + 1 has nothing to tell the steps up to t.
        resets_back = jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])

    # What is random has a number in the stack, by which its keys differ from all others: layer n
    # has 3n and 3n + 1 for its two directions, and 3n + 2 for what is dropped above it.
    def drop(number: int, rate: float, a: Array) -> Array:
        if keys is None or not rate:
            return a
        return _drop(fold_keys(keys, number), a, rate, None if config.variational else t)

    def walk(n: int, back: bool, weights: Any, carry: Any, start: Any, xs: Array) -> Any:
        cell = config.cells[n].ways[back]
        own: dict[str, Any] = {"resets": resets_back if back else resets, "reverse": back}
        if extras_of(cell).random and keys is not None:
            own |= {"key": fold_keys(keys, 3 * n + back), "t": t}
        if start:
            start = _for_batch(start, batch, batch_sharding(xs, 1, -1))
            own["reset_to"], carry = start, start if carry is None else carry
        try:
            return layer(weights, carry, xs, gates=cell, lengths=lengths, **own, **options)
        except (TypeError, ValueError) as error:
            if type(error) in (TypeError, ValueError):  # ours; JAX's own are not made of a string
                raise type(error)(f"layer {n}: {error}") from error
            raise

    inputs = x = drop(3 * depth, config.input_dropout, xs)
    carries: list[Any] = []
    outs: list[Array] = []
    for n, one in enumerate(params):
        if n:
            x = drop(3 * n - 1, config.dropout, outs[-1])
            if config.connections == "skip":
                x = jnp.concatenate([x, inputs], axis=-1)
        if config.bidirectional:
            before = (None, None) if carry is None else carry[n]
            ways = zip((False, True), one[:2], before, one.start or (None, None), strict=True)
            (first, hs), (second, hs_back) = (walk(n, *way, x) for way in ways)
            hs = jnp.concatenate([hs, hs_back], axis=-1)
            carries.append((first, second))
        else:
            before = None if carry is None else carry[n]
            start = one.start and one.start[0]
            after, hs = walk(n, config.reverse, one.forward, before, start, x)
            carries.append(after)
        if config.connections == "residual" and n:
            hs = hs + outs[-1]
        outs.append(hs)
    out = jnp.concatenate(outs, axis=-1) if config.connections == "skip" else outs[-1]
    return tuple(carries), drop(3 * depth + 1, config.output_dropout, out)


# Beside the stack: weights dropped before it, another order of axes around it, pooling after it.


def drop_weights(key: PRNGKeyArray, params: Any, rate: float) -> Any:
    """The same weights with a part of the recurrent ones set to 0 and the rest scaled up.

    What is dropped is dropped for all sequences and steps (weight drop, Merity et al. 2018), so it
    is done once, on the way into the layer or stack, inside the loss. What is trained, and what is
    evaluated, are the weights themselves: do not put the result in their place.

    Args:
        key: a key of ``jax.random``; another at every training step.
        params: of a layer or a stack: every ``w_hh`` in it.
        rate: the part that is dropped.

    Raises:
        TypeError: no key, or no number.
        ValueError: a rate outside 0 … 1, or no recurrent weights.
    """
    check_key("key", key, single=True)
    check_number("rate", rate, least=0, below=1)

    def is_recurrent(path: Any) -> bool:
        return getattr(path[-1], "name", None) == "w_hh" if path else False

    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    rate = float(rate)
    if not any(is_recurrent(path) for path, _ in leaves):
        raise ValueError("params: expected weights of a layer or a stack, got none named w_hh")

    def dropped(n: int, path: Any, w: Array) -> Array:
        if not is_recurrent(path) or not rate:
            return w
        return w * dropout_mask(jax.random.fold_in(key, n), rate, w.shape, w.dtype)

    return jax.tree.unflatten(tree, [dropped(n, *leaf) for n, leaf in enumerate(leaves)])


def batch_major(layer: Callable[..., tuple[Any, Array]] = lstm) -> Callable[..., Any]:
    """``layer`` for xs ``[*batch, time, input]``, giving hs and taking resets in that order, too.

    Two transpositions, one on the way in and one on the way out, however deep the layer is.
    (``last``, ``mean`` and ``maximum`` want time first: pool inside ``layer``, or swap back.)

    Args:
        layer: ``lstm``, or what takes the arguments that it takes, such as ``partial(stack, …)``.

    Raises:
        TypeError: ``layer`` is no function; (when called) xs or resets is no array.
        ValueError: (when called) xs has no batch axis or no time axis.
    """
    check_function("layer", layer)

    def run(params: Any, carry: Any, xs: Array, *, resets: Any = None, **options: Any) -> Any:
        xs = check_array("xs", xs, ("batch", "...", "time", "input"))
        if resets is not None:
            resets = jnp.moveaxis(check_array("resets", resets, xs.shape[:-1], jnp.bool_), -1, 0)
        carry, hs = layer(params, carry, jnp.moveaxis(xs, -2, 0), resets=resets, **options)
        return carry, jnp.moveaxis(hs, 0, -2)

    return run


def init_stack_carry(
    config: Stack, params: Sequence[LayerParams], batch_shape: int | Sequence[int]
) -> Any:
    """The carry of a stack before the first step: what was learned, or zeros; as ``stack`` has it.

    Args:
        config: the stack.
        params: the weights of the stack.
        batch_shape: the batch axes, ``()`` for a single sequence; one int stands for one axis.

    Raises:
        TypeError: params that are not those of a stack, or a size that is no int.
        ValueError: a negative batch size.
    """
    _check_config(config)
    _check_layers("params", params, len(config.cells), LayerParams)

    batch = check_batch_shape(batch_shape)

    def start(gates: Gates, weights: Any, learned: State | None) -> State:
        return gates.start(weights, batch) if learned is None else _for_batch(learned, batch)

    def layer(cell: Cell, one: LayerParams) -> Any:
        ways = [one.forward] if one.backward is None else [one.forward, one.backward]
        carries = tuple(map(start, cell.ways, ways, one.start or [None] * len(ways)))
        return carries if len(ways) == 2 else carries[0]

    return tuple(map(layer, config.cells, params))


def last(
    hs: Float[Array, "time *batch output"],
    lengths: Int[Array, "*batch"] | None = None,
    config: Stack | None = None,
) -> Float[Array, "*batch output"]:
    """The outputs at the last step that counts; 0 for a sequence of no steps.

    Args:
        hs: what a layer or stack gave, time first.
        lengths: steps that count; None for all.
        config: the stack that gave hs, if it is bidirectional or reverse: the last step of what
            walks from the end to the start is the first.

    Raises:
        TypeError, ValueError: arrays of another dtype or shape, a length out of range; hs that the
            stack does not give.
    """
    hs, mask = _steps(hs, lengths)
    if config is not None:
        _check_config(config)
        check_array("hs", hs, ("time", "...", config.output_size))
    if hs.shape[0] == 0:
        return jnp.zeros(hs.shape[1:], hs.dtype)
    count = jnp.sum(mask[..., 0], axis=0)
    at = jnp.maximum(count - 1, 0)[None, ..., None]
    ends = jnp.take_along_axis(hs, at, axis=0)[0]
    if config is not None and config.reverse:
        ends = hs[0]
    elif config is not None and config.bidirectional:
        widths = config.outputs if config.connections == "skip" else config.outputs[-1:]
        backward = jnp.concatenate([jnp.arange(n) >= n // 2 for n in widths])
        ends = jnp.where(along(backward, ends), hs[0], ends)
    return jnp.where(count[..., None] > 0, ends, jnp.zeros_like(ends))


def mean(
    hs: Float[Array, "time *batch output"], lengths: Int[Array, "*batch"] | None = None
) -> Float[Array, "*batch output"]:
    """The mean over the steps that count; 0 for a sequence of no steps. As for ``last``."""
    hs, mask = _steps(hs, lengths)
    wide = at_least_32_bits(hs.dtype)  # 65,504 is the largest float16
    total = jnp.sum(jnp.where(mask, hs, jnp.zeros_like(hs)), axis=0, dtype=wide)
    count = jnp.sum(mask, axis=0, dtype=wide)
    return (total / jnp.maximum(count, jnp.ones_like(count))).astype(hs.dtype)


def maximum(
    hs: Float[Array, "time *batch output"], lengths: Int[Array, "*batch"] | None = None
) -> Float[Array, "*batch output"]:
    """The maximum over the steps that count; 0 for a sequence of no steps. As for ``last``."""
    hs, mask = _steps(hs, lengths)
    if hs.shape[0] == 0:
        return jnp.zeros(hs.shape[1:], hs.dtype)
    most = jnp.max(jnp.where(mask, hs, jnp.full_like(hs, -jnp.inf)), axis=0)
    return jnp.where(jnp.any(mask, axis=0), most, jnp.zeros_like(most))


# Small parts


def _for_batch(start: State, batch: Sequence[int], sharding: Any = None) -> State:
    """The same carry for every sequence, ``[*batch, ·]``."""
    return jax.tree.map(
        lambda a: jnp.broadcast_to(a, (*batch, *a.shape), out_sharding=sharding), start
    )


def _steps(hs: Any, lengths: Any) -> tuple[Array, Array]:
    """hs, and a mask of the steps that count, ``[time, *batch, 1]``."""
    hs = check_array("hs", hs, ("time", "...", "output"))
    time, *batch = hs.shape[:-1]
    if lengths is None:
        return hs, jnp.ones((time, *batch, 1), jnp.bool_)
    return hs, valid_steps(lengths, time, batch)[..., None]


def _drop(keys: PRNGKeyArray, a: Array, rate: float, first: Any) -> Array:
    """Features dropped: others at each step, ``first`` being its number, or, if None, the same."""
    size, dtype = a.shape[-1], a.dtype
    if first is None:
        return a * along(dropout_mask(keys, rate, size, dtype), a)

    # Under checkpoint the masks are drawn again for the backward pass rather than kept.
    @jax.checkpoint
    def per_step(keys: PRNGKeyArray, a: Array) -> Array:
        def mask(keys: PRNGKeyArray, t: Array) -> Array:
            return dropout_mask(fold_keys(keys, t), rate, size, dtype)

        masks: Array = draw_steps(mask, keys, step_numbers(a.shape[0], first))
        return a * masks

    dropped: Array = per_step(keys, a)
    return dropped


def _check_config(config: Any) -> None:
    if not isinstance(config, Stack):
        raise TypeError(f"config: expected Stack, got {type(config).__name__}")


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple | list) and not hasattr(value, "_fields")  # nor a NamedTuple


def _check_layers(name: str, value: Any, depth: int, kind: type | None = None) -> None:
    if not _is_list(value):
        raise TypeError(f"{name}: expected a tuple of {depth} layers, got {type(value).__name__}")
    if len(value) != depth:
        raise ValueError(f"{name}: expected one for each of {depth} layers, got {len(value)}")
    for n, one in enumerate(value):
        if kind is not None and not isinstance(one, kind):
            raise TypeError(f"{name}[{n}]: expected {kind.__name__}, got {type(one).__name__}")


def _check_carries(carry: Any, params: Sequence[LayerParams], config: Stack) -> None:
    _check_layers("carry", carry, len(config.cells))
    for n, (one, weights, cell) in enumerate(zip(carry, params, config.cells, strict=True)):
        kind = type(jax.eval_shape(partial(cell.ways[0].start, batch_shape=()), weights.forward))
        pair = config.bidirectional
        if not (_is_list(one) if pair else isinstance(one, kind)):
            wanted = f"a pair of {kind.__name__}" if pair else kind.__name__
            raise TypeError(f"carry[{n}]: expected {wanted}, got {type(one).__name__}")
        if pair and len(one) != 2:
            raise ValueError(
                f"carry[{n}]: expected a pair of {kind.__name__}, got {len(one)} of them"
            )


def _check_layer(n: int, one: LayerParams, config: Stack) -> None:
    """Raise unless the weights are those of layer n of this stack, as far as one can see."""
    for field, wanted in (("backward", config.bidirectional), ("start", config.learned_carry)):
        if (getattr(one, field) is not None) != wanted:
            said = ("None", "weights")
            raise ValueError(
                f"params[{n}].{field}: expected {said[wanted]} by config, got {said[not wanted]}"
            )
    cell = config.cells[n]
    for field in ("forward", "backward"):
        w_hh = getattr(getattr(one, field), "w_hh", None)
        if w_hh is not None:
            output = cell.size if cell.output is None else cell.output
            shape: tuple[int | str, ...] = (output, "gates", cell.size)
            if getattr(w_hh, "ndim", 3) == 4:
                heads = w_hh.shape[0]
                shape = (heads, output // heads, "gates", cell.size // heads)
            check_array(f"params[{n}].{field}.w_hh", w_hh, shape)
