"""Training as pure functions: state, step, loop and evaluation of any ``loss_fn``."""

from jlstm.train.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from jlstm.train.evaluate import make_evaluate
from jlstm.train.interrupt import interrupt_flag
from jlstm.train.loop import Best, Book, Progress, fit
from jlstm.train.optimizer import make_optimizer
from jlstm.train.state import TrainState, init_train_state
from jlstm.train.step import make_train_step
from jlstm.train.weights import load_params, save_params

__all__ = [
    "Best",
    "Book",
    "Checkpoint",
    "Progress",
    "TrainState",
    "fit",
    "init_train_state",
    "interrupt_flag",
    "load_checkpoint",
    "load_params",
    "make_evaluate",
    "make_optimizer",
    "make_train_step",
    "save_checkpoint",
    "save_params",
]
