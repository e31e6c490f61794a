"""Programs in StableHLO: without jlstm they compute what jlstm does, and damaged files are refused.

In float32, as what is exported is run by a process of its own where JAX is as it comes. Exported
for several platforms, a program is compiled with a branch for each: a few roundings of float32.
"""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from witness import assert_trees_agree, relative_error

from jlstm import SLSTM, Stack, Variant, init_stack, stack
from jlstm.extras import MissingExtraError
from jlstm.interop import stablehlo
from jlstm.interop.stablehlo import from_stablehlo, name_weights, to_stablehlo
from jlstm.streaming import init_state, pack, stack_step, unpack

pytest.importorskip("flatbuffers")

TIME, BATCH, INPUT = 7, 3, 5
ROUNDING = 1e-6
PLAIN = Stack(sizes=4)
DEEP = Stack(
    sizes=(4, 6),
    gates=(Variant(peepholes=True, zoneout_h=0.2), SLSTM(heads=2)),
    connections="skip",
    learned_carry=True,
    dropout=0.5,
)
BOTH_WAYS = Stack(sizes=(4, 2), bidirectional=True, learned_carry=True)


def problem_of(config, seed=0):
    """Weights, all of them random, inputs, a state, lengths and resets."""
    draw = np.random.default_rng(seed)
    params = init_stack(jax.random.key(seed), INPUT, config)
    params = jax.tree.map(
        lambda a: jnp.asarray(0.6 * draw.standard_normal(a.shape), a.dtype), params
    )
    start = init_state(config, params, BATCH)
    given = {
        "xs": draw.standard_normal((TIME, BATCH, INPUT)).astype(np.float32),
        "state": draw.standard_normal(start.shape).astype(np.float32),
        "lengths": np.array([TIME, 0, 4], np.int32),
        "resets": draw.random((TIME, BATCH)) < 0.3,
    }
    return params, given


def whole(config, params, xs, state=None, **masks):
    config = config.without_noise()
    carry = None if state is None else unpack(config, params, state)
    carry, hs = stack(config, params, carry, xs, **masks)
    return {"hs": hs, "state": pack(carry)}


# What is read again computes the same


