"""One contestant's way through one problem: compiled, fed and told apart from the clock.

Everything that a peer does not do by itself is here, and is the same for all on JAX: jit, the
derivative, the training step. PyTorch brings its own autograd and optimiser; onnxruntime has
neither.
"""

import time as clock
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jlstm import Carry, LSTMParams, init_params
from jlstm.comparison import _problem as random_problem
from jlstm.comparison import count_flops
from jlstm.devices import count_cores, place
from jlstm.kernels import native
from tests.benchmarks.contestants import Contestant, Layer, Shape

Kind = Literal["forward", "gradient", "step", "stream"]
KINDS: tuple[Kind, ...] = ("forward", "gradient", "step", "stream")

LEARNING_RATE = 1e-3
MATRIX = 2048
ROUNDS = 2**20


class Problem(NamedTuple):
    """What a kind of work starts from, on the first device; not every kind uses all of it."""

    shape: Shape
    params: LSTMParams
    carry: Carry
    xs: jax.Array
    d_carry: Carry
    d_hs: jax.Array
    above: LSTMParams
    """The second layer of the training step."""
    readout: tuple[jax.Array, jax.Array]
    targets: jax.Array


class Program(NamedTuple):
    """One contestant's way through one problem."""

    call: Callable[[], Any]
    """Do it once, and wait until it is done."""
    answer: Callable[[], dict[str, np.ndarray]]
    """The numbers that it gives, in our order of axes and gates."""
    compile_seconds: float | None = None
    """From the Python function to its executable: tracing, lowering, XLA."""
    temp_bytes: int | None = None
    """Memory beside arguments and results, on all devices together, as far as XLA knows of it."""
    flops: int | None = None
    """Floating-point operations in the matrix products of the program handed to XLA; None for a
    program of several devices, whose parts are not told apart."""


def make_problem(shape: Shape, seed: int = 0) -> Problem:
    """A random problem in float32: our fresh weights, everything else normal."""
    params, carry, xs, (d_carry, d_hs) = random_problem(seed, *shape, jnp.dtype(jnp.float32))
    keys = jax.random.split(jax.random.key(seed + 1), 3)
    above = init_params(keys[0], shape.hidden, shape.hidden)
    scale = np.float32(shape.hidden**-0.5)
    readout = (
        scale * jax.random.normal(keys[1], (shape.hidden, shape.input), jnp.float32),
        jnp.zeros(shape.input, jnp.float32),
    )
    targets = jax.random.normal(keys[2], xs.shape, jnp.float32)
    return Problem(shape, params, carry, xs, d_carry, d_hs, above, readout, targets)


def count_work(shape: Shape, kind: Kind) -> int:
    """Floating-point operations in the matrix products that nobody can do without.

    A product of [m, k] and [k, n] is 2·m·n·k. A layer's forward pass is 2·T·B·4H·(D + H), its
    gradient three times that; no xs has a gradient below the first layer of a training step.
    """
    time, batch, inputs, hidden = shape
    rows = 2 * time * batch
    layer = rows * 4 * hidden * (inputs + hidden)
    if kind in ("forward", "stream"):
        return layer
    if kind == "gradient":
        return 3 * layer
    above = rows * 4 * hidden * 2 * hidden
    readout = rows * hidden * inputs
    return 3 * (layer + above + readout) - rows * 4 * hidden * inputs


def build(contestant: Contestant, problem: Problem, kind: Kind) -> Program:
    """One contestant, ready for one kind of work."""
    if contestant.build is None:
        make = onnx_program if contestant.family == "onnxruntime" else torch_program
        return make(problem, kind)
    shape = problem.shape
    upper = contestant.build(shape._replace(input=shape.hidden))
    return jax_program(contestant.build(shape), upper, problem, kind)


def matrix_product() -> Callable[[], Any]:
    """The yardstick: a product of two large matrices, as JAX does it on the first device."""
    factor = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX), jnp.float32)
    run = jax.jit(jnp.matmul).lower(factor, factor).compile()
    return lambda: jax.block_until_ready(run(factor, factor))


def multiply_adds() -> int:
    """The other one: how many multiply-adds in registers all cores did; 0 without the kernel."""
    with ThreadPoolExecutor(count_cores()) as pool:
        return sum(pool.map(native.multiply_adds, [ROUNDS] * count_cores()))


# On JAX


def jax_program(layer: Layer, upper: Layer, problem: Problem, kind: Kind) -> Program:
    """A contestant on JAX, compiled; ``upper`` is its second layer, for the training step."""
    match kind:
        case "forward":
            return _compiled_forward(layer, problem)
        case "gradient":
            return _compiled_gradient(layer, problem)
        case "step":
            return _compiled_training(layer, upper, problem)
        case "stream":
            return _compiled_stream(layer, problem)


