"""A differentiable stand-in for a detector that is none: trees on columns, followed by a small network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from heatprint.core.streams import torch_seed

HIDDEN, MINIBATCH = 32, 256
FIRST, AGAIN = 800, 60  # Adam's steps when it is fitted, and after each new answer of the detector
RATES = (3e-3, 1e-3)  # of Adam in either
DECAY = 1e-4
MOST = 4000  # rows remembered
LEAST = 1e-5  # a probability nearer to 0 or 1 is no clearer


class StandIn:
    """A network of two hidden layers on the detector's columns that follows its answers, and goes on learning.

    Trees are constant almost everywhere and have no gradient; a substitute that learns from their answers has (Papernot
    et al. 2017, "Practical black-box attacks against machine learning", section 4). It is asked about images no one
    has seen before, so each answer the detector gives during an attack is learned from, too.

    Args:
        families: Families of features it sees.
        outputs: Values to follow.
        seed: Of weights and minibatches.

    Attributes:
        families: As given.
        agreement: Spearman's correlation of its answers with those of the detector, on each lot of new images before
            it learned from them.
    """

    def __init__(self, families: Sequence[str], *, outputs: int = 1, seed: int = 0) -> None:
        self.families = tuple(families)
        self.agreement: list[float] = []
        self._outputs = outputs
        self._random = torch.Generator().manual_seed(torch_seed(seed, "evaluation/adaptive"))
        self._network: nn.Sequential | None = None
        self._tables: list[Tensor] = []
        self._targets: list[Tensor] = []

    def __call__(self, columns: Tensor) -> Tensor:
        """What it thinks the detector says, float32 [N, outputs], of columns [N, columns]; differentiable."""
        assert self._network is not None, "fit comes first"
        scaled = (columns.cpu() - self._middle) / self._spread
        out: Tensor = self._network(scaled.sign().detach() * scaled.abs().log1p())
        return out.to(columns.device)

    def fit(self, table: np.ndarray, targets: np.ndarray) -> None:
        """Learn from the start: columns [N, columns] and the detector's answers [N, outputs]."""
        low, middle, high = np.quantile(table, [0.1, 0.5, 0.9], axis=0)
        self._middle = torch.from_numpy(middle).float()
        self._spread = torch.from_numpy(np.maximum(high - low, 1e-4)).float()
        widths = [table.shape[1], HIDDEN, HIDDEN, self._outputs]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [self._linear(before, after), nn.Softplus()]
        self._network = nn.Sequential(*layers[:-1])
        self._remember(table, targets)
        self._train(FIRST, RATES[0])

    def learn(self, table: np.ndarray, targets: np.ndarray) -> None:
        """Learn from a few more answers; what it thought of them before goes into `agreement`."""
        with torch.no_grad():
            thought = self(torch.from_numpy(table).float())[:, 0].numpy()
        if len(table) > 2 and np.ptp(thought) > 0 and np.ptp(targets[:, 0]) > 0:
            self.agreement.append(float(spearmanr(thought, targets[:, 0]).statistic))
        self._remember(table, targets)
        self._train(AGAIN, RATES[1])

    def _linear(self, before: int, after: int) -> nn.Linear:
        with torch.random.fork_rng(devices=[]):  # torch draws weights of its own
            layer = nn.Linear(before, after)
        with torch.no_grad():
            layer.weight.normal_(0, before**-0.5, generator=self._random)
            layer.bias.zero_()
        return layer

    def _remember(self, table: np.ndarray, targets: np.ndarray) -> None:
        self._tables.append(torch.from_numpy(table).float())
        self._targets.append(torch.from_numpy(targets).float())
        while len(self._tables) > 1 and sum(map(len, self._tables)) > MOST:
            del self._tables[1], self._targets[1]  # the first lot holds what clean images look like

    def _train(self, steps: int, rate: float) -> None:
        assert self._network is not None
        table, targets = torch.cat(self._tables), torch.cat(self._targets)
        optimiser = torch.optim.Adam(self._network.parameters(), lr=rate, weight_decay=DECAY)
        with torch.enable_grad():
            for _ in range(steps):
                rows = torch.randint(len(table), (MINIBATCH,), generator=self._random)
                loss = (self(table[rows]) - targets[rows]).square().mean()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()


def unbounded(scores: np.ndarray) -> np.ndarray:
    """Scores [N] as targets [N, 1]: log odds of a probability, others as they are."""
    if len(scores) and scores.min() >= 0 and scores.max() <= 1:
        inside = scores.clip(LEAST, 1 - LEAST)
        scores = np.log(inside / (1 - inside))
    return np.asarray(scores[:, None])
