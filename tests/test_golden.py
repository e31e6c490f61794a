"""Golden values of ``torch.nn.LSTM``: oracle, ``jlstm.lstm`` and ``jlstm.stack`` reproduce them.

``golden/make_torch.py`` made them, in float64, and says what each is; no torch is needed here.
"""

import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from witness import Array, Problem, assert_agree, run_jlstm, run_oracle

import jlstm
from jlstm.layers import LayerParams, Stack, stack
from jlstm.variants import Variant, VariantParams

GOLDEN = Path(__file__).parent / "golden"

# The same equations in another order of summation: the sums have at most a few hundred terms of
# order one, so a few hundred float64 roundings (2e-16 each) at worst. The oracle measures 1.1e-15.
TOLERANCE = 1e-13

CASES = (
    "plain",
    "no_batch_axis",
    "one_hidden_unit",
    "long",
    "no_bias",
    "lengths",
    "reverse",
    "reverse_lengths",
    "reverse_no_bias",
)
RESULTS = ("hs", "h", "c", "dw_ih", "dw_hh", "db", "dh0", "dc0", "dxs")
STACKS = (
    "two_layers",
    "three_layers_lengths",
    "bidirectional",
    "bidirectional_no_batch_axis_no_bias",
    "three_layers_bidirectional_lengths",
    "one_layer_projection",
    "three_layers_projection_no_bias",
    "projection_lengths",
    "bidirectional_projection_lengths",
)


def load(file: str) -> dict[str, Array]:
    """A stored file, all of it, keyed ``case/name``."""
    with np.load(GOLDEN / f"{file}.npz", allow_pickle=False) as stored:
        return dict(stored)


def leaves_of(file: str, case: str) -> dict[str, Array]:
    """One case of a file, keyed ``name``."""
    stored = load(file).items()
    return {k.removeprefix(f"{case}/"): a for k, a in stored if k.startswith(f"{case}/")}


def load_case(case: str) -> tuple[Problem, dict[str, Array]]:
    """One case as a problem, with torch's results and gradients."""
    leaves = leaves_of("torch_lstm", case)
    expected = {name: leaves.pop(name) for name in RESULTS if name in leaves}
    reverse = bool(leaves.pop("reverse"))
    return Problem(**{"b": None, **leaves}, reverse=reverse), expected


def test_the_file_is_what_the_tests_take_it_for() -> None:
    """The cases tested are those stored, all in float64, and each option occurs."""
    stored = load("torch_lstm")
    assert {key.split("/")[0] for key in stored} == set(CASES)
    problems = {case: load_case(case)[0] for case in CASES}
    assert all(problem.xs.dtype == np.float64 for problem in problems.values())
    for name, problem in problems.items():
        assert problem.reverse == ("reverse" in name)
        assert (problem.lengths is not None) == ("lengths" in name)
        assert (problem.b is None) == ("no_bias" in name)


@pytest.mark.parametrize("case", CASES)
def test_the_oracle_agrees_with_torch(case: str) -> None:
    """hs, h, c and every gradient, under cotangents on hs, h and c."""
    problem, expected = load_case(case)
    assert_agree(run_oracle(problem), expected, TOLERANCE)


@pytest.mark.grid(4)
@pytest.mark.parametrize("derivative", ["vjp", "jvp", "autodiff"])
@pytest.mark.parametrize("case", CASES)
def test_lstm_agrees_with_torch(case: str, derivative: str) -> None:
    """hs, h, c and every gradient, by each of the three derivatives."""
    problem, expected = load_case(case)
    assert_agree(run_jlstm(problem, derivative=derivative), expected, TOLERANCE)


# Stacks


def params_of(leaves: dict[str, Any]) -> tuple[LayerParams, ...]:
    """Named leaves as a stack's weights: ``LSTMParams``, or with a projection ``VariantParams``."""

    def weights(place: str) -> Any:
        named = {k.removeprefix(place): a for k, a in leaves.items() if k.startswith(place)}
        kind = VariantParams if "w_hr" in named else jlstm.LSTMParams
        return kind(**{"b": None} | named) if named else None

    depth = sum(name.endswith("forward.w_hh") for name in leaves)
    return tuple(
        LayerParams(weights(f"{n}.forward."), weights(f"{n}.backward.")) for n in range(depth)
    )


