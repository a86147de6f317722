"""What an attack may see of the classifier. Every question is counted, per image.

Each level of knowledge is a handle of its own: a black-box attack holds one that has no gradients to give, so a
threat model cannot be left by accident.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from heatprint.attacks.ledger import UNLIMITED, Budget, Ledger
from heatprint.core.classifier import Classifier
from heatprint.core.errors import BrokenContract
from heatprint.core.goals import Goal
from heatprint.core.protocols import Loss
from heatprint.models.predict import batch_size

if TYPE_CHECKING:
    from heatprint.models.sparse import Session

DOUBT = 1e-4  # of the largest logit: within it, rounding could decide what the label is

LOSSES: dict[str, Loss] = {
    "margin": lambda logits, goal: goal.margin(logits),
    "cross_entropy": lambda logits, goal: goal.cross_entropy(logits),
}


class NoAccess:
    """Nothing at all, for controls; the root of the handles, which each allow one thing more.

    Args:
        classifier: The victim.
        goal: What the attack is after, one row per attacked image.
        images: The attacked images, float32 [N, 3, H, W] in [0, 1].
        budget: The most that may be asked about each.
        told: Called after every question.

    Attributes:
        ledger: Counts per attacked image.
        batch: Images per call that suit the device.
        device: Where the classifier lives.
        classes: Number of classes K.
    """

    knowledge = "none"

    def __init__(
        self,
        classifier: Classifier,
        goal: Goal,
        images: Tensor,
        *,
        budget: Budget = UNLIMITED,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._classifier = classifier
        self._goal = goal
        self._images = images
        self._told = told
        self._base: Tensor | None = None
        self._known: Tensor | None = None
        self.ledger = Ledger(len(goal.labels), budget)
        self.batch = batch_size(classifier)
        self.device = classifier.device
        self.classes = len(classifier.classes)

    def reached(self, images: Tensor, rows: Tensor) -> Tensor:
        """Refused: this handle answers nothing."""
        self._refuse("a label", "label")

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Refused: this handle has no scores to give."""
        self._refuse("scores", "score")

    def recoloured(self, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """Refused: this handle has no scores to give."""
        self._refuse("scores", "score")

    def gradient(self, images: Tensor, rows: Tensor, loss: str | Loss) -> tuple[Tensor, Tensor]:
        """Refused: this handle has no gradients to give."""
        self._refuse("a gradient", "white box")

    def jacobian(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Refused: this handle has no gradients to give."""
        self._refuse("a gradient", "white box")

    def differentiable(self, images: Tensor, rows: Tensor) -> Tensor:
        """Refused: this handle has no gradients to give."""
        self._refuse("a gradient", "white box")

    def spent(self, rows: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Access`."""
        return self.ledger.spent(rows)

    def release(self) -> None:
        """Give back what is held for the images' sake; the handle is not used again."""
        self._base = None

    def _refuse(self, what: str, knowledge: str) -> NoReturn:
        raise BrokenContract(
            f"attack: an attack of knowledge {self.knowledge!r} asked for {what}. "
            f"Declare knowledge={knowledge!r} in its taxonomy."
        )

    @torch.no_grad()
    def _ask(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits of what the budget allows; the clean image's for the rest."""
        return self._answer(rows, self.ledger.admit(rows), lambda some: self._classifier(_of(images, some)).float())

    def _answer(self, rows: Tensor, allowed: Tensor | None, ask: Callable[[Tensor | None], Tensor]) -> Tensor:
        """Evaluate the allowed questions, note hits, and fill in what was not allowed."""
        if allowed is None:
            logits = ask(None)
            self._note(rows, logits)
            return logits
        asked = allowed.nonzero().squeeze(1)
        logits = self._clean(rows)
        if len(asked):
            logits[asked.to(logits.device)] = ask(asked)
            self._note(rows[asked], logits[asked.to(logits.device)])
        return logits

    def _note(self, rows: Tensor, logits: Tensor) -> None:
        self.ledger.hits(rows, self._goal.take(rows).to(logits.device).reached(logits.detach()))
        self._told()

    @torch.no_grad()
    def _clean(self, rows: Tensor) -> Tensor:
        """Logits of the attacked images as they were: known before the attack, so not counted."""
        if self._known is None:
            parts = [self._classifier(part.to(self.device)).float() for part in torch.split(self._images, self.batch)]
            self._known = torch.cat(parts)
        return self._known[rows.to(self.device)]


class LabelAccess(NoAccess):
    """Whether the goal is reached, and nothing else."""

    knowledge = "label"

    def reached(self, images: Tensor, rows: Tensor) -> Tensor:
        """Whether images [M, 3, H, W] in [0, 1] reach the goal, bool [M]; row i belongs to image ``rows[i]``."""
        logits = self._ask(images, rows)
        return self._goal.take(rows).to(logits.device).reached(logits)


class ScoreAccess(LabelAccess):
    """Logits, but no gradients."""

    knowledge = "score"
    _session: Session | None = None

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Logits [M, K] of images [M, 3, H, W] in [0, 1]; row i belongs to attacked image ``rows[i]``."""
        return self._ask(images, rows)

    @torch.no_grad()
    def recoloured(self, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Access`."""

        def ask(some: Tensor | None) -> Tensor:
            which = rows if some is None else rows[some]
            return self._recoloured(which, _of(places, some), _of(colours, some))

        return self._answer(rows, self.ledger.admit(rows), ask)

    def _recoloured(self, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """By the sparse forward where there is one; what it finds on the boundary is asked of the plain one again."""
        from heatprint.models.sparse import sparse_forward  # brings Numba, which other attacks do without

        if self._session is None:
            forward = sparse_forward(self._classifier)
            if forward is None:
                return self._plain(rows, places, colours)
            self._session = forward.session(self._images)
        logits = self._session(rows, places, colours)
        goal = self._goal.take(rows)
        near = (goal.margin(logits) - goal.criterion.margin).abs()
        if goal.criterion.probability:
            near = torch.minimum(near, (goal.log_probability(logits) - math.log(goal.criterion.probability)).abs())
        doubtful = (near < DOUBT * logits.abs().amax(1)).nonzero().squeeze(1)
        if len(doubtful):
            logits[doubtful] = self._plain(rows[doubtful], places[doubtful], colours[doubtful])
        return logits

    def _plain(self, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        parts = torch.split(torch.arange(len(rows)), self.batch)
        return torch.cat([self._classifier(self._painted(rows[p], places[p], colours[p])).float() for p in parts])

    def release(self) -> None:
        """Give back what is held for the images' sake; the handle is not used again."""
        super().release()
        self._session = None

    def _painted(self, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """The recoloured images themselves, [M, 3, H, W], pixel by pixel in memory: channels-last for free."""
        if self._base is None:
            self._base = self._images.permute(0, 2, 3, 1).contiguous().to(self.device)
        tried = self._base.index_select(0, rows.to(self.device))
        index = torch.arange(len(rows), device=self.device)
        places, colours = places.to(self.device), colours.to(self.device)
        for pixel in range(places.shape[1]):  # in order, so that of two edits of one pixel the last one counts
            tried[index, places[:, pixel, 0], places[:, pixel, 1]] = colours[:, pixel]
        return tried.permute(0, 3, 1, 2)


class WhiteBox(ScoreAccess):
    """Logits and gradients."""

    knowledge = "white box"

    def gradient(self, images: Tensor, rows: Tensor, loss: str | Loss) -> tuple[Tensor, Tensor]:
        """See `heatprint.core.protocols.Access`."""
        value = LOSSES[loss] if isinstance(loss, str) else loss
        gradients, logits = self._derive(images, rows, 1, lambda logits, goal: value(logits, goal)[None])
        return gradients[:, 0], logits

    def jacobian(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `heatprint.core.protocols.Access`."""
        return self._derive(images, rows, self.classes, lambda logits, goal: logits.T)

    def differentiable(self, images: Tensor, rows: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Access`."""
        if not (images.requires_grad and torch.is_grad_enabled()):
            return self.logits(images, rows)

        def ask(some: Tensor | None) -> Tensor:
            counted = _Counted.apply(_of(images, some), rows if some is None else rows[some], self.ledger)
            return self._classifier(counted).float()

        logits = self._answer(rows, self.ledger.admit(rows), ask)
        # where nothing was allowed there is no way back to the images: give one, with zero gradients
        return logits if logits.requires_grad else logits + 0 * images.flatten(1).sum(1, keepdim=True)

    def _derive(self, images: Tensor, rows: Tensor, count: int, values: Loss) -> tuple[Tensor, Tensor]:
        """Gradients [M, count, 3, H, W] of `count` values [count, M] of each image, and the logits."""
        shape = (len(images), count, *images.shape[1:])
        gradients = torch.zeros(shape, device=images.device, dtype=images.dtype)

        def ask(some: Tensor | None) -> Tensor:
            leaf = _of(images, some).detach().clone().requires_grad_(True)
            with torch.enable_grad():
                logits = self._classifier(leaf)
                lines = values(_spread(logits, some, len(rows)), self._goal.take(rows).to(images.device))
            for number in range(count):
                (line,) = torch.autograd.grad(lines[number].sum(), leaf, retain_graph=number < count - 1)
                gradients[slice(None) if some is None else some.to(images.device), number] = line
            return logits.detach().float()

        logits = self._answer(rows, self.ledger.admit(rows, backwards=count), ask)
        return gradients, logits


class _Counted(torch.autograd.Function):
    """The identity; each gradient that comes back through it is counted, and cut where the budget is spent."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, rows: Tensor, ledger: Ledger) -> Tensor:
        """The images themselves."""
        ctx.rows, ctx.ledger = rows, ledger
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient, where it is allowed."""
        (gradient,) = gradients
        allowed = ctx.ledger.admit(ctx.rows, forwards=0, backwards=1)
        if allowed is not None:
            open_ = allowed.to(gradient.device).view(-1, *[1] * (gradient.ndim - 1))
            gradient = torch.where(open_, gradient, 0)
        return gradient, None, None


HANDLES: dict[str, type[NoAccess]] = {
    "none": NoAccess,
    "label": LabelAccess,
    "score": ScoreAccess,
    "white box": WhiteBox,
}


def _of(values: Tensor, some: Tensor | None) -> Tensor:
    return values if some is None else values[some.to(values.device)]


def _spread(logits: Tensor, some: Tensor | None, count: int) -> Tensor:
    """Logits with a row for every question, zeros where none was asked: a loss may hold one value per question."""
    if some is None:
        return logits
    return logits.new_zeros((count, logits.shape[1])).index_copy(0, some.to(logits.device), logits)
