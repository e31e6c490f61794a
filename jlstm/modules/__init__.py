"""LSTMs for models of other frameworks: their cells, walked through time by ``jlstm.lstm``.

One file for each framework, which it needs. The cell stays the framework's own, and so do the
names, shapes, tree and initial values of its parameters, and every checkpoint; replaced is what
scans it, under the name and with the arguments that it has there:

==========================  =====================================================================
``nn.RNN(cell)``            ``jlstm.modules.flax_linen.RNN(cell)``
``nnx.RNN(cell)``           ``jlstm.modules.flax_nnx.RNN(cell)``
``hk.dynamic_unroll(…)``    ``jlstm.modules.haiku.dynamic_unroll(…)``
``lax.scan`` of an          ``jlstm.modules.equinox.scan(cell, init, xs)``
``eqx.nn.LSTMCell``
==========================  =====================================================================

Weights are brought into our layout inside the call. Options of ``jlstm.lstm`` (``residuals``,
``derivative``, ``compute_dtype`` …) are handed on.
"""

from functools import partial

from jlstm.extras import file_in

__getattr__ = partial(file_in, __name__)
