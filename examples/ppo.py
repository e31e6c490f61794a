"""Recurrent PPO in JAX: an LSTM policy that has to remember, with resets inside the batch.

The task is a T-maze (Bakker 2002): a signal at the start says where the goal will be, a corridor
follows that looks the same everywhere, and at its end one has to turn left or right. Who does not
remember the signal can only guess.

::

    python examples/ppo.py                        # needs jax, optax and jlstm
    python examples/ppo.py --cores jlstm flax     # the same beside Flax's cell in lax.scan

A batch is so many steps of so many mazes, in which episodes end and begin anywhere. ``jlstm.lstm``
takes it whole: ``resets`` says where they begin. PPO: Schulman et al. 2017; its advantages:
Schulman et al. 2016.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

import jlstm
from jlstm import Carry

# The maze

FORWARD, LEFT, RIGHT = range(3)
LENGTH = 20
PATIENCE = 3 * LENGTH
"""Steps after which an episode is lost."""
SIGHTS = 4
"""What can be seen: the signal for left, the one for right, corridor, junction."""


class Maze(NamedTuple):
    """Where an episode is, ``[mazes]`` each."""

    place: Array
    """Steps from the start; LENGTH is the junction."""
    goal: Array
    """LEFT or RIGHT."""
    age: Array
    """Steps taken."""


def enter(key: Array, mazes: int) -> Maze:
    """New episodes."""
    zeros = jnp.zeros(mazes, jnp.int32)
    return Maze(zeros, jax.random.randint(key, (mazes,), LEFT, RIGHT + 1, jnp.int32), zeros)


def look(maze: Maze) -> Array:
    """What is seen, one of SIGHTS: ``[mazes, SIGHTS]``. The signal only at the start."""
    start, junction = maze.place == 0, maze.place == LENGTH
    sight = jnp.where(start, maze.goal - LEFT, jnp.where(junction, 3, 2))
    return jax.nn.one_hot(sight, SIGHTS, dtype=jnp.float32)


def act(maze: Maze, action: Array) -> tuple[Maze, Array, Array]:
    """One step: the maze after it, the reward, and whether the episode is over.

    The right turn at the junction is worth 1, the wrong one and too many steps −1.
    """
    junction, turns = maze.place == LENGTH, action != FORWARD
    turned, age = junction & turns, maze.age + 1
    over = turned | (age == PATIENCE)
    reward = jnp.where(turned & (action == maze.goal), 1.0, -1.0) * over
    place = jnp.minimum(maze.place + ~turns, LENGTH)
    return Maze(place, maze.goal, age), reward, over


# The policy: an LSTM, and two linear maps of what it gives


class Core(NamedTuple):
    """An LSTM: what is compared."""

    init: Callable[[Array, int, int], Any]
    """(key, inputs, hidden) -> weights."""
    step: Callable[[Any, Carry, Array], tuple[Carry, Array]]
    """(weights, carry, x) -> (carry, h): to act."""
    unroll: Callable[[Any, Carry, Array, Array], Array]
    """(weights, carry, xs, resets) -> hs: to learn from what happened."""


def jlstm_core() -> Core:
    """Ours: the batch in one call, its derivative by hand."""

    def unroll(weights: Any, carry: Carry, xs: Array, resets: Array) -> Array:
        return jlstm.lstm(weights, carry, xs, resets=resets)[1]

    return Core(jlstm.init_params, jlstm.cell, unroll)


def scan_core() -> Core:
    """The same cell in ``lax.scan``, as one writes it by hand."""
    return Core(jlstm.init_params, jlstm.cell, scanned(jlstm.cell))


def flax_core() -> Core:
    """Flax's cell in ``lax.scan``."""
    import flax.linen as nn

    def init(key: Array, inputs: int, hidden: int) -> Any:
        zeros = jnp.zeros(hidden)
        return nn.OptimizedLSTMCell(hidden).init(key, (zeros, zeros), jnp.zeros(inputs))

    def step(weights: Any, carry: Carry, x: Array) -> tuple[Carry, Array]:
        cell = nn.OptimizedLSTMCell(carry.h.shape[-1])
        (c, h), _ = cell.apply(weights, (carry.c, carry.h), x)
        return Carry(h, c), h

    return Core(init, step, scanned(step))


def scanned(step: Callable[..., Any]) -> Callable[..., Array]:
    """An ``unroll`` made of a step: the carry is put to 0 where an episode begins."""

    def unroll(weights: Any, carry: Carry, xs: Array, resets: Array) -> Array:
        def body(carry: Carry, now: tuple[Array, Array]) -> Any:
            x, reset = now
            return step(weights, forget(carry, reset), x)

        hs: Array = lax.scan(body, carry, (xs, resets))[1]
        return hs

    return unroll


