"""Named architectures, built with fresh weights: the paper's network, its thin sibling, torchvision and timm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from heatprint.core.errors import InvalidInput, MissingExtra, UnknownName
from heatprint.models.compose import Normalised
from heatprint.models.parts import PARTS, assembled

BLOCKS = (2, 2, 3, 3, 3)  # convolutions per block of VGG16
SLIM_WIDTHS = (8, 16, 32, 64, 64)
MOST_PARTS, MOST_NETWORKS = 10, 100  # of one architecture: what a forged card may make of a line of text
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def vgg16_paper(classes: int, size: int) -> nn.Module:
    """VGG16 (Simonyan and Zisserman 2015, configuration D) as the paper used it: 4096, 4096, K."""
    from torchvision.models.vgg import cfgs, make_layers

    side = size // 32
    network = nn.Sequential(
        make_layers(cfgs["D"]),
        nn.Flatten(),
        *(nn.Linear(512 * side * side, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(4096, classes),
    )
    return _he(network)


def vgg_slim(classes: int, size: int) -> nn.Module:
    """VGG16's thirteen convolutions with 8 to 64 channels and batch norm; 322 thousand weights at 112 px.

    The map before the dense layers is brought to 3x3 by average pooling, so that the same weights can be
    trained at 64 px and used at 112, where the pooling is the identity.
    """
    layers: list[nn.Module] = []
    width = 3
    for repeats, wide in zip(BLOCKS, SLIM_WIDTHS, strict=True):
        for _ in range(repeats):
            layers += [nn.Conv2d(width, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
            width = wide
        layers.append(nn.MaxPool2d(2))
    hidden = 128
    network = nn.Sequential(
        nn.Sequential(*layers),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        *(nn.Linear(9 * width, hidden), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.3)),
        nn.Linear(hidden, classes),
    )
    return _he(network)


OWN: dict[str, Callable[[int, int], nn.Module]] = {"vgg16-paper": vgg16_paper, "vgg-slim": vgg_slim}


def names() -> list[str]:
    """Our own architectures; ``torchvision:NAME`` and ``timm:NAME`` are accepted beside them."""
    return sorted(OWN)


def check(architecture: str) -> None:
    """Refuse a name that `build` would not know, without building anything.

    Raises:
        UnknownName: With the nearest name.
        InvalidInput: More parts, or more networks in all its ensembles, than anybody means.
    """
    *parts, last = architecture.split("|")
    networks = 1
    for part in parts:
        known, _, members = part.partition(":")
        if known != "ensemble":
            PARTS.load(known)
        elif members.isascii() and members.isdigit():
            networks *= int(members[:9])
    if len(parts) > MOST_PARTS or not 1 <= networks <= MOST_NETWORKS:
        raise InvalidInput(
            f"models: {architecture[:50]!r} has {len(parts)} parts and {networks} networks; at most {MOST_PARTS} and "
            f"{MOST_NETWORKS} are built, and at least one network."
        )
    kind, _, name = last.partition(":")
    if last not in OWN and not (kind in ("torchvision", "timm") and name):
        raise UnknownName("models: the architecture", last, [*OWN, "torchvision:NAME", "timm:NAME"])


def build(architecture: str, *, classes: int, size: int, seed: int = 0) -> nn.Module:
    """A network with fresh weights that depend on `seed` alone.

    Args:
        architecture: ``"vgg16-paper"``, ``"vgg-slim"``, ``"torchvision:NAME"`` or ``"timm:NAME"``; before any of
            them parts, as in ``"median:3|vgg-slim"``.
        classes: Number of logits.
        size: Side of the input images in pixels.
        seed: Seed of the weights.

    Raises:
        UnknownName: No such architecture.
        MissingExtra: timm is asked for and not installed.
    """
    check(architecture)
    part, composed, rest = architecture.partition("|")
    if composed:

        def behind() -> nn.Module:
            made = build(rest, classes=classes, size=size, seed=seed)
            return made if "|" in rest else Normalised(made, *IMAGENET)

        return assembled(part, behind)
    kind, _, name = architecture.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if architecture in OWN:
            return OWN[architecture](classes, size)
        if kind == "torchvision":
            import torchvision

            known = torchvision.models.list_models(module=torchvision.models)
            if name not in known:
                raise UnknownName("models: the torchvision model", name, known)
            network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
            return network
        try:
            import timm
        except ImportError as error:
            raise MissingExtra("timm", "hub", f"build: {architecture!r}") from error
        if name not in timm.list_models():
            raise UnknownName("models: the timm model", name, timm.list_models())
        made: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
        return made


def _he(network: nn.Module) -> nn.Module:
    """He et al. 2015 weights, the last layer a tenth of them: it starts undecided instead of confidently wrong.

    Without the small last layer the dense layers die in the first epochs on some seeds, and the network stays at
    chance for good (docs/decisions/0006).
    """
    kernels = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for module in kernels:
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        kernels[-1].weight.mul_(0.1)
    return network
