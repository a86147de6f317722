"""Disagreement of an ensemble of retrained heads (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.lattice import to_images
from heatprint.core.protocols import Progress, silent
from heatprint.core.streams import stream, torch_seed
from heatprint.detectors.door import Learned
from heatprint.detectors.examples import Examples
from heatprint.detectors.published.learning import (
    as_arrays,
    check_training,
    clean_rows,
    descend,
    from_arrays,
    seeded,
    shuffled,
)
from heatprint.explainers.gradients.shap_last import last_neurons
from heatprint.models.predict import batch_size

TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class DeepEnsemble:
    """How much classifiers trained from different seeds disagree about an image; learns from clean images only.

    Lakshminarayanan, Pritzel and Blundell (2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles") average the softmax of M networks and measure their disagreement by the sum over members of
    KL(p_m || mean p). The score is that sum divided by M, which is the mutual information of the label and the member,
    H(mean p) - mean H(p_m), in nats, 0 to log K.

    **Not a full ensemble.** Training M networks anew takes M times what the classifier took. Here the members share the
    frozen convolutional part, and each is a copy of the classifier's last block, its dense layers or the last linear
    one, with fresh weights. They disagree less than separate networks would, and an attack whose trace is already in
    the shared part as a confident wrong answer is missed: read the result as a lower bound of the method. Further
    deviations: each member learns from a bootstrap sample of its own (the paper found seeds and order enough for whole
    networks; heads alone, in the extreme a convex problem, need it), and the members are not adversarially trained.

    Attributes:
        members: How many, 2 or more; the paper's 5.
        block: ``"dense"``: all linear layers after the last convolution; ``"linear"``: the last one.
        width: Largest number of hidden neurons per layer of a member, 1 or more; a layer of 4096 is copied smaller.
        steps: Of Adam, for each member, 1 or more.
        batch: Images per step, 2 or more.
        rate: Largest learning rate; it falls to zero along half a cosine.
    """

    members: int = 5
    block: Literal["dense", "linear"] = "dense"
    width: int = 128
    steps: int = 500
    batch: int = 64
    rate: float = 2e-3
    unsupervised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.members < 2 or self.width < 1:
            raise InvalidInput(
                f"DeepEnsemble: members = {self.members} must be 2 or more, one cannot disagree, and width = "
                f"{self.width} 1 or more."
            )
        if self.block not in ("dense", "linear"):
            raise InvalidInput(f"DeepEnsemble: block = {self.block!r} must be 'dense' or 'linear'.")
        check_training("DeepEnsemble", steps=self.steps, batch=self.batch, rate=self.rate)

    def learn(self, classifier: Classifier, examples: Examples, *, seed: int, progress: Progress) -> Learned:
        """See `heatprint.detectors.door.Method`.

        Raises:
            InvalidInput: Too few clean images.
            Unsupported: The network does not end in linear layers on vectors.
        """
        clean = examples.take(clean_rows("DeepEnsemble", examples))
        vectors, hidden = self._vectors(classifier, clean.pixels)
        mean = vectors.mean(0)
        scale = (vectors - mean).square().mean().sqrt().clamp_min(TINY)  # one for all: a still neuron stays still
        standard, labels = (vectors - mean) / scale, clean.labels.to(vectors.device)
        widths = [vectors.shape[1], *(min(width, self.width) for width in hidden), len(classifier.classes)]
        heads = nn.ModuleList()
        for member in range(self.members):
            head = seeded(lambda: Head(widths), torch_seed(seed, "deep-ensemble/weights", member)).to(vectors.device)
            rng = stream(seed, "deep-ensemble/bootstrap", member)
            self._train(head, standard, labels, rng)
            heads.append(head)
            progress(member + 1, self.members)
        return as_arrays(heads) | {
            "mean": mean.cpu().numpy(), "scale": scale[None].cpu().numpy(), "widths": np.array(widths),
        }  # fmt: skip

    def score(self, classifier: Classifier, learned: Learned, pixels: Tensor) -> np.ndarray:
        """Mutual information of label and member in nats, float64 [N]."""
        widths = learned["widths"].tolist()
        heads = from_arrays(
            lambda: nn.ModuleList(Head(widths) for _ in range(self.members)), learned, classifier.device
        )
        vectors, _ = self._vectors(classifier, pixels)
        mean, scale = (torch.tensor(learned[key], device=vectors.device) for key in ("mean", "scale"))
        standard = (vectors - mean) / scale
        return mutual_information(torch.stack([head(standard) for head in heads]).double()).cpu().numpy()

    def _train(self, head: Head, vectors: Tensor, labels: Tensor, rng: np.random.Generator) -> None:
        batches = shuffled(rng.integers(0, len(vectors), len(vectors)), self.batch, rng)

        def loss(step: int) -> Tensor:
            rows = torch.from_numpy(next(batches))
            return F.cross_entropy(head(vectors[rows]), labels[rows])

        descend(head, loss, steps=self.steps, rate=self.rate, progress=silent)

    def _vectors(self, classifier: Classifier, pixels: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """What the block reads, float32 [N, D], and the widths of its hidden layers."""
        found = []
        widths: tuple[int, ...] = ()
        for part in torch.split(pixels, batch_size(classifier)):
            images = to_images(part.to(classifier.device))
            if self.block == "dense":
                vectors, widths = dense_part(classifier, images)
            else:
                vectors = last_neurons(classifier, images)[0].float()
            found.append(vectors)
        return torch.cat(found), widths


class Head(nn.Module):
    """Linear layers with rectifiers between them.

    Args:
        widths: Of the input, of each hidden layer, and of the output.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = len(widths) - 1
        for place, (read, given) in enumerate(pairwise(widths), start=1):
            self.add_module(f"dense{place}", nn.Linear(read, given))

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits [N, K] of vectors [N, D]."""
        for place in range(1, self.layers + 1):
            vectors = self.get_submodule(f"dense{place}")(vectors)
            vectors = torch.relu(vectors) if place < self.layers else vectors
        return vectors


def mutual_information(logits: Tensor) -> Tensor:
    """Mean over members of KL(p_m || mean p), in nats, [N], of logits [M, N, K]; summed without cancellation."""
    own = logits.log_softmax(2)
    joint = own.logsumexp(0) - math.log(len(logits))
    return (own.exp() * (own - joint)).sum(2).mean(0).clamp_min(0)


@torch.no_grad()
def dense_part(classifier: Classifier, images: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """What the first linear layer after the last convolution reads, and the widths of the hidden layers from there.

    Args:
        classifier: Untouched.
        images: float32 [N, 3, H, W] in [0, 1].

    Returns:
        float32 [N, D], and the number of neurons of each hidden linear layer; none where the first is the last.

    Raises:
        Unsupported: No linear layer reads vectors there.
    """
    with _Dense() as seen:
        classifier.network(classifier.normalise(images))
    if seen.vectors is None:
        raise Unsupported(
            f"DeepEnsemble: in {classifier.name!r} no linear layer reads vectors after the last convolution, so there "
            "is no dense part to train again. Use another detector for this network."
        )
    return seen.vectors.float(), tuple(seen.widths[:-1])


class _Dense(TorchFunctionMode):
    """Keeps what linear layers read after the last convolution, so not those inside the convolutional part."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors: Tensor | None = None
        self.widths: list[int] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.conv2d:
            self.vectors, self.widths = None, []
        if func is F.linear:
            vectors, weight = (*args, *(kwargs or {}).values())[:2]
            if vectors.ndim == 2:
                self.vectors = vectors.clone() if self.vectors is None else self.vectors
                self.widths.append(len(weight))
        return func(*args, **(kwargs or {}))
