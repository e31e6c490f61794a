# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A policy that remembers: recurrent PPO with resets inside the batch
#
# An agent that cannot see all it has to know needs a memory. Trained with an LSTM, it learns from
# batches of steps in which episodes end and begin anywhere, and there the memory has to be wiped:
# forward, and in the derivative as well. This lecture shows that one argument, `resets`, does it,
# and what is gained over a cell in `lax.scan`.
#
# 1. A task that needs memory
# 2. Resets inside the batch
# 3. What to learn from
# 4. Learning
# 5. Frames per second
# 6. Exercises
#
# The program is [`examples/ppo.py`](../examples/ppo.py); here it is taken apart.

# %%
import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import Image, display

import jlstm
from examples import ppo
from jlstm.plots import BLUE, GREY, new_figure

config = ppo.Config(hidden=64)


def largest_difference(actual, expected):
    """Over all arrays, relative to the largest number of each."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    return max(float(abs(a - e).max() / abs(e).max()) for a, e in pairs)


# %% [markdown]
# ## 1. A task that needs memory
#
# In a T-maze a signal at the start says on which side the goal is. A corridor follows that looks
# the same everywhere, and at its end one has to turn. The right turn is worth 1; the wrong one, or
# never getting there, −1.

# %%
maze = ppo.enter(jax.random.key(0), 4)
print("goals:", maze.goal, "\nseen: ", ppo.look(maze).argmax(axis=-1))
for _ in range(ppo.LENGTH):
    maze, reward, over = ppo.act(maze, jnp.full(4, ppo.FORWARD))
assert len({*np.asarray(ppo.look(maze).argmax(axis=-1))}) == 1  # at the junction all look alike

# %% [markdown]
# Who remembers the signal always wins. **Without memory nobody can have a mean return above 0**:
# what is seen at the junction says nothing about the goal, so any turn is right half of the time.

# %%
_, reward, over = ppo.act(maze, maze.goal)
assert (reward == 1).all()
assert over.all()

many = ppo.enter(jax.random.key(1), 10_000)._replace(place=jnp.full(10_000, ppo.LENGTH))
_, guessed, _ = ppo.act(many, jnp.full(10_000, ppo.LEFT))
assert abs(guessed.mean()) < 0.04  # four standard errors

# %% [markdown]
# ## 2. Resets inside the batch
#
# To act, the policy takes a step of the cell. To learn, it goes once more over all that happened: a
# batch of so many steps of so many mazes, in which an episode may begin anywhere.

# %%
core = ppo.jlstm_core()
learner, _, _ = ppo.play(config, core, ppo.begin(config, core))
_, batch, after = ppo.play(config, core, learner)
first, *others = np.flatnonzero(batch.begins[:, 0])
print(f"{int(batch.begins.sum())} episodes begin in this batch of {config.steps} steps")
assert 0 < first < config.steps

# %% [markdown]
# `jlstm.lstm(weights, carry, xs, resets=begins)` is the whole batch in one call. Where `resets` is
# True the carry becomes 0 before that step, so that nothing gets from one episode into the next, no
# gradient either. It is the same as to cut the sequence into episodes:

# %%
weights, xs = learner.policy.core, batch.xs[:, :1]
carry = jax.tree.map(lambda a: a[:1], learner.carry)
_, hs = jlstm.lstm(weights, carry, xs, resets=batch.begins[:, :1])
_, before = jlstm.lstm(weights, carry, xs[:first])
end = others[0] if others else config.steps
_, one_episode = jlstm.lstm(weights, None, xs[first:end])
assert largest_difference((hs[:first], hs[first:end]), (before, one_episode)) < 1e-5

# %% [markdown]
# And it is what the policy thought when it acted, step by step. PPO needs just that: the ratio of
# an action's probability now to what it was then starts at 1. A batch without its resets would
# start somewhere else, and learn from what never happened.

# %%


def ratio(resets):
    hs = core.unroll(learner.policy.core, learner.carry, batch.xs, resets)
    logs, _ = ppo.judge(learner.policy, hs)
    log = jnp.take_along_axis(logs, batch.actions[..., None], axis=-1)[..., 0]
    return jnp.exp(log - batch.logs)


with_resets, without = ratio(batch.begins), ratio(jnp.zeros_like(batch.begins))
print(f"off by {abs(with_resets - 1).max():.0e} with resets, {abs(without - 1).max():.0e} without")
assert abs(with_resets - 1).max() < 1e-5 < abs(without - 1).max()

# %% [markdown]
# ## 3. What to learn from
#
# How much better than expected did an action turn out to be? With the error
# $\delta_t = r_t + \gamma v_{t+1} - v_t$ of the expectation $v$, where nothing comes after the end
# of an episode,
#
# $$A_t = \delta_t + \gamma\lambda A_{t+1} = \sum_k (\gamma\lambda)^k\, \delta_{t+k}$$
#
# up to that end. With λ = 1 it is simply what was gained, less what was expected: for the last
# episode that ends in the batch, the discounted reward.

# %%
gains = ppo.advantages(config._replace(decay=1.0), batch, after)
last = np.flatnonzero(batch.over[:, 0])[-1]
t = np.arange(max(first, last - 5), last + 1)
gained = config.discount ** (last - t) * batch.rewards[last, 0]
assert np.allclose(gains[t, 0], gained - batch.values[t, 0], atol=1e-5)

# %% [markdown]
# PPO goes up the gradient of $\min(\rho A, \mathrm{clip}(\rho, 1 \pm 0.2) A)$, with ρ the ratio
# from above: it stops where a policy has moved too far from the one that acted. The gradient goes
# through all steps of the batch, in one call of the rule derived by hand. It is that of the same
# cell in `lax.scan`, left to autodiff:

# %%
gains = ppo.advantages(config, batch, after)


def gradient(core):
    loss = partial(ppo.loss, config=config, core=core, carry=learner.carry)
    return jax.jit(jax.grad(loss))(learner.policy, batch=batch, gains=gains)


assert largest_difference(gradient(core), gradient(ppo.scan_core())) < 1e-4  # in float32

# %% [markdown]
# ## 4. Learning
#
# Two policies that differ in nothing but how the LSTM is computed when they learn, an update of
# each in turn.

# %%
found = ppo.train(config, ["jlstm", "scan"], updates=40)

figure = new_figure(6, 3)
axes = figure.add_subplot()
for (name, progress), colour in zip(found.items(), (BLUE, GREY), strict=True):
    axes.plot(progress.returns, color=colour, label=name)
axes.axhline(0, color="black", linewidth=0.5)
axes.set(xlabel="updates", ylabel="mean return; 0: the best without memory")
axes.legend()
with io.BytesIO() as picture:
    figure.savefig(picture, format="png")
    display(Image(picture.getvalue()))
assert all(np.mean(progress.returns[-5:]) > 0.6 for progress in found.values())

# %% [markdown]
# That it remembers can be seen by taking its memory away. The same weights, with a carry of 0 at
# every step, can only guess:

# %%


def step_without_memory(weights, carry, x):
    return jlstm.cell(weights, jax.tree.map(jnp.zeros_like, carry), x)


learner = found["jlstm"].learner
_, batch, _ = ppo.play(config, core._replace(step=step_without_memory), learner)
mean = batch.rewards.sum() / batch.over.sum()
print(f"mean return without memory: {mean:+.2f}")
assert mean < 0.3

# %% [markdown]
# ## 5. Frames per second
#
# Steps of all mazes, played and learnt from. Acting is the same for both, step by step; what
# differs is the gradient. (`python examples/ppo.py --cores jlstm flax` is the same beside Flax's
# cell.)

# %%
for name, progress in found.items():
    print(f"{name}: {ppo.frames_per_second(config, progress):,.0f} frames per second")
assert all(progress.seconds for progress in found.values())  # who is faster depends on the machine

# %% [markdown]
# ## 6. Exercises
#
# 1. Make the corridor longer. How far does the policy get with batches of 128 steps? What happens
#    with batches shorter than the corridor, where no gradient gets from the turn to the signal?
# 2. Let the carry after a reset be learnt: `reset_to` of `jlstm.lstm` is differentiable.
# 3. Hand `residuals="chunks"` to `jlstm.lstm` in `jlstm_core`. What does it cost, what does it
#    save?
