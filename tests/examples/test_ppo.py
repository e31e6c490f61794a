"""The example of recurrent PPO: its maze, its batches, and that it learns to remember."""

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from witness import assert_trees_agree

import jlstm
from examples import ppo
from examples.ppo import CORES, Batch, Config, Core, Maze

SMALL = Config(mazes=32, steps=64, hidden=32)
TINY = Config(mazes=6, steps=50, hidden=8, parts=2)


@pytest.fixture(autouse=True)
def _as_users_run_it() -> Any:
    """In float32, with dtypes promoted."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A maze that is quickly learnt."""
    monkeypatch.setattr(ppo, "LENGTH", 5)
    monkeypatch.setattr(ppo, "PATIENCE", 15)


def walk(maze: Maze, turn: Any) -> tuple[list[Any], Any, Any]:
    """Straight on to the junction, then this turn."""
    seen = []
    for _ in range(ppo.LENGTH):
        seen.append(ppo.look(maze))
        maze, reward, over = ppo.act(maze, jnp.full_like(maze.goal, ppo.FORWARD))
        assert not reward.any()
        assert not over.any()
    seen.append(ppo.look(maze))
    _, reward, over = ppo.act(maze, turn)
    return seen, reward, over


def test_who_remembers_wins_and_who_guesses_wins_half() -> None:
    maze = ppo.enter(jax.random.key(0), 1000)
    seen, reward, over = walk(maze, maze.goal)
    assert (reward == 1).all()
    assert over.all()
    # The signal is seen at the start; from then on all see the same.
    assert (seen[0].argmax(axis=-1) == maze.goal - ppo.LEFT).all()
    assert all((sight == sight[0]).all() for sight in seen[1:])
    _, reward, _ = walk(maze, jnp.full_like(maze.goal, ppo.LEFT))
    assert abs(reward.mean()) < 0.1  # three standard errors


def test_who_waits_too_long_loses() -> None:
    maze = ppo.enter(jax.random.key(0), 3)
    for _ in range(ppo.PATIENCE):
        maze, reward, over = ppo.act(maze, jnp.full_like(maze.goal, ppo.LEFT))
    assert (reward == -1).all()
    assert over.all()


def batch_of(core: Core, config: Config = TINY) -> tuple[Any, Any, Any]:
    """A policy that has played before, its batch, and the carry that it began with."""
    learner, _, _ = ppo.play(config, core, ppo.begin(config, core))
    return learner, *ppo.play(config, core, learner)[1:]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", CORES)
def test_what_is_learnt_from_is_what_happened(name: str) -> None:
    """Resets inside the batch: unrolled at once, a policy thinks what it thought step by step."""
    if name == "flax":
        pytest.importorskip("flax")
    core = CORES[name]()
    learner, batch, _ = batch_of(core)
    assert batch.begins[1:].any()  # episodes begin inside the batch
    hs = core.unroll(learner.policy.core, learner.carry, batch.xs, batch.begins)
    logs, values = ppo.judge(learner.policy, hs)
    log = jnp.take_along_axis(logs, batch.actions[..., None], axis=-1)[..., 0]
    assert_trees_agree((log, values), (batch.logs, batch.values), 1e-5)  # float32
    without = core.unroll(learner.policy.core, learner.carry, batch.xs, 0 * batch.begins == 1)
    assert abs(without - hs).max() > 1e-3


@pytest.mark.usefixtures("short")
def test_the_gradient_is_that_of_the_plain_scan() -> None:
    learner, batch, after = batch_of(CORES["jlstm"]())
    gains = ppo.advantages(TINY, batch, after)

    def gradient(name: str) -> Any:
        run = jax.jit(jax.grad(partial(ppo.loss, config=TINY, core=CORES[name]())))
        return run(learner.policy, carry=learner.carry, batch=batch, gains=gains)

    assert_trees_agree(gradient("jlstm"), gradient("scan"), 1e-5)  # float32


@pytest.mark.usefixtures("short")
def test_an_update_follows_the_gradient_of_its_batch() -> None:
    """With one part of all mazes and one epoch, it is one step of the optimiser."""
    config, core = TINY._replace(epochs=1, parts=1), CORES["jlstm"]()
    before, _, _ = ppo.play(config, core, ppo.begin(config, core))
    found, mean = ppo.update(config, core, before)
    after, batch, value = ppo.play(config, core, before)
    gains = ppo.advantages(config, batch, value)
    gradient = jax.grad(ppo.loss)(before.policy, config, core, before.carry, batch, gains)
    change, _ = ppo.optimizer(config).update(gradient, before.moments)
    expected = optax.apply_updates(before.policy, change)
    assert_trees_agree(found.policy, expected, 1e-4)  # float32, and Adam divides by small numbers
    assert_trees_agree((found.maze, found.carry), (after.maze, after.carry), 1e-5)
    ended = np.asarray(batch.over)
    assert mean == pytest.approx(float(np.asarray(batch.rewards)[ended].mean()))


def test_advantages_are_sums_of_what_was_not_expected() -> None:
    """Σ (γλ)^k·δ_{t+k}, up to the end of the episode."""
    draw = np.random.default_rng(0)
    rewards, values = draw.standard_normal((2, 9))
    over, after = draw.random(9) < 0.3, 0.7
    assert over.any()
    config = Config()
    expected = np.zeros(9)
    for t in range(9):
        weight = 1.0
        for k in range(t, 9):
            value_after = values[k + 1] if k < 8 else after
            error = rewards[k] - values[k] + (0 if over[k] else config.discount * value_after)
            expected[t] += weight * error
            weight *= config.discount * config.decay
            if over[k]:
                break
    empty = jnp.zeros((9, 1))
    given = {"rewards": rewards, "values": values, "over": over}
    batch = Batch(*[empty] * 7)._replace(**{n: jnp.asarray(a)[:, None] for n, a in given.items()})
    found = ppo.advantages(config, batch, jnp.array([after]))
    assert_trees_agree(found[:, 0], expected, 1e-6)


def without_memory(core: Core) -> Core:
    """The same, its carry taken away before every step."""

    def step(weights: Any, carry: jlstm.Carry, x: Any) -> Any:
        return core.step(weights, jax.tree.map(jnp.zeros_like, carry), x)

    return core._replace(step=step)


@pytest.mark.usefixtures("short")
def test_it_learns_what_cannot_be_done_without_memory() -> None:
    """The best that can be reached without is 0: whatever one does, the goal is either way."""
    progress = ppo.train(SMALL, ["jlstm"], updates=40)["jlstm"]
    assert np.mean(progress.returns[:3]) < 0.2
    assert np.mean(progress.returns[-5:]) > 0.8
    _, batch, _ = ppo.play(SMALL, without_memory(CORES["jlstm"]()), progress.learner)
    assert batch.rewards.sum() / batch.over.sum() < 0.3


@pytest.mark.slow
def test_two_in_turn_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("flax")
    given = ["--cores", "jlstm", "flax", "--updates", "2", "--hidden", "8"]
    monkeypatch.setattr(sys, "argv", ["ppo.py", *given])
    ppo.main()
    told = capsys.readouterr().out
    assert "8,192 frames, mean return: jlstm " in told
    assert "jlstm: " in told
    assert "flax: " in told
    assert told.count("frames per second") == 2
