"""The model in PyTorch."""

from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def load(model: Any, file: Any) -> Any:
    """The model with the weights of a file, to be used and not trained."""
    model.load_state_dict(load_file(file))
    return model.eval().requires_grad_(False)


class Text(nn.Module):
    """A language model."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int, tied: bool):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers)
        self.readout = nn.Linear(hidden, vocabulary)
        if tied:
            self.readout.weight = self.embedding.weight

    def forward(self, tokens: Any, h: Any = None, c: Any = None) -> dict[str, Any]:
        """Tokens [time, batch] to the logits of those that follow, and the state after them."""
        hs, (h, c) = self.lstm(self.embedding(tokens), None if h is None else (h, c))
        return {"logits": self.readout(hs), "h": h, "c": c}


class Table(nn.Module):
    """A forecaster."""

    def __init__(
        self, lookback: int, horizon: int, quantiles: int, median: int, patch: int, series: int,
        embedding: int, past: int, known: int, about: int, hidden: int, layers: int, width: int,
        linear: bool, calibrated: bool,
    ):  # fmt: skip
        super().__init__()
        self.lookback, self.horizon, self.median, self.patch = lookback, horizon, median, patch
        self.embedding = nn.Embedding(series, embedding) if series > 1 else None
        whole = about + (embedding if series > 1 else 0)
        self.lstm = nn.LSTM(patch * (1 + past + known) + whole, hidden, layers)
        self.hidden = nn.Linear(hidden + whole + horizon * known, width)
        self.readout = nn.Linear(width, horizon * quantiles)
        self.window = nn.Linear(lookback, horizon) if linear else None
        self.effect = nn.Linear(known, 1, bias=False) if linear and known else None
        self.calibrated = calibrated
        if calibrated:
            self.register_buffer("spread", torch.ones(series, horizon, quantiles))
            self.register_buffer("usual", torch.ones(series))
            self.register_buffer("power", torch.zeros(()))

    def forward(
        self, values: Any, series: Any, past: Any = None, known: Any = None, about: Any = None
    ) -> dict[str, Any]:
        """Windows to quantiles [horizon, batch, quantiles]."""
        steps, batch = self.lookback // self.patch, values.shape[1]
        window, now = values - values[-1], values[-1]
        whole = [] if self.embedding is None else [self.embedding(series)]
        whole += [] if about is None else [about]
        read = [window[..., None]] + ([] if past is None else [past])
        read += [] if known is None else [known[: self.lookback]]
        patches = torch.cat(read, -1)[self.lookback - steps * self.patch :]
        patches = patches.reshape(steps, self.patch, batch, -1).transpose(1, 2)
        everywhere = [one.expand(steps, *one.shape) for one in whole]
        hs, _ = self.lstm(torch.cat([patches.reshape(steps, batch, -1), *everywhere], -1))
        coming = [] if known is None else [known[self.lookback :]]
        future = [one.transpose(0, 1).reshape(batch, -1) for one in coming]
        m = torch.relu(self.hidden(torch.cat([hs[-1], *whole, *future], -1)))
        y = self.readout(m).reshape(batch, self.horizon, -1).transpose(0, 1)
        middle = now + y[..., self.median]
        if self.window is not None:
            middle = middle + self.window(window.T).T
        if self.effect is not None:
            middle = middle + self.effect(coming[0] - known[self.lookback - 1])[..., 0]
        middle, widths = middle[..., None], nn.functional.softplus(y)
        if self.calibrated:
            series = series.long()
            rough = values.diff(dim=0).abs().sum(0) / max(1, self.lookback - 1)
            ratio = (rough / self.usual[series]).clamp(1 / 4, 4)
            widths = widths * self.spread[series].transpose(0, 1) * (ratio**self.power)[:, None]
        below = widths[..., : self.median].flip(-1).cumsum(-1).flip(-1)
        above = widths[..., self.median + 1 :].cumsum(-1)
        return {"quantiles": torch.cat([middle - below, middle, middle + above], -1)}


class Sequences(nn.Module):
    """A labeller."""

    def __init__(
        self, columns: int, hidden: int, layers: int, bidirectional: bool, pooled: bool,
        outputs: int,
    ):  # fmt: skip
        super().__init__()
        self.pooled = pooled
        self.lstm = nn.LSTM(columns, hidden, layers, bidirectional=bidirectional)
        features = hidden * (2 if bidirectional else 1) * (3 if pooled else 1)
        self.readout = nn.Linear(features, outputs)

    def forward(self, xs: Any, lengths: Any) -> dict[str, Any]:
        """Sequences, of at least one step each, to the scores of each, or of each step."""
        packed = pack_padded_sequence(xs, lengths.cpu(), enforce_sorted=False)
        hs, _ = pad_packed_sequence(self.lstm(packed)[0], total_length=len(xs))
        if self.pooled:
            steps = torch.arange(len(xs), device=xs.device)[:, None, None]
            ends = torch.where(steps == lengths[:, None] - 1, hs, 0).sum(0)
            if self.lstm.bidirectional:
                ends = torch.cat([ends[:, : self.lstm.hidden_size],
                                  hs[0, :, self.lstm.hidden_size :]], -1)  # fmt: skip
            most = torch.where(steps < lengths[:, None], hs, -torch.inf).amax(0)
            hs = torch.cat([ends, hs.sum(0) / lengths[:, None], most], -1)
        return {"scores": self.readout(hs)}