CORES = {"jlstm": jlstm_core, "scan": scan_core, "flax": flax_core}


def forget(carry: Carry, reset: Array) -> Carry:
    """The carry, 0 where an episode begins."""
    return Carry(*(jnp.where(reset[:, None], 0.0, a) for a in carry))


class Policy(NamedTuple):
    """All weights."""

    core: Any
    actor: Array
    """``[hidden, 3]``: h to the logits of the actions. Small, so that all are tried at first."""
    critic: Array
    """``[hidden, 1]``: h to the return that is expected."""


def judge(policy: Policy, hs: Array) -> tuple[Array, Array]:
    """Log-probabilities of the actions, and the return that is expected."""
    return jax.nn.log_softmax(hs @ policy.actor), (hs @ policy.critic)[..., 0]


# PPO


class Config(NamedTuple):
    """What may be turned."""

    mazes: int = 64
    steps: int = 128
    """In a batch, of each maze."""
    hidden: int = 128
    epochs: int = 4
    """How often a batch is learnt from."""
    parts: int = 4
    """In which it is cut for that, by mazes."""
    rate: float = 1e-3
    discount: float = 0.98
    decay: float = 0.95
    """λ of the advantages."""
    clip: float = 0.2
    """How far the probability of an action may move, as a ratio."""
    entropy: float = 0.003
    """The weight of the entropy: how long to try things out."""


class Learner(NamedTuple):
    """All that changes."""

    policy: Policy
    moments: Any
    """Of the optimiser."""
    maze: Maze
    begins: Array
    """Whether the next step is the first of its episode, ``[mazes]``."""
    carry: Carry
    key: Array


class Batch(NamedTuple):
    """What happened, ``[steps, mazes]`` each."""

    xs: Array
    """``[steps, mazes, SIGHTS]``."""
    begins: Array
    actions: Array
    logs: Array
    """Log-probabilities of these actions when they were taken."""
    values: Array
    """Returns that were expected."""
    rewards: Array
    over: Array


def optimizer(config: Config) -> optax.GradientTransformation:
    """Adam with clipped gradients."""
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config.rate))


def begin(config: Config, core: Core, seed: int = 0) -> Learner:
    """A fresh policy before new mazes."""
    key, a, b, c, d = jax.random.split(jax.random.key(seed), 5)
    policy = Policy(
        core.init(a, SIGHTS, config.hidden),
        0.01 * jax.random.normal(b, (config.hidden, 3)),
        0.1 * jax.random.normal(c, (config.hidden, 1)),
    )
    return Learner(
        policy,
        optimizer(config).init(policy),
        enter(d, config.mazes),
        jnp.ones(config.mazes, bool),
        jlstm.init_carry((config.mazes,), config.hidden),
        key,
    )


def play(config: Config, core: Core, learner: Learner) -> tuple[Learner, Batch, Array]:
    """A batch of steps by this policy; besides, the return expected after the last of them."""
    policy = learner.policy

    def decide(maze: Maze, begins: Array, carry: Carry) -> Any:
        x = look(maze)
        carry, h = core.step(policy.core, forget(carry, begins), x)
        return x, carry, *judge(policy, h)

    def body(state: Any, key: Array) -> tuple[Any, Batch]:
        maze, begins, carry = state
        x, carry, logs, value = decide(maze, begins, carry)
        a, b = jax.random.split(key)
        action = jax.random.categorical(a, logs)
        log = jnp.take_along_axis(logs, action[:, None], axis=1)[:, 0]
        maze, reward, over = act(maze, action)
        fresh = enter(b, config.mazes)
        maze = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, maze)
        return (maze, over, carry), Batch(x, begins, action, log, value, reward, over)

    key, *keys = jax.random.split(learner.key, config.steps + 1)
    state = learner.maze, learner.begins, learner.carry
    state, batch = lax.scan(body, state, jnp.stack(keys))
    *_, after = decide(*state)
    maze, begins, carry = state
    learner = learner._replace(maze=maze, begins=begins, carry=carry, key=key)
    return learner, batch, after


