"""The LSTM operator of ONNX: its order of gates and its activations, from ours and to ours.

    i = f(x·Wᵢ + h'·Rᵢ + p_i ⊙ c' + b_i)      o, f: the same; o sees the new c; f may be 1 − i
    c = f ⊙ c' + i ⊙ g(x·W_c + h'·R_c + b_c)
    h = o ⊙ h(c)

Its three functions f, g and h are our ``gate``, ``candidate`` and ``output``, its ``clip`` is our
``preact_clip``, its ``input_forget`` our ``coupled``. Of each direction it wants all rows in one
matrix, gates in the order i, o, f, c:

    W [directions, 4·hidden, input]   R [directions, 4·hidden, hidden]
    B [directions, 8·hidden], two biases that add up   P [directions, 3·hidden], i, o, f

Source: the operator's page in ONNX's list, version 14 (7 and 22 differ in what dtypes and layouts
they take).
"""

from jlstm import activations
from jlstm.activations import Activation

ORDER, PEEPHOLES = "iofg", "iof"
"""The order of its gates and of its peepholes, in our names."""
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
ROLES = ("gate", "candidate", "output")
"""Our names for its functions f, g and h."""

ACTIVATIONS = {
    "Sigmoid": activations.sigmoid,
    "Tanh": activations.tanh,
    "Relu": activations.relu,
    "Softsign": activations.softsign,
    "Softplus": activations.softplus,
    "Affine": activations.affine(),
    "LeakyRelu": activations.leaky_relu(),
    "ThresholdedRelu": activations.thresholded_relu(),
    "ScaledTanh": activations.scaled_tanh(),
    "HardSigmoid": activations.hard_sigmoid(),
    "Elu": activations.elu(),
}
"""Ours for each of its own; their constants are as many as it has, alpha or alpha and beta."""

DEFAULTED = {"LeakyRelu", "HardSigmoid", "Elu"}
"""Those that may go without: the constants are then ours. (For Affine and ScaledTanh nobody says
what they are, and for ThresholdedRelu the standard says 1 where onnxruntime takes 0.)"""


def name_of(activation: Activation) -> tuple[str, tuple[float, ...]] | None:
    """Its name and constants for one of ours; None if it has no such function."""
    if activation == activations.identity:
        return "Affine", (1.0, 0.0)
    names = (n for n, known in ACTIVATIONS.items() if known.function is activation.function)
    name = next(names, None)
    return None if name is None else (name, activation.constants)
