"""ONNX: a stack as a model of native ``LSTM`` nodes, and such nodes as a stack."""

from jlstm.interop.onnx.exporting import add_lengths, add_stack, to_onnx
from jlstm.interop.onnx.importing import from_onnx

__all__ = ["add_lengths", "add_stack", "from_onnx", "to_onnx"]
