"""over_devices() against lstm() itself, and what the devices say to each other."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from witness import assert_agree, assert_trees_agree, equations_of, random_problem, run_jlstm

import jlstm
from jlstm.devices import AXIS, count_cores, place

ROUNDING = 1e-12  # float64, as in test_sequence.py
MASKS = {"lengths": True, "resets": True, "reset_to": True}


def gradient(layer, params, xs):
    return jax.grad(lambda params: jnp.sum(layer(params, None, xs)[1] ** 2))(params)


@pytest.mark.grid(5)
@pytest.mark.parametrize("batch", [(2,), (4,), (4, 3), (2, 0)])
@pytest.mark.parametrize("masks", [{}, MASKS, MASKS | {"reverse": True}])
def test_the_same_results_and_gradients(batch, masks):
    problem = random_problem(batch=batch, **masks)
    answer = run_jlstm(problem, layer=jlstm.over_devices(), chunk=3)
    assert_agree(answer, run_jlstm(problem), ROUNDING)


@pytest.mark.parametrize("options", [{"derivative": "jvp"}, {"residuals": "chunks", "chunk": 2}])
def test_options_are_handed_on(options):
    problem = random_problem(batch=(4,))
    with pytest.raises(ValueError, match="residuals: expected one of"):
        run_jlstm(problem, layer=jlstm.over_devices(), residuals="gats")
    answer = run_jlstm(problem, layer=jlstm.over_devices(), **options)
    assert_agree(answer, run_jlstm(problem), ROUNDING)


def test_another_layer():
    def halved(params, carry, xs, **options):
        carry, hs = jlstm.lstm(params, carry, xs, **options)
        return carry, hs / 2

    problem = random_problem(batch=(4,))
    answer = run_jlstm(problem, layer=jlstm.over_devices(halved))
    np.testing.assert_allclose(answer["hs"], run_jlstm(problem)["hs"] / 2)


@pytest.mark.usefixtures("two_devices")
def test_each_device_has_its_part_of_the_batch():
    params = jlstm.init_params(jax.random.key(0), 3, 5)
    carry, hs = jax.jit(jlstm.over_devices())(params, None, jnp.ones((6, 4, 3), jnp.float32))
    assert {s.data.shape for s in hs.addressable_shards} == {(6, 2, 5)}
    assert {s.data.shape for s in carry.c.addressable_shards} == {(2, 5)}
    assert {s.device for s in hs.addressable_shards} == set(jax.devices())


@pytest.mark.usefixtures("two_devices")
def test_only_the_devices_named():
    layer = jlstm.over_devices(devices=jax.devices()[1:])
    params = jlstm.init_params(jax.random.key(0), 3, 5)
    _, hs = jax.jit(layer)(params, None, np.ones((6, 3, 3), np.float32))
    assert hs.devices() == set(jax.devices()[1:])


@pytest.mark.usefixtures("two_devices")
@pytest.mark.grid(3)
@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize("axes", [{"d": 2}, {"d": 2, "e": 1}])
def test_under_a_mesh_that_is_set_its_devices_are_taken(kind, axes):
    gates = jlstm.Variant(zoneout_c=0.5)
    params = gates.init(jax.random.key(0), 3, 5, dtype=np.float64)
    carry, xs = jlstm.init_carry(4, 5, np.float64), random_problem(batch=(4,), input_size=3).xs
    options = {"gates": gates, "key": jax.random.key(1)}

    def gradients(layer):
        def loss(params, carry, xs):
            return jnp.sum(layer(params, carry, xs, lengths=lengths, **options)[1] ** 2)

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))

    lengths = np.asarray([7, 4, 0, 2])
    expected = gradients(jlstm.lstm)(params, carry, jnp.asarray(xs))
    mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(kind,) * len(axes))
    placed = jax.device_put(xs, NamedSharding(mesh, P(None, "d")))
    with jax.set_mesh(mesh):
        for some in (xs, placed):
            answer = gradients(jlstm.over_devices())(params, carry, jnp.asarray(some))
            assert_trees_agree(answer, expected)
        with pytest.raises(ValueError, match="devices: expected None where a mesh is set, got 1"):
            jlstm.over_devices(devices=jax.devices()[:1])(params, carry, placed, **options)


@pytest.mark.usefixtures("two_devices")
def test_xs_on_an_explicit_mesh_say_the_devices():
    params = jlstm.init_params(jax.random.key(0), 3, 5)
    xs = jnp.ones((6, 4, 3), jnp.float32)
    placed = jax.device_put(xs, NamedSharding(jax.make_mesh((2,), ("d",)), P(None, "d")))
    run = jax.jit(partial(gradient, jlstm.over_devices()))
    assert_trees_agree(run(params, placed), run(params, xs), 1e-6)


def test_gradients_are_added_up_once_and_outside_of_every_loop():
    params, xs = jlstm.init_params(jax.random.key(0), 3, 5), jnp.ones((12, 4, 3), jnp.float32)
    layer = partial(jlstm.over_devices(), implementation="xla")
    program = jax.make_jaxpr(partial(gradient, layer))(params, xs)
    assert any(equations_of(program, "psum"))
    loops = list(equations_of(program, "scan"))
    assert loops
    assert not any(any(equations_of(loop.params["jaxpr"], "psum")) for loop in loops)


@pytest.mark.parametrize("count", [1, 2])
def test_placed_once_compiled_once(count):
    devices = jax.devices()[:count]
    params = place(jlstm.init_params(jax.random.key(0), 3, 5), devices=devices)
    carry = place(jlstm.init_carry(4, 5), 0, devices)
    xs = place(np.ones((6, 4, 3), np.float32), 1, devices)
    assert params.w_ih.sharding.spec == P()
    cut = [P(AXIS), P(None, AXIS)] if len(devices) > 1 else [P(), P()]
    assert [carry.h.sharding.spec, xs.sharding.spec] == cut
    run = jax.jit(jlstm.over_devices(devices=devices))
    for _ in range(3):
        carry, _ = run(params, carry, xs)
    assert run._cache_size() == 1


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 3, 3), r"xs: expected a batch that divides over 2 devices, got 3"),
        ((6, 3), r"xs: expected shape \[time, batch, ..., input\], got \[6, 3\]"),
    ],
)
def test_a_batch_that_cannot_be_cut(shape, expected):
    params = jlstm.init_params(jax.random.key(0), 3, 5)
    with pytest.raises(ValueError, match=expected):
        jlstm.over_devices()(params, None, jnp.ones(shape, jnp.float32))


def devices_of(program, **environment):
    """How many devices there are after ``program`` in a process of its own."""
    known = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", f"import jax\nfrom jlstm.devices import use_cores\n{program}"],
        env=known | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_every_core_is_made_a_device():
    assert devices_of("print(use_cores())") == count_cores()


def test_what_was_set_before_stays():
    assert devices_of("print(use_cores())", JAX_NUM_CPU_DEVICES="3") == 3
    flags = "--xla_force_host_platform_device_count=5"
    assert devices_of("print(use_cores())", XLA_FLAGS=flags) == 5
    assert devices_of("jax.devices(); print(use_cores())") == 1


def test_a_layer_that_is_none():
    with pytest.raises(TypeError, match="layer: expected a function, got int 2"):
        jlstm.over_devices(2)