def _place(layer: Layer, role: str, tree: Any) -> Any:
    """Arrays in the layout and on the devices that the layer wants, before any clock runs."""
    if role == "sequence" and layer.batch_major:
        tree = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), tree)
    if not layer.spread:
        return jax.device_put(tree, jax.devices()[0])
    return place(tree, {"weights": None, "carry": 0, "sequence": 1}[role])


def _time_major(layer: Layer, a: jax.Array) -> jax.Array:
    return jnp.swapaxes(a, 0, 1) if layer.batch_major else a


def _compile(layer: Layer, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The executable, and what the compiler tells about it."""
    jax.clear_caches()  # what somebody else traced before should save nobody time
    start = clock.perf_counter()
    traced = jax.jit(function, **options).trace(*args)
    compiled = traced.lower().compile()
    seconds = clock.perf_counter() - start
    memory = compiled.memory_analysis()
    devices = len(jax.devices()) if layer.spread else 1
    temp_bytes = None if memory is None else devices * memory.temp_size_in_bytes
    flops = count_flops(traced.jaxpr).products if devices == 1 else None
    return compiled, (seconds, temp_bytes, flops)


def _outputs(layer: Layer, carry: Carry, hs: jax.Array) -> dict[str, np.ndarray]:
    return {"hs": np.asarray(_time_major(layer, hs)), "h": _np(carry.h), "c": _np(carry.c)}


def _gradients(layer: Layer, pulled: Any) -> dict[str, np.ndarray]:
    d_weights, d_carry, d_xs = pulled
    d = layer.unload(d_weights)
    gradients = {"dw_ih": d.w_ih, "dw_hh": d.w_hh, "db": d.b, "dh0": d_carry.h}
    gradients |= {"dc0": d_carry.c, "dxs": _time_major(layer, d_xs)}
    return {name: _np(a) for name, a in gradients.items()}


def _np(a: Any) -> np.ndarray:
    return np.asarray(a)


def _inputs(layer: Layer, problem: Problem) -> tuple[Any, Any, Any]:
    """What ``apply`` takes, in place."""
    return (
        _place(layer, "weights", layer.load(problem.params)),
        _place(layer, "carry", problem.carry),
        _place(layer, "sequence", problem.xs),
    )


def _compiled_forward(layer: Layer, problem: Problem) -> Program:
    args = _inputs(layer, problem)
    run, told = _compile(layer, layer.apply, *args)
    return Program(
        lambda: jax.block_until_ready(run(*args)), lambda: _outputs(layer, *run(*args)), *told
    )


def _compiled_gradient(layer: Layer, problem: Problem) -> Program:
    def gradient(weights: Any, carry: Carry, xs: Any, d_carry: Carry, d_hs: Any) -> Any:
        # The outputs are returned as well: a loss, whose gradient this would be, looks at them.
        out, pull_back = jax.vjp(layer.apply, weights, carry, xs)
        return out, pull_back((d_carry, d_hs))

    args = (
        *_inputs(layer, problem),
        _place(layer, "carry", problem.d_carry),
        _place(layer, "sequence", problem.d_hs),
    )
    run, told = _compile(layer, gradient, *args)

    def answer() -> dict[str, np.ndarray]:
        out, pulled = run(*args)
        return _outputs(layer, *out) | _gradients(layer, pulled)

    return Program(lambda: jax.block_until_ready(run(*args)), answer, *told)


def compiled_last_carry(layer: Layer, problem: Problem) -> Program:
    """The gradient of a loss that sees nothing but the last carry: hs has no cotangent."""

    def gradient(weights: Any, carry: Carry, xs: Any, d_carry: Carry) -> Any:
        after, pull_back = jax.vjp(lambda *given: layer.apply(*given)[0], weights, carry, xs)
        return after, pull_back(d_carry)

    args = (
        *_inputs(layer, problem),
        _place(layer, "carry", problem.d_carry),
    )
    run, told = _compile(layer, gradient, *args)

    def answer() -> dict[str, np.ndarray]:
        after, pulled = run(*args)
        return {"h": _np(after.h), "c": _np(after.c)} | _gradients(layer, pulled)

    return Program(lambda: jax.block_until_ready(run(*args)), answer, *told)


def _compiled_training(layer: Layer, upper: Layer, problem: Problem) -> Program:
    optimizer = optax.adam(LEARNING_RATE)
    shape = problem.shape

    def loss(weights: Any, xs: Any, targets: Any) -> Any:
        lower, above, (w, b) = weights
        start = Carry(*(jnp.zeros((shape.batch, shape.hidden), jnp.float32) for _ in range(2)))
        _, hs = layer.apply(lower, start, xs)
        _, hs = upper.apply(above, start, hs)
        return jnp.mean((hs @ w + b - targets) ** 2)

    def step(state: Any, xs: Any, targets: Any) -> Any:
        weights, moments = state
        value, gradient = jax.value_and_grad(loss)(weights, xs, targets)
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            updates, moments = optimizer.update(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments), value

    def fresh() -> Any:
        loaded = layer.load(problem.params), upper.load(problem.above), problem.readout
        weights = jax.tree.map(jnp.copy, loaded)  # buffers are donated: the problem keeps its own
        return _place(layer, "weights", (weights, optimizer.init(weights)))

    data = _place(layer, "sequence", (problem.xs, problem.targets))
    state = fresh()
    run, told = _compile(layer, step, state, *data, donate_argnums=0)

    def call() -> None:
        nonlocal state
        state, value = run(state, *data)
        jax.block_until_ready((state, value))

    def answer() -> dict[str, np.ndarray]:
        state, losses = fresh(), []
        for _ in range(3):
            state, value = run(state, *data)
            losses.append(float(value))
        return {"losses": np.asarray(losses)}

    return Program(call, answer, *told)


def _compiled_stream(layer: Layer, problem: Problem) -> Program:
    weights = _place(layer, "weights", layer.load(problem.params))
    carry, x = _place(layer, "carry", (problem.carry, problem.xs[0]))
    start = carry
    run, told = _compile(layer, layer.step, weights, carry, x)

    def call() -> None:
        nonlocal carry
        carry, h = run(weights, carry, x)
        jax.block_until_ready(h)

    def answer() -> dict[str, np.ndarray]:
        after, h = run(weights, start, x)
        return {"hs": _np(h), "h": _np(after.h), "c": _np(after.c)}

    return Program(call, answer, *told)


# PyTorch


def torch_program(problem: Problem, kind: Kind) -> Program:
    """``torch.nn.LSTM`` on the CPU, ``torch.nn.LSTMCell`` for streams; time-major by default."""
    import torch

    torch.set_num_threads(count_cores())

    def tensor(a: Any) -> Any:
        return torch.from_numpy(np.array(a))

    def load(module: Any, suffixes: Sequence[str], layers: Sequence[LSTMParams]) -> Any:
        """Our weights: [4·hidden, ·] in the same order of gates; of two biases one is 0."""
        with torch.no_grad():
            for suffix, p in zip(suffixes, layers, strict=True):
                flat = [tensor(w).flatten(-2) for w in p]
                getattr(module, f"weight_ih{suffix}").copy_(flat[0].T)
                getattr(module, f"weight_hh{suffix}").copy_(flat[1].T)
                getattr(module, f"bias_ih{suffix}").copy_(flat[2])
                getattr(module, f"bias_hh{suffix}").zero_()
        return module

    shape = problem.shape
    xs = tensor(problem.xs)
    h0, c0 = (tensor(a) for a in problem.carry)
    if kind == "stream":
        cell = load(torch.nn.LSTMCell(shape.input, shape.hidden), [""], [problem.params])
        return _torch_stream(torch, cell, (h0, c0), xs[0])
    if kind == "step":
        return _torch_training(torch, tensor, load, problem)

    lstm = load(torch.nn.LSTM(shape.input, shape.hidden), ["_l0"], [problem.params])
    h0, c0 = h0[None], c0[None]

    if kind == "forward":

        def forward() -> Any:
            with torch.inference_mode():
                return lstm(xs, (h0, c0))

        def results() -> dict[str, np.ndarray]:
            hs, (h, c) = forward()
            return {"hs": _np(hs), "h": _np(h[0]), "c": _np(c[0])}

        return Program(forward, results)

    leaves = {"dh0": h0, "dc0": c0, "dxs": xs}
    for leaf in leaves.values():
        leaf.requires_grad_()
    weights = [lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0]
    dhs, dh, dc = tensor(problem.d_hs), *(tensor(a)[None] for a in problem.d_carry)

    def gradient() -> Any:
        hs, (h, c) = lstm(xs, (h0, c0))
        wanted = [*weights, *leaves.values()]
        return (hs, h, c), torch.autograd.grad([hs, h, c], wanted, [dhs, dh, dc])

    def answer() -> dict[str, np.ndarray]:
        (hs, h, c), (dw_ih, dw_hh, db, _, d_h0, d_c0, d_xs) = gradient()
        return {
            "hs": _np(hs.detach()),
            "h": _np(h[0].detach()),
            "c": _np(c[0].detach()),
            "dw_ih": _np(dw_ih.T).reshape(shape.input, 4, shape.hidden),
            "dw_hh": _np(dw_hh.T).reshape(shape.hidden, 4, shape.hidden),
            "db": _np(db).reshape(4, shape.hidden),
            "dh0": _np(d_h0[0]),
            "dc0": _np(d_c0[0]),
            "dxs": _np(d_xs),
        }

    return Program(gradient, answer)


def _torch_stream(torch: Any, cell: Any, start: Any, x: Any) -> Program:
    state = start

    def call() -> None:
        nonlocal state
        with torch.inference_mode():
            state = cell(x, state)

    def answer() -> dict[str, np.ndarray]:
        with torch.inference_mode():
            h, c = cell(x, start)
        return {"hs": _np(h), "h": _np(h), "c": _np(c)}

    return Program(call, answer)


def _torch_training(torch: Any, tensor: Any, load: Any, problem: Problem) -> Program:
    """PyTorch's own training loop, as its tutorials write it.

    It has two biases where the others have one, and Adam moves both: twice as fast a bias. That is
    how it is used and so how it is timed; only for the check of its numbers one of them stays 0.
    """
    shape = problem.shape
    xs, targets = tensor(problem.xs), tensor(problem.targets)

    def fresh(one_bias: bool) -> Callable[[], Any]:
        lstm = torch.nn.LSTM(shape.input, shape.hidden, num_layers=2)
        load(lstm, ["_l0", "_l1"], [problem.params, problem.above])
        if one_bias:
            lstm.bias_hh_l0.requires_grad_(False)
            lstm.bias_hh_l1.requires_grad_(False)
        readout = torch.nn.Linear(shape.hidden, shape.input)
        with torch.no_grad():
            readout.weight.copy_(tensor(problem.readout[0]).T)
            readout.bias.copy_(tensor(problem.readout[1]))
        weights = [*lstm.parameters(), *readout.parameters()]
        optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE)

        def step() -> Any:
            optimizer.zero_grad()
            hs, _ = lstm(xs)
            loss = torch.nn.functional.mse_loss(readout(hs), targets)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def answer() -> dict[str, np.ndarray]:
        step = fresh(one_bias=True)
        return {"losses": np.asarray([float(step().detach()) for _ in range(3)])}

    return Program(fresh(one_bias=False), answer)


# onnxruntime


def onnx_program(problem: Problem, kind: Kind) -> Program:
    """The LSTM operator of ONNX in onnxruntime on the CPU; arrays are NumPy's, in and out.

    The weights are constants of the model, as in one that was exported: they are laid out once,
    when the session is made, and not at every call.
    """
    import onnx
    import onnxruntime

    if kind not in ("forward", "stream"):
        raise ValueError(f"kind: expected forward or stream, without gradients, got {kind!r}")
    time, batch, _, hidden = problem.shape
    order = [0, 3, 1, 2]  # i, f, g, o in ONNX's order: i, o, f, g
    w_ih, w_hh, b = (_np(w)[..., order, :].reshape(-1, 4 * hidden) for w in problem.params)
    two = np.concatenate([b, 0 * b], axis=1)  # it has two biases, of which one is 0
    weights = {"W": w_ih.T[None], "R": w_hh.T[None], "B": two}
    xs, state = _np(problem.xs), {name: _np(a)[None] for name, a in problem.carry._asdict().items()}

    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node(
        "LSTM", ["xs", *weights, "", "h", "c"], ["hs", "h_last", "c_last"], hidden_size=hidden
    )
    shapes = {"xs": xs.shape, "h": (1, batch, hidden), "c": (1, batch, hidden)}
    results = {"hs": (time, 1, batch, hidden), "h_last": shapes["h"], "c_last": shapes["c"]}
    given, made = (
        [helper.make_tensor_value_info(name, floats, shape) for name, shape in named.items()]
        for named in (shapes, results)
    )
    constants = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in weights.items()
    ]
    graph = helper.make_graph([node], "lstm", given, made, initializer=constants)
    # Versions that are old enough for any onnxruntime; the operator has not changed since.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = count_cores()
    # By itself its threads spin for some 20 ms after a call, in the turn of whoever comes next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    if kind == "stream":
        return _onnx_stream(session, xs, state)

    def forward() -> Any:
        return session.run(list(results), {"xs": xs, **state})

    def answer() -> dict[str, np.ndarray]:
        hs, h, c = forward()
        return {"hs": hs[:, 0], "h": h[0], "c": c[0]}

    return Program(forward, answer)


def _onnx_stream(session: Any, x: np.ndarray, start: dict[str, np.ndarray]) -> Program:
    state = start

    def step(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip("hc", session.run(["h_last", "c_last"], {"xs": x, **state}), strict=True))

    def call() -> None:
        nonlocal state
        state = step(state)

    def answer() -> dict[str, np.ndarray]:
        after = step(start)
        return {"hs": after["h"][0], "h": after["h"][0], "c": after["c"][0]}

    return Program(call, answer)
