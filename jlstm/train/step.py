"""One step of training, of any loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jlstm.checks import check_flag, check_function
from jlstm.train.state import TrainState, check_optimizer

LossFn = Callable[[Any, Any, Any], tuple[Float[Array, ""], Any]]
"""``(params, carry, batch) -> (loss, carry)``: any pure function of three pytrees."""

Metrics = dict[str, Float[Array, ""]]
"""``loss``, and ``grad_norm``: the length of the gradient before the optimiser clips it."""

TrainStep = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def make_train_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, *, skip_not_finite: bool = False
) -> TrainStep:
    """The jitted function ``step(state, batch) -> (state, metrics)`` that trains by ``loss_fn``.

    One step is::

        (L, carry') = loss_fn(params, carry, batch)      g = ∂L/∂params
        (u, opt_state') = optimizer.update(g, opt_state, params)      params' = params + u

    The carry goes from each step to the next as a value: the gradient of a step ends where its
    batch begins, which is truncated back-propagation through time. Batches of the same shapes and
    dtypes compile once. The state given is donated: its memory becomes that of the state returned,
    and it cannot be used again. The metrics stay on the device, so that no step waits for another.

    Args:
        loss_fn: any pure function ``(params, carry, batch) -> (loss, carry)``, a scalar and the
            carry for the next batch, in structure, shapes and dtypes like the one it was given; a
            loss without memory passes its carry (None) on.
        optimizer: of optax; clipping belongs in it, see ``make_optimizer``.
        skip_not_finite: whether a step whose loss, gradient or new parameters are NaN or infinite
            changes nothing but the count of steps. The metrics tell of it: one of them is not
            finite.

    Raises:
        TypeError: ``loss_fn`` is no function, or ``optimizer`` none of optax.
        TypeError, ValueError: (when the step is traced) ``loss_fn`` returns something else.
    """
    check_function("loss_fn", loss_fn)
    check_optimizer(optimizer)
    check_flag("skip_not_finite", skip_not_finite)

    def checked(params: Any, carry: Any, batch: Any) -> tuple[Array, Any]:
        result: Any = loss_fn(params, carry, batch)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"loss_fn: expected it to return (loss, carry), got {type(result).__name__}"
            )
        loss, new_carry = result
        if jnp.shape(loss) != () or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
            raise ValueError(
                "loss_fn: expected a scalar floating-point loss, got "
                f"{jnp.result_type(loss)} of shape {jnp.shape(loss)}"
            )
        return loss, like("loss_fn's carry", new_carry, carry)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        gradient = jax.value_and_grad(checked, has_aux=True)
        (loss, carry), grads = gradient(state.params, state.carry, batch)
        # optax counts on mixed dtypes being promoted, which a user may have forbidden elsewhere.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        opt_state = like("the optimizer's state", opt_state, state.opt_state)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        new = TrainState(params, opt_state, carry, state.step + 1)
        if skip_not_finite:
            # Adam can make infinite parameters of a finite gradient: that is no good step, either.
            whole = jnp.isfinite(optax.tree.norm(params))
            metrics["grad_norm"] = jnp.where(whole, metrics["grad_norm"], jnp.inf)
            good = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
            new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state)
            new = new._replace(step=state.step + 1)
        return new, metrics

    # jax annotates what it returns as a callable of anything.
    return jax.jit(step, donate_argnums=0)


def like(name: str, new: Any, old: Any) -> Any:
    """``new``; raise unless it has the structure, shapes and dtypes of ``old``.

    Otherwise the next step would be another program, and be compiled again without a word.
    """
    got: Any = jax.tree.structure(new)
    expected: Any = jax.tree.structure(old)
    if got != expected:
        raise ValueError(f"{name}: expected {expected} as at the start, got {got}")

    def leaf(path: Any, new: Any, old: Array) -> Array:
        form = jnp.shape(new), jnp.result_type(new)
        if form != (old.shape, old.dtype):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)}: expected {old.dtype} of shape {old.shape} as "
                f"at the start, got {form[1]} of shape {form[0]}"
            )
        # To the same dtype, but never a weak one (see `own`).
        is_key = jnp.issubdtype(old.dtype, jax.dtypes.prng_key)
        return new if is_key else jnp.asarray(new, old.dtype)

    return jax.tree_util.tree_map_with_path(leaf, new, old)
