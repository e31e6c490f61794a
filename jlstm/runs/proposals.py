"""What is searched for better options, and which ones to try next: Optuna's part in a search.

The options are proposed by its TPE sampler. Its median pruner is asked at each tenth of a training
(``search.py``), and holds its lowest validation loss so far against the median of what the others
had there. (Successive halving and Hyperband judge far earlier, when the learning rate has hardly
risen, and need many more trials than an evening has.)

What is proposed for a trial is a function of the seed and of the trials before it alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jlstm.checks import wrong
from jlstm.extras import require
from jlstm.runs.trials import Trial
from jlstm.tasks.config import Range, Space, Training

WARM = 2
"""Rungs before which the answer is yes: the learning rate has hardly risen."""


class Search(NamedTuple):
    """What is to be searched, for how long."""

    config: Training
    """The first trial."""
    files: tuple[Path, ...]
    space: Space
    trials: int
    minutes: float | None


def searched(config: Training, fixed: Sequence[str] = ()) -> Space:
    """What is searched of the options of a training.

    What it begins with is in the space, and what it shares with a run that it goes on from is not.

    Args:
        config: what is asked for.
        fixed: the options that are to stay as they are.

    Raises:
        ValueError: nothing is left.
    """
    stay = {*fixed, *(config.kept if config.from_ is not None else ())}
    space = {
        name: _with(among, getattr(config, name))
        for name, among in config.space.items()
        if name not in stay
    }
    if not space:
        raise wrong(
            ", ".join(config.space), "expected one of them left to be searched, got all of them"
        )
    return space


def _with(among: Range | tuple[Any, ...], value: Any) -> Range | tuple[Any, ...]:
    """The range or the choices, with this value among them."""
    if not isinstance(among, Range):
        return among if value in among else (*among, value)
    if among.log and not value > 0:
        return among._replace(low=value, log=False)
    return among._replace(low=min(among.low, value), high=max(among.high, value))


def propose(search: Search, trials: Sequence[Trial]) -> Any:
    """The next trial as Optuna has it: its ``params`` are a function of the seed and of the trials.

    Args:
        search: what is searched.
        trials: those that have ended.
    """
    tpe = optuna()
    states = tpe.trial.TrialState
    seed = np.random.SeedSequence([search.config.seed, len(trials)]).generate_state(1)[0]
    study = tpe.create_study(
        sampler=tpe.samplers.TPESampler(seed=int(seed)),
        pruner=tpe.pruners.MedianPruner(n_warmup_steps=WARM),
    )
    space = {name: _distribution(among) for name, among in search.space.items()}
    state = {"finished": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
    for trial in trials:
        ended = tpe.trial.create_trial(
            state=state[trial.status],
            value=trial.loss if trial.status != "failed" else None,
            params=dict(trial.options),
            distributions=space,
            intermediate_values=dict(trial.rungs),
        )
        study.add_trial(ended)
    if not trials:
        study.enqueue_trial({name: getattr(search.config, name) for name in space})
    return study.ask(space)


def _distribution(among: Range | tuple[Any, ...]) -> Any:
    distributions = optuna().distributions
    if not isinstance(among, Range):
        return distributions.CategoricalDistribution(among)
    whole = isinstance(among.low, int) and isinstance(among.high, int)
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    return kind(among.low, among.high, log=among.log)


def optuna() -> Any:
    """Optuna, which says nothing by itself.

    Raises:
        MissingExtraError: it is not installed.
    """
    found = require("optuna", "tune")
    found.logging.set_verbosity(found.logging.ERROR)
    return found
