"""Padded sequences, as the labeller takes them.

It is apart from the model, so that what makes batches, in NumPy, need not import JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import PRNGKeyArray


class SequenceBatch(NamedTuple):
    """Sequences padded to one length, and what they are to be labelled with."""

    xs: Float[Array | np.ndarray, "time batch input"]
    lengths: Int[Array | np.ndarray, " batch"]
    """Steps that count; 0 for a sequence that only fills up the batch."""
    targets: Array | np.ndarray
    """A class for each sequence, int ``[batch]``, or for each step, int ``[time, batch]``; or a
    number for each sequence, float ``[batch]``."""
    weights: Array | np.ndarray
    """How much each target counts, float, of the shape of ``targets``; 0 at padding."""
    key: PRNGKeyArray | None = None
    """For the dropout; None for none."""
