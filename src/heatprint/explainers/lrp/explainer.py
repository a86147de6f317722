"""What every ``lrp.`` explainer can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.values import Explained
from heatprint.explainers.lrp.composite import Composite
from heatprint.explainers.lrp.propagate import every_class, propagate


class LRP(ABC):
    """Explains by relevance propagation under a composite."""

    @abstractmethod
    def composite(self, classifier: Classifier) -> Composite:
        """The rules for a classifier."""

    def attribute(
        self, classifier: Classifier, inputs: Tensor, target: Tensor, *, layers: tuple[str, ...] = ()
    ) -> tuple[Explained, Mapping[str, Tensor]]:
        """See `heatprint.core.protocols.Explainer`."""
        found = propagate(classifier.network, inputs, target, self.composite(classifier), layers=layers)
        explained = Explained(
            ids=(),
            relevance=found.relevance,
            target=target,
            score=found.score,
            plan=found.plan,
            totals=found.totals,
            passed=found.passed,
        )
        return explained, found.layers

    def relevance(self, classifier: Classifier, inputs: Tensor, target: Tensor) -> Tensor:
        """Relevance on the autograd graph: differentiable in the inputs and the weights, to any order.

        For attacks on explanations and explanation regularisation. Piecewise smooth: where a ReLU or a maximum
        switches, it jumps.

        Args:
            classifier: The classifier.
            inputs: Normalised inputs [N, 3, H, W].
            target: Classes, int64 [N], or weights of the logits, float [N, K].

        Returns:
            [N, 3, H, W].
        """
        composite = self.composite(classifier)
        return propagate(classifier.network, inputs, target, composite, differentiable=True).relevance

    def every_class(
        self,
        classifier: Classifier,
        inputs: Tensor,
        *,
        at_once: int = 16,
        layer: str = "input",
        read: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Relevance for every class from one forward pass, [N, K, 3, H, W] at the input.

        Args:
            classifier: The classifier.
            inputs: Normalised inputs [N, 3, H, W].
            at_once: Classes swept together; bounds the memory.
            layer: Where; see `heatprint.explainers.lrp.every_class`.
            read: What is kept of each class's relevance; None for all of it.
        """
        composite = self.composite(classifier)
        return every_class(classifier.network, inputs, composite, at_once=at_once, layer=layer, read=read)
