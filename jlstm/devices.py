"""A batch cut over several devices: what a machine with more than one of them can do at once."""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, get_abstract_mesh, reshard
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PRNGKeyArray

from jlstm.checks import check_function
from jlstm.dropout import sequence_keys
from jlstm.sequence import lstm
from jlstm.types import Carry, LSTMParams, check_array

AXIS = "devices"
"""The mesh axis over which a batch is cut."""

Layer = Callable[..., tuple[Carry, Float[Array, "time batch *rest hidden"]]]


def over_devices(layer: Layer = lstm, devices: Sequence[jax.Device] | None = None) -> Layer:
    """``layer`` with its batch cut into one part per device; the same arguments and results.

    Every device walks through its own sequences, with the weights at hand, and nothing is passed
    between devices but the weights' gradients, which are added up once, at the end. On a CPU that
    makes the cores work side by side, for which the products of a single step are too small::

        use_cores()  # before JAX is first used
        carry, hs = jax.jit(jlstm.over_devices())(params, carry, xs)

    Args:
        layer: ``lstm``, or what takes the arguments that it takes.
        devices: which; None for all of ``jax.devices()``; or, under ``jax.set_mesh`` and for xs on
            a mesh with explicit axes, for those of that mesh, whatever its axes are.

    Returns:
        A function of ``(params, carry, xs, **options)``, to be called inside ``jax.jit``. xs has at
        least one batch axis, and the first divides evenly; other batch axes are left alone. Lengths
        out of range are taken as the nearest inside, as under ``jit``.

    Raises:
        TypeError: ``layer`` is no function.
        ValueError: (when called) there is no batch, or it does not divide; devices are named where
            a mesh says which.
    """
    check_function("layer", layer)

    def cut(
        params: LSTMParams,
        carry: Carry | None,
        xs: Float[Array, "time batch *rest input"],
        *,
        lengths: Any = None,
        resets: Any = None,
        reset_to: Carry | None = None,
        key: PRNGKeyArray | None = None,
        **options: Any,
    ) -> tuple[Carry, Array]:
        xs = check_array("xs", xs, ("time", "batch", "...", "input"))
        around = _mesh_around(xs)
        if around is not None and devices is not None:
            raise ValueError(
                f"devices: expected None where a mesh is set, got {len(devices)} of them"
            )
        mesh = _mesh(devices) if around is None else around
        whole, batch, steps = (_spec(axis, mesh) for axis in (None, 0, 1))
        if xs.shape[1] % mesh.size:
            raise ValueError(
                f"xs: expected a batch that divides over {mesh.size} devices, got {xs.shape[1]}"
            )

        def part(params: Any, carry: Any, xs: Any, masks: Any) -> Any:
            return layer(params, carry, xs, **masks, **options)

        # One key for each sequence, so that it draws the same wherever it lies.
        keys = None if key is None else sequence_keys(key, xs.shape[1:-1])
        specs = {"lengths": batch, "resets": steps, "reset_to": batch, "key": batch}
        masks = {"lengths": lengths, "resets": resets, "reset_to": reset_to, "key": keys}
        masks = {name: mask for name, mask in masks.items() if mask is not None}
        in_specs = whole, batch, steps, {name: specs[name] for name in masks}
        run: Callable[..., tuple[Carry, Array]] = jax.shard_map(
            part,
            mesh=mesh,
            in_specs=in_specs,
            out_specs=(batch, steps),
        )
        given = params, carry, xs, masks
        if AxisType.Explicit in mesh.axis_types:  # there arrays are only moved where it is said

            def move(spec: P, tree: Any) -> Any:
                to = NamedSharding(mesh, spec)
                return reshard(tree, to)  # type: ignore[no-untyped-call]

            given = jax.tree.map(move, in_specs, given, is_leaf=lambda s: isinstance(s, P))
        return run(*given)

    return cut


def spread(layer: Layer, batch: int) -> tuple[Layer, int]:
    """``layer`` over as many devices as divide the batch, and how many those are.

    Takes every core for a device, where it is not too late (``use_cores``).
    """
    count = math.gcd(use_cores(), batch)
    return (over_devices(layer, jax.devices()[:count]) if count > 1 else layer), count


def use_cores() -> int:
    """Make JAX take every core for a device, where it is not too late; how many devices there are.

    A program says it once, before anything else of JAX. What the user has set, by
    ``JAX_NUM_CPU_DEVICES`` or in ``XLA_FLAGS``, stays as it is, and so does a GPU or TPU.
    """
    config: Any = jax.config
    if config.jax_num_cpu_devices < 0 and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        with suppress(RuntimeError):  # JAX has been used: it has its devices
            config.update("jax_num_cpu_devices", count_cores())
    return len(jax.devices())


def count_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not everywhere
        return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """The memory of a device; on a CPU, whose devices share it, what the machine lets us have.

    None where neither JAX nor the system says.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        known: int | None = (device.memory_stats() or {}).get("bytes_limit")
        return known
    limits = []
    with suppress(AttributeError, ValueError, OSError):  # not everywhere
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError), open("/sys/fs/cgroup/memory.max") as container:
        limits.append(int(container.read()))  # "max" where there is no limit
    return min(limits, default=None)


def place(tree: Any, axis: int | None = None, devices: Sequence[jax.Device] | None = None) -> Any:
    """Arrays as ``over_devices`` takes them and gives them, so that none has to be moved later.

    A training step whose state was placed once compiles once.

    Args:
        tree: a pytree of arrays, or of ``jax.ShapeDtypeStruct``, which are told where to lie.
        axis: the one to cut into a part per device, 0 for a carry, 1 for xs; None for weights, of
            which every device gets a copy.
        devices: as for ``over_devices``.
    """
    mesh = _mesh(devices)
    cut = axis if mesh.size > 1 else None  # XLA's results on one device are not cut either
    sharding = NamedSharding(mesh, _spec(cut, mesh))

    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            form: Any = jax.ShapeDtypeStruct
            return form(leaf.shape, leaf.dtype, sharding=sharding)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, tree)


def _spec(axis: int | None, mesh: Mesh | AbstractMesh) -> P:
    """The axis cut into a part for each device of the mesh; None for nothing cut."""
    return P(*() if axis is None else (*[None] * axis, mesh.axis_names))  # type: ignore[no-untyped-call]


def _mesh(devices: Sequence[jax.Device] | None) -> Mesh:
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (AXIS,))


def _mesh_around(xs: Array) -> AbstractMesh | None:
    """The mesh that is set, or else the one on whose explicit axes xs lie; None for neither."""
    mesh: AbstractMesh = get_abstract_mesh()
    if mesh.empty:
        mesh = jax.typeof(xs).sharding.mesh
        return mesh if AxisType.Explicit in mesh.axis_types else None
    return mesh
