"""t-distributed stochastic neighbour embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from heatprint.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class TSNE:
    """t-distributed stochastic neighbour embedding (van der Maaten and Hinton 2008; Barnes-Hut 2014), by scikit-learn.

    Sizes of clusters and distances between them mean little. It starts from the principal components, as Kobak and
    Berens (2019) advise, and runs on one thread: the sums of several come in no fixed order.
    `heatprint.signatures.embed` takes duplicates together, and places fewer than four different vectors by PCA.

    Attributes:
        perplexity: Effective size of a neighbourhood, > 0; at most a third of the other vectors are used.
        seed: Of the layout, 0 to 2**32 - 1; equal seeds give equal maps.
    """

    perplexity: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.perplexity > 0 or not 0 <= self.seed < 2**32:
            raise InvalidInput(
                f"TSNE: perplexity = {self.perplexity} must be above 0, e.g. 30, and seed = {self.seed} "
                "from 0 to 2**32 - 1."
            )

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """Points [N, 2] of different vectors [N, D], N at least 4 and D at least 2."""
        from sklearn.manifold import TSNE as Fit

        perplexity = min(self.perplexity, (len(vectors) - 1) / 3)
        centred = vectors - vectors.mean(0, dtype=np.float64)
        centred /= np.abs(centred).max()  # whose squares would otherwise leave the range, where the fit crashes
        with threadpool_limits(limits=1):
            fit = Fit(perplexity=perplexity, init="pca", random_state=self.seed, n_jobs=1)
            return np.asarray(fit.fit_transform(centred), dtype=np.float64)
