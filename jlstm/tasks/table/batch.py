"""Windows of series, as the forecaster takes them.

It is apart from the model, so that what makes batches, in NumPy, need not import JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import PRNGKeyArray


class WindowBatch(NamedTuple):
    """Windows of series, time first, none with missing numbers but in ``targets``."""

    values: Float[Array | np.ndarray, "lookback batch"]
    series: Int[Array | np.ndarray, " batch"]
    """Which series each window is of."""
    past: Float[Array | np.ndarray, "lookback batch past"]
    known: Float[Array | np.ndarray, "lookback+horizon batch known"]
    about: Float[Array | np.ndarray, "batch about"]
    targets: Float[Array | np.ndarray, "horizon batch"] | None = None
    """What came; NaN does not count."""
    key: PRNGKeyArray | None = None
    """For the dropout; None for none."""
