"""A part of the attacked images, so that one attack can work for another on those that still stand."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from heatprint.core.protocols import Access, Loss
from heatprint.core.streams import Streams


class SubsetAccess:
    """An `Access` whose row i is row ``rows[i]`` of another; questions are counted there.

    Args:
        access: The handle of all images.
        rows: int64 [M], on the CPU: those that take part.
    """

    def __init__(self, access: Access, rows: Tensor) -> None:
        self._access, self._rows = access, rows
        self.batch, self.device, self.classes = access.batch, access.device, access.classes

    def reached(self, images: Tensor, rows: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Access`."""
        return self._access.reached(images, self._rows[rows.cpu()])

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Access`."""
        return self._access.logits(images, self._rows[rows.cpu()])

    def recoloured(self, rows: Tensor, places: Tensor, colours: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Access`."""
        return self._access.recoloured(self._rows[rows.cpu()], places, colours)

    def gradient(self, images: Tensor, rows: Tensor, loss: str | Loss) -> tuple[Tensor, Tensor]:
        """See `heatprint.core.protocols.Access`."""
        return self._access.gradient(images, self._rows[rows.cpu()], loss)

    def jacobian(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `heatprint.core.protocols.Access`."""
        return self._access.jacobian(images, self._rows[rows.cpu()])

    def differentiable(self, images: Tensor, rows: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Access`."""
        return self._access.differentiable(images, self._rows[rows.cpu()])

    def spent(self, rows: Tensor) -> Tensor:
        """See `heatprint.core.protocols.Access`."""
        return self._access.spent(self._rows[rows.cpu()])


def subset_streams(streams: Streams, rows: Tensor, member: str) -> Streams:
    """The streams of those images for one member: its draws are not those of another."""
    ids = tuple(streams.ids[row] for row in rows.tolist())
    return replace(streams, purpose=f"{streams.purpose}:{member}", ids=ids)