def carries_of(params: tuple[LayerParams, ...], h: Any, c: Any) -> Any:
    """torch's leading axis as a stack's carry: for each layer, a pair where there are two ways."""
    walks = [jlstm.Carry(*both) for both in zip(h, c, strict=True)]
    if params[0].backward is None:
        return tuple(walks)
    return tuple(zip(walks[::2], walks[1::2], strict=True))


def stack_of(params: tuple[LayerParams, ...]) -> Stack:
    """The stack that has such weights."""
    output, _, hidden = params[0].forward.w_hh.shape
    projects = isinstance(params[0].forward, VariantParams)
    return Stack(
        sizes=[hidden] * len(params),
        bidirectional=params[0].backward is not None,
        **{"output_sizes": output, "gates": Variant()} if projects else {},
    )


def run_stack(leaves: dict[str, Array], **options: Any) -> dict[str, Array]:
    """A stack's results and gradients, named as torch's."""
    leaves = dict(leaves)
    lengths = leaves.pop("lengths", None)
    h0, c0, xs, dhs, dh, dc = (leaves.pop(name) for name in ("h0", "c0", "xs", "dhs", "dh", "dc"))
    config = stack_of(params_of(leaves))

    def run(weights: Any, h0: Any, c0: Any, xs: Any) -> Any:
        params = params_of(weights)
        carries, hs = stack(
            config, params, carries_of(params, h0, c0), xs, lengths=lengths, **options
        )
        walks = jax.tree.leaves(carries, is_leaf=lambda leaf: isinstance(leaf, jlstm.Carry))
        h, c = (jnp.stack(part) for part in zip(*walks, strict=True))
        return hs, h, c

    @jax.jit
    def run_both(primals: Any, cotangents: Any) -> Any:
        results, pull_back = jax.vjp(run, *primals)
        return results, pull_back(cotangents)

    # NumPy's arrays would keep their own rules of promotion inside.
    primals, cotangents = jax.tree.map(jnp.asarray, ((leaves, h0, c0, xs), (dhs, dh, dc)))
    results, (dweights, *gradients) = run_both(primals, cotangents)
    named = dict(zip(("hs", "h", "c", "dh0", "dc0", "dxs"), (*results, *gradients), strict=True))
    named |= {f"d{name}": gradient for name, gradient in dweights.items()}
    return {name: np.asarray(leaf) for name, leaf in named.items()}


def load_stack(case: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """What one case of a stack is given, and what torch made of it."""
    leaves = leaves_of("torch_stacks", case)
    given = {"h0", "c0", "xs", "dhs", "dh", "dc", "lengths"}
    given |= {name for name in leaves if name[0].isdigit()}
    made = {name: leaf for name, leaf in leaves.items() if name not in given}
    return {name: leaf for name, leaf in leaves.items() if name in given}, made


def test_the_file_of_stacks_is_what_the_tests_take_it_for() -> None:
    """The cases tested are those stored, all in float64, with a gradient of all that they take."""
    assert {key.split("/")[0] for key in load("torch_stacks")} == set(STACKS)
    for name in STACKS:
        given, made = load_stack(name)
        assert all(leaf.dtype == np.float64 for key, leaf in given.items() if key != "lengths")
        assert made.keys() == {"hs", "h", "c"} | {
            f"d{key}" for key in given.keys() - {"dhs", "dh", "dc", "lengths"}
        }
        config = stack_of(params_of(given))
        assert len(config.cells) == {"one": 1, "three": 3}.get(name.split("_")[0], 2)
        assert config.bidirectional == ("bidirectional" in name)
        assert (config.cells[0].output is not None) == ("projection" in name)
        assert ("lengths" in given) == ("lengths" in name)
        assert ("0.forward.b" not in given) == ("no_bias" in name)


@pytest.mark.grid(4)
@pytest.mark.parametrize("derivative", ["vjp", "jvp", "autodiff"])
@pytest.mark.parametrize("case", STACKS)
def test_stack_agrees_with_torch(case: str, derivative: str) -> None:
    """hs, every layer's h and c, and every gradient, by each of the three derivatives."""
    given, made = load_stack(case)
    assert_agree(run_stack(given, derivative=derivative), made, TOLERANCE)


@pytest.mark.parametrize("file", ["torch_lstm", "torch_stacks", "torch_states"])
def test_torch_still_gives_the_golden_values(file: str) -> None:
    """Where torch is installed, the script gives what is stored, to another machine's rounding."""
    pytest.importorskip("torch")
    generate = runpy.run_path(str(GOLDEN / "make_torch.py"))["generate"]
    assert_agree(generate(file), load(file), TOLERANCE)
