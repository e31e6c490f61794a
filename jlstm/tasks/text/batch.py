"""A window of token streams, as the language model takes it.

It is apart from the model, so that what makes batches, in NumPy, need not import JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import PRNGKeyArray


class TokenBatch(NamedTuple):
    """A window of token streams: what the model reads, and what it has to foretell.

    Only ``inputs`` and ``targets`` are needed. The carry of the window before goes on into this
    one, except where ``fresh`` says that a stream starts anew.
    """

    inputs: Int[Array | np.ndarray, time * batch]
    targets: Int[Array | np.ndarray, time * batch]
    """The tokens that follow ``inputs``."""
    weights: Float[Array | np.ndarray, time * batch] | None = None
    """1 where a target counts, 0 where it is padding; None where all count."""
    fresh: Bool[Array | np.ndarray, " *batch"] | None = None
    """True where the layer starts anew before the first step, with its own first carry: zeros, or
    what was learned. None for nowhere."""
    key: PRNGKeyArray | None = None
    """For the dropout; None for none."""
