"""The mean loss over a whole data set."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax

from jlstm.checks import check_function
from jlstm.train.step import LossFn

Evaluate = Callable[[Any, Any, Iterable[Any]], float]
"""``(params, carry, batches) -> mean loss``."""


def make_evaluate(loss_fn: LossFn, count: Callable[[Any], float]) -> Evaluate:
    """The function ``evaluate(params, carry, batches)``: the mean loss over all items.

    With n_k = count(batch_k) and L_k the mean over the batch that ``loss_fn`` returns::

        (Σ_k n_k·L_k) / (Σ_k n_k)

    so a small last batch weighs no more than its items do, and how the data is cut into batches has
    no influence. The carry goes from each batch to the next. Each batch shape compiles once for as
    long as the function returned is kept.

    Args:
        loss_fn: any pure function ``(params, carry, batch) -> (loss, carry)`` whose loss is a mean.
        count: how many items that mean was taken over.

    Raises:
        TypeError: ``loss_fn`` or ``count`` is no function.
        ValueError: (by ``evaluate``) there is nothing in ``batches``.
    """
    check_function("loss_fn", loss_fn)
    check_function("count", count)
    compiled = jax.jit(loss_fn)

    def evaluate(params: Any, carry: Any, batches: Iterable[Any]) -> float:
        losses, counts = [], []
        for batch in batches:
            loss, carry = compiled(params, carry, batch)
            # One program at a time: on a CPU with as many devices as cores, several that sum over
            # the devices can wait for one another's threads forever.
            losses.append(float(loss))
            counts.append(count(batch))
        if not sum(counts):
            raise ValueError("batches: expected at least one item to evaluate on, got none")
        # Summed in Python's float64.
        weighted = [n * x for n, x in zip(counts, losses, strict=True) if n]
        return math.fsum(weighted) / math.fsum(counts)

    return evaluate