def advantages(config: Config, batch: Batch, after: Array) -> Array:
    """How much better than expected each action turned out to be (generalised advantages).

    A_t = δ_t + γλ·A_{t+1}, with δ_t = r_t + γ·v_{t+1} − v_t, where nothing comes after the end.
    """

    def body(later: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        reward, over, value, after = now
        error = reward + config.discount * after * ~over - value
        later = error + config.discount * config.decay * later * ~over
        return later, later

    values = jnp.concatenate([batch.values[1:], after[None]])
    steps = batch.rewards, batch.over, batch.values, values
    return lax.scan(body, jnp.zeros_like(after), steps, reverse=True)[1]


def loss(
    policy: Policy, config: Config, core: Core, carry: Carry, batch: Batch, gains: Array
) -> Array:
    """PPO's loss: the clipped gain of the actions, the error of the expectations, the entropy."""
    hs = core.unroll(policy.core, carry, batch.xs, batch.begins)
    logs, values = judge(policy, hs)
    log = jnp.take_along_axis(logs, batch.actions[..., None], axis=-1)[..., 0]
    ratio = jnp.exp(log - batch.logs)
    clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    gain = jnp.minimum(ratio * gains, clipped * gains).mean()
    error = ((values - (gains + batch.values)) ** 2).mean()
    entropy = -(jnp.exp(logs) * logs).sum(axis=-1).mean()
    return 0.5 * error - gain - config.entropy * entropy


@partial(jax.jit, static_argnums=(0, 1))
def update(config: Config, core: Core, learner: Learner) -> tuple[Learner, Array]:
    """Play a batch and learn from it: the learner after that, and the mean return it had."""
    start = learner.carry
    learner, batch, after = play(config, core, learner)
    gains = advantages(config, batch, after)

    def learn(state: Any, mazes: Array) -> tuple[Any, None]:
        policy, moments = state
        part = jax.tree.map(lambda a: a[:, mazes], (batch, gains))
        own = jax.tree.map(lambda a: a[mazes], start)
        gradient = jax.grad(loss)(policy, config, core, own, *part)
        change, moments = optimizer(config).update(gradient, moments)
        return (optax.apply_updates(policy, change), moments), None

    key, *keys = jax.random.split(learner.key, config.epochs + 1)
    orders = [jax.random.permutation(k, config.mazes).reshape(config.parts, -1) for k in keys]
    state, _ = lax.scan(learn, (learner.policy, learner.moments), jnp.concatenate(orders))
    mean = batch.rewards.sum() / jnp.maximum(batch.over.sum(), 1)  # rewards come at the end only
    return learner._replace(policy=state[0], moments=state[1], key=key), mean


class Progress(NamedTuple):
    """How far one policy has come."""

    learner: Learner
    returns: list[float]
    """The mean return of each update's batch."""
    seconds: list[float]
    """What each update took; compiling is not counted."""


def train(
    config: Config,
    cores: Sequence[str],
    updates: int,
    seed: int = 0,
    tell: Callable[[dict[str, Progress]], None] = lambda _: None,
) -> dict[str, Progress]:
    """Train a policy for each of the cores, an update of each in turn, and measure them so."""
    made = {name: CORES[name]() for name in cores}
    all_of_them = {name: Progress(begin(config, core, seed), [], []) for name, core in made.items()}
    ready = {
        name: update.lower(config, core, all_of_them[name].learner).compile()
        for name, core in made.items()
    }
    for _ in range(updates):
        for name, (learner, returns, seconds) in all_of_them.items():
            start = time.perf_counter()
            learner, mean = ready[name](learner)
            returns.append(float(mean))  # which waits for it
            seconds.append(time.perf_counter() - start)
            all_of_them[name] = Progress(learner, returns, seconds)
        tell(all_of_them)
    return all_of_them


def frames_per_second(config: Config, progress: Progress) -> float:
    """Steps of all mazes in a second, played and learnt from, by the median update."""
    middle = sorted(progress.seconds)[len(progress.seconds) // 2]
    return config.mazes * config.steps / middle


def main() -> None:
    """Train, and say how it goes."""
    parser = argparse.ArgumentParser(description="Recurrent PPO on a T-maze.")
    parser.add_argument("--cores", nargs="+", choices=[*CORES], default=["jlstm"])
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=Config().hidden)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    config = Config(hidden=asked.hidden)

    def tell(found: dict[str, Progress]) -> None:
        done = len(next(iter(found.values())).returns)
        if done % 10 == 0 or done == 1:
            means = (f"{name} {p.returns[-1]:+.2f}" for name, p in found.items())
            frames = done * config.mazes * config.steps
            print(f"{frames:9,} frames, mean return: {', '.join(means)}")

    found = train(config, asked.cores, asked.updates, asked.seed, tell)
    for name, progress in found.items():
        print(f"{name}: {frames_per_second(config, progress):,.0f} frames per second")


if __name__ == "__main__":
    main()
