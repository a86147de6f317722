"""What the last hidden neurons contribute to the answer: the signature of one image, without others beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heatprint.core.errors import Unsupported
from heatprint.detectors.features.picture import concentration, cosine, evenness, likeness, positive, shares
from heatprint.detectors.look import Look
from heatprint.explainers.gradients.shap_last import last_neurons

PARTS = (0.0, 0.05, 0.2)  # of the neurons; 0 stands for a single one
STATISTICS = ("positive", "first", "top 5 %", "top 20 %", "gini", "entropy", "kurtosis")


@dataclass(frozen=True, kw_only=True)
class Signature:
    """How the logits are made up of the neurons a that the last linear layer w reads.

    Neuron j contributes a_j w_cj to class c: its relevance by LRP-0 (Bach et al. 2015, eq. 56), and its Shapley value
    against silent neurons, of which Fidel, Bitton and Shabtai 2020 make their signatures. Of the contributions to the
    predicted class, and of their difference from those to the runner-up, are measured: the positive share, the share in
    the largest neuron and in the largest 5 % and 20 %, Gini index, entropy and kurtosis; of the two classes'
    contributions the cosine, the correlation of their sizes, and the rival's part of both; of the neurons the share
    that is active, their entropy, and the cosine with the direction in which the margin grows.

    A family compares an image with nothing learned, so neighbours among signatures are not in it.

    Multiplying the network's logits, or the neurons, by a constant changes no column. Those in `follows_margin` are the
    logits over a size that grows with them, but for biases.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Column names."""
        both = [f"{what} {name}" for what in ("own", "contrast") for name in STATISTICS]
        return (*both, "classes alike", "sizes alike", "rival size", "active", "neurons entropy", "towards the margin")

    @property
    def follows_margin(self) -> tuple[str, ...]:
        """Columns that are the logits, or the margin, over a size."""
        return ("own positive", "contrast positive", "rival size", "towards the margin")

    def measure(self, look: Look) -> Tensor:
        """float32 [N, columns].

        Raises:
            Unsupported: The logits are not the output of a linear layer on vectors.
        """
        try:
            hidden, weight, logits = last_neurons(look.classifier, look.images)
        except Unsupported as error:
            raise Unsupported(
                f"Signature: the logits of {look.classifier.name!r} are not the output of a linear layer on vectors, "
                "so no neurons contribute to them; leave 'signature' out of the families."
            ) from error
        order = logits.argsort(dim=1, descending=True, stable=True)
        towards, against = weight[order[:, 0]], weight[order[:, 1]]
        own, rival = hidden * towards, hidden * against
        contrast = hidden * (towards - against)
        sizes = [values.abs().double().sum(1) for values in (own, rival)]
        whole = sizes[0] + sizes[1]
        rest = torch.stack([
            cosine(own, rival), likeness(own.abs(), rival.abs()),
            torch.where(whole > 0, sizes[1] / whole.where(whole > 0, 1), 0.5),
            (hidden != 0).double().mean(1), evenness(shares(hidden)), cosine(hidden, towards - against),
        ], 1)  # fmt: skip
        made_up = [torch.cat([positive(v)[:, None], concentration(v, PARTS)], 1) for v in (own, contrast)]
        return torch.cat([*made_up, rest], 1).float()