@pytest.mark.parametrize("config", [PLAIN, DEEP, BOTH_WAYS], ids=["plain", "deep", "both ways"])
@pytest.mark.parametrize("options", [(), ("state", "lengths", "resets")], ids=["xs", "all"])
def test_a_sequence_of_any_size(config, options):
    params, given = problem_of(config)
    program = from_stablehlo(to_stablehlo(config, params, **dict.fromkeys(options, True)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert not program.has_vjp()
    named = {name: given[name] for name in ("xs", *options)}
    assert_trees_agree(program.call(**named), whole(config, params, **named), ROUNDING)
    # Other sizes by the same program.
    few = {
        name: a[:4, :2] if name in ("xs", "resets") else a[:2].clip(-9, 4)
        for name, a in named.items()
    }
    assert_trees_agree(program.call(**few), whole(config, params, **few), ROUNDING)


@pytest.mark.parametrize("baked", [True, False])
def test_steps_of_any_number_of_streams(baked):
    params, given = problem_of(DEEP)
    program = from_stablehlo(
        to_stablehlo(DEEP, params, "step", baked=baked, lengths=True, resets=True)
    )
    weights = {} if baked else {"weights": name_weights(params)}
    state, mask = given["state"], np.array([True, True, False])
    masks = {"mask": mask, "resets": given["resets"][2]}
    for count in (BATCH, 2):
        named = {name: a[:count] for name, a in (masks | {"x": given["xs"][0]}).items()}
        found = program.call(state=state[:count], **named, **weights)
        after, h = stack_step(DEEP, params, state[:count], **named)
        assert_trees_agree(found, {"h": h, "state": after}, ROUNDING)


def test_the_first_step_starts_from_the_learned_carry_where_it_is_reset():
    params, given = problem_of(DEEP)
    program = from_stablehlo(to_stablehlo(DEEP, params, "step", resets=True))
    state = np.zeros_like(given["state"])
    hs = []
    for t, x in enumerate(given["xs"]):
        out = program.call(x=x, state=state, resets=np.full(BATCH, t == 0))
        state = out["state"]
        hs.append(out["h"])
    assert_trees_agree(np.stack(hs), whole(DEEP, params, given["xs"])["hs"], ROUNDING)


def test_fixed_sizes_and_weights_that_are_handed_over():
    params, given = problem_of(PLAIN)
    others, _ = problem_of(PLAIN, seed=1)
    program = from_stablehlo(to_stablehlo(PLAIN, params, time=TIME, batch=BATCH, baked=False))
    (aval,) = (a for a in program.in_avals if a.ndim == 3 and a.shape[0] == TIME)
    assert aval.shape == (TIME, BATCH, INPUT)
    for weights in (params, others):
        found = program.call(xs=given["xs"], weights=name_weights(weights))
        assert_trees_agree(found, whole(PLAIN, weights, given["xs"]), ROUNDING)


def test_weights_are_in_the_file_or_are_not():
    config = Stack(sizes=64)
    params, _ = problem_of(config)
    size = sum(a.nbytes for a in jax.tree.leaves(params))
    baked, bare = (len(to_stablehlo(config, params, baked=baked)) for baked in (True, False))
    assert bare < 40_000
    assert size < baked < size + bare + 10_000


@pytest.mark.parametrize("order", [0, 1])
def test_a_gradient_only_where_it_was_asked_for(order):
    params, given = problem_of(PLAIN)
    program = from_stablehlo(to_stablehlo(PLAIN, params, time=TIME, batch=BATCH, vjp_order=order))

    def loss(xs):
        return jnp.sum(program.call(xs=xs)["hs"] ** 2)

    if not order:
        with pytest.raises(ValueError, match="VJP"):
            jax.grad(loss)(given["xs"])
        return
    expected = jax.grad(lambda xs: jnp.sum(whole(PLAIN, params, xs)["hs"] ** 2))(given["xs"])
    assert relative_error(*map(np.asarray, (jax.grad(loss)(given["xs"]), expected))) < ROUNDING


# Without jlstm

ALONE = """
import sys

class NoJlstm:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "jlstm":
            raise ImportError("jlstm is not to be had here")

sys.meta_path.insert(0, NoJlstm())

import numpy as np
from jax import export

for name in ("sequence", "step"):
    with open(name + ".stablehlo", "rb") as file:
        program = export.deserialize(bytearray(file.read()))
    given = dict(np.load(name + ".npz"))
    np.savez("found_" + name + ".npz", **program.call(**given))

try:
    import jlstm
except ImportError as error:
    assert "not to be had" in str(error)
else:
    raise AssertionError
"""


def test_a_process_without_jlstm_computes_the_same(tmp_path):
    params, given = problem_of(DEEP)
    options = {"lengths": True, "resets": True}
    of_step = {
        "x": given["xs"][0],
        "state": given["state"],
        "mask": np.array([True, True, False]),
        "resets": given["resets"][2],
    }
    for name, inputs in (("sequence", given), ("step", of_step)):
        content = to_stablehlo(DEEP, params, name, state=True, **options)
        (tmp_path / f"{name}.stablehlo").write_bytes(content)
        np.savez(tmp_path / f"{name}.npz", **inputs)
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, check=True)
    found = dict(np.load(tmp_path / "found_sequence.npz"))
    assert_trees_agree(found, whole(DEEP, params, **given), ROUNDING)
    found = dict(np.load(tmp_path / "found_step.npz"))
    state, h = stack_step(DEEP, params, **of_step)
    assert_trees_agree(found, {"h": h, "state": state}, ROUNDING)


# Files


@pytest.fixture(scope="module")
def content():
    return to_stablehlo(PLAIN, problem_of(PLAIN)[0], platforms=("cpu",))


def test_a_path_or_its_content(content, tmp_path):
    (tmp_path / "lstm.stablehlo").write_bytes(content)
    for source in (content, tmp_path / "lstm.stablehlo", str(tmp_path / "lstm.stablehlo")):
        assert from_stablehlo(source).platforms == ("cpu",)
    with pytest.raises(FileNotFoundError):
        from_stablehlo(tmp_path / "none")
    with pytest.raises(TypeError, match="source: expected a path or bytes, got int"):
        from_stablehlo(3)


@given(st.integers(0, 10**6))
def test_a_file_cut_short_is_refused(content, size):
    with pytest.raises(ValueError, match="source: expected a whole file of to_stablehlo"):
        from_stablehlo(content[: size % len(content)])


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_refused(content, place, change):
    damaged = bytearray(content)
    damaged[place % len(content)] ^= change
    with pytest.raises(ValueError, match="source: expected"):
        from_stablehlo(damaged)


def test_a_large_file_of_others_is_not_read(tmp_path):
    path = tmp_path / "large.stablehlo"
    with path.open("wb") as file:
        file.truncate(2**40)  # of which nothing is on the disk
    with pytest.raises(ValueError, match=r"large.stablehlo: expected a whole file"):
        from_stablehlo(path)


@given(st.binary(max_size=200))
def test_what_is_no_program_is_refused_though_it_is_sealed(data):
    seal = stablehlo.MAGIC + stablehlo.hashlib.sha256(data).digest()
    with pytest.raises(ValueError, match=r"source: expected a program that JAX .* can read"):
        from_stablehlo(data + seal)


# Errors


def test_what_cannot_be_exported():
    params, _ = problem_of(PLAIN)
    for options, error, said in (
        ({"function": "cell"}, ValueError, "function: expected one of 'sequence', 'step'"),
        ({"time": 0}, ValueError, "time: expected at least 1, got 0"),
        ({"batch": 1.5}, TypeError, "batch: expected an int, got float"),
        ({"function": "step", "time": 3}, ValueError, "time: expected None for a step, got 3"),
        ({"platforms": ("gpu",)}, ValueError, "platforms: expected one of 'cpu'"),
        ({"platforms": "cpu"}, ValueError, "platforms: expected names of platforms, got 'cpu'"),
        ({"platforms": ()}, ValueError, "platforms: expected names of platforms"),
        ({"state": 1}, TypeError, "state: expected True or False"),
        ({"vjp_order": -1}, ValueError, "vjp_order: expected at least 0"),
    ):
        with pytest.raises(error, match=said):
            to_stablehlo(PLAIN, params, **options)
    with pytest.raises(TypeError, match="config: expected Stack, got NoneType"):
        to_stablehlo(None, params)
    with pytest.raises(ValueError, match="params: expected one for each of 2 layers, got 1"):
        to_stablehlo(Stack(sizes=(4, 4)), params)
    with pytest.raises(TypeError, match="params: expected a tuple of 1 layers, got dict"):
        to_stablehlo(PLAIN, {})
    both, _ = problem_of(BOTH_WAYS)
    with pytest.raises(
        ValueError, match="config: expected a stack that walks from the start alone"
    ):
        to_stablehlo(BOTH_WAYS, both, "step")


def test_the_package_that_is_missing_is_named(content, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(MissingExtraError, match=r"flatbuffers is not installed.*jlstm\[interop\]"):
        from_stablehlo(content)
    with pytest.raises(MissingExtraError, match="flatbuffers is not installed"):
        to_stablehlo(PLAIN, problem_of(PLAIN)[0])
