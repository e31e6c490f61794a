"""onnxruntime as the tests use it: a model run on arrays, and ONNX's names for our activations."""

from typing import Any

import pytest
from witness import Array

from jlstm import activations

REASON = "the extra `oracles` is not installed"
onnx = pytest.importorskip("onnx", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)

# onnxruntime computes in float32 (roundings of 6e-8) and has polynomials for tanh and sigmoid, good
# to a few of those. jlstm is given the same numbers in float64, so the difference is onnxruntime's
# alone; relative to the largest entry, over a few steps, 6e-7 at most is measured.
TOLERANCE = 3e-6

# ONNX's name, and ours; with constants that are not those by default.
ACTIVATIONS: dict[str, Any] = {
    "Relu": activations.relu,
    "Tanh": activations.tanh,
    "Sigmoid": activations.sigmoid,
    "Affine": activations.affine(0.9, 0.1),
    "LeakyRelu": activations.leaky_relu(0.3),
    "ThresholdedRelu": activations.thresholded_relu(0.4),
    "ScaledTanh": activations.scaled_tanh(1.3, 0.6),
    "HardSigmoid": activations.hard_sigmoid(0.3, 0.4),
    "Elu": activations.elu(0.7),
    "Softsign": activations.softsign,
    "Softplus": activations.softplus,
}


def session_of(model: Any) -> Any:
    """onnxruntime's session of a model, which is checked first, shapes and all."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # beside it run the other tests
    options.log_severity_level = 3  # an input that may be left out is worth a warning to it
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_model(model: Any, given: dict[str, Array], results: list[str]) -> list[Array]:
    """These results of a model."""
    return session_of(model).run(results, given)
