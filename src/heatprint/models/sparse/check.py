"""Whether a classifier gets a sparse forward: traced once, compared with the plain forward, and timed against it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import Unsupported
from heatprint.models.sparse.forward import SparseForward

LOG = logging.getLogger("heatprint")
GAIN_FROM = 1.5  # times fewer multiplications; below, the book-keeping eats what is left
LARGE_FROM = 3e7  # multiplications of a forward pass; of smaller networks it does so too, or nearly
TOLERANCE = 3e-5  # difference of two float32 results, of the largest logit; each is within about 1e-5 of float64
CHANGE_TOLERANCE = 0.02  # of the largest change the edits make: a large bias could hide an error from the other one
CANDIDATES = 32
AMPLITUDE = 4.0  # times what a pixel can do, so that the change stands clear of rounding

KEPT = "_sparse_forward"  # beside the classifier's cached properties: it goes when the classifier goes


def sparse_forward(classifier: Classifier) -> SparseForward | None:
    """The classifier's sparse forward, if it has one that is right and faster; else None, and one line in the log.

    The answer is kept with the classifier until somebody writes to its weights.
    """
    state = _state(classifier)
    known: tuple[object, SparseForward | None] | None = classifier.__dict__.get(KEPT)
    if known is None or known[0] != state:
        known = classifier.__dict__[KEPT] = state, _examined(classifier)
    return known[1]


def _state(classifier: Classifier) -> tuple[object, ...]:
    """Changes whenever somebody writes to the network's weights."""
    tensors = [*classifier.network.parameters(), *classifier.network.buffers()]
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


def _examined(classifier: Classifier) -> SparseForward | None:
    try:
        if classifier.device.type != "cpu" or classifier.dtype != torch.float32:
            raise Unsupported(f"it runs on {classifier.device.type} in {classifier.dtype}, not on the CPU in float32")
        sparse = SparseForward(classifier)
        # reckoned, not timed: so that it takes the same path, and gives the same bits, in every run on every machine
        if sparse.gain < GAIN_FROM:
            raise Unsupported(f"it would save a factor of {sparse.gain:.1f} only")
        if sparse.multiplications < LARGE_FROM:
            raise Unsupported(f"it is small: {sparse.multiplications / 1e6:.1f} million multiplications")
        speed = _compared(classifier, sparse)
    except Unsupported as reason:
        LOG.info("%s: recoloured pixels take the plain forward pass: %s.", classifier.name, reason)
        return None
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
        # a network of a kind nobody foresaw must not lose its attack to an optimisation; the log says what happened
        told = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        LOG.warning("%s: recoloured pixels take the plain forward pass: %s.", classifier.name, told)
        return None
    LOG.info("%s: recoloured pixels take the sparse forward pass, %.1f times as fast.", classifier.name, speed)
    return sparse


def _compared(classifier: Classifier, sparse: SparseForward) -> float:
    """How many times as fast as the plain forward it is here.

    Raises:
        Unsupported: It is slower, or its logits, or the changes of the logits, differ.
    """
    for edits in (3, 1):
        images, rows, places, colours = _candidates(classifier.size, edits)
        painted = images[rows]
        for edit in range(edits):
            painted[torch.arange(len(rows)), :, places[:, edit, 0], places[:, edit, 1]] = colours[:, edit]
        painted = painted.contiguous(memory_format=classifier.memory_format)
        session = sparse.session(images)
        with torch.no_grad():
            whole, clean = classifier(painted), classifier(images)
        found = session(rows, places, colours)
        error, change = (found - whole).abs().max(), (whole - clean).abs().max()
        if not error <= TOLERANCE * whole.abs().max():
            raise Unsupported(f"its sparse logits differ by {float(error / whole.abs().max()):.1g} of the largest")
        if not error <= CHANGE_TOLERANCE * change:
            raise Unsupported(f"its sparse logits change by {float(error / change):.1g} too much or too little")
    with torch.no_grad():
        speed = _speed(lambda: classifier(painted), lambda: session(rows, places, colours))
    if speed < 1:
        raise Unsupported(f"the sparse form runs at {speed:.2f} times the speed here")
    return speed


def _candidates(size: int, edits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Recoloured pixels of one image of noise: the four corners, and places and colours drawn at random."""
    rng = torch.Generator().manual_seed(edits)
    images = torch.rand((1, 3, size, size), generator=rng)
    places = torch.randint(0, size, (CANDIDATES, edits, 2), generator=rng)
    edge = size - 1
    places[:4, 0] = torch.tensor([[0, 0], [0, edge], [edge, 0], [edge, edge]])
    colours = AMPLITUDE * torch.rand((CANDIDATES, edits, 3), generator=rng).round()
    return images, torch.zeros(CANDIDATES, dtype=torch.long), places, colours


def _speed(plain: Callable[[], Tensor], sparse: Callable[[], Tensor]) -> float:
    """How many times as fast the second is: the best runs of both, taken in turn for half a second, twice at least."""
    best = [float("inf"), float("inf")]
    begin, turns = time.perf_counter(), 0
    while turns < 2 or (turns < 20 and time.perf_counter() - begin < 0.5):
        for which, work in enumerate((plain, sparse)):
            start = time.perf_counter()
            work()
            best[which] = min(best[which], time.perf_counter() - start)
        turns += 1
    return best[0] / best[1]
