"""A trained model carried elsewhere: to ONNX, to StableHLO, to NumPy and to PyTorch."""

from jlstm.exporting.folder import export

__all__ = ["export"]
