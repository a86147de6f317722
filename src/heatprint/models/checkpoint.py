"""Saved classifiers: weights in safetensors beside a JSON card. No pickle of ours, ever.

FOLDER/model.safetensors    weights
FOLDER/card.json            architecture, classes, size, normalisation, digest, how it was trained
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save as dump
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.digest import content_digest
from heatprint.core.errors import InvalidInput, ModelMismatch, UnreadableData
from heatprint.core.reading import read_json
from heatprint.core.store import write_atomic, write_mark
from heatprint.models.weights import read_weights
from heatprint.models.wrap import wrap
from heatprint.models.zoo import IMAGENET, build

WEIGHTS, CARD = "model.safetensors", "card.json"

Channels = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


class _Card(BaseModel):
    """What a saved model says of itself, within what heatprint makes."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    architecture: str = Field(max_length=500)
    classes: tuple[str, ...] = Field(min_length=2, max_length=100_000)
    size: int = Field(ge=1, le=4096, strict=True)
    mean: Channels
    std: Channels
    digest: str
    name: str


def save(classifier: Classifier, folder: str | Path, *, notes: Mapping[str, Any] | None = None) -> None:
    """Write a classifier of the zoo to a folder, each file atomically, the card last.

    Raises:
        InvalidInput: It wraps a network that is not in the zoo, so it could not be rebuilt.
    """
    if not classifier.architecture:
        raise InvalidInput(
            f"save: {classifier.name!r} wraps a network of your own; save its state_dict yourself and wrap it again."
        )
    folder = Path(folder)
    state = {k: v.detach().cpu().contiguous() for k, v in classifier.trainable.state_dict().items()}
    weights = dump(state)
    write_atomic(folder / WEIGHTS, weights)
    card = {
        "architecture": classifier.architecture,
        "classes": list(classifier.classes),
        "digest": classifier.digest,
        "mean": list(classifier.mean),
        "name": classifier.name,
        "notes": dict(notes or {}),
        "size": classifier.size,
        "std": list(classifier.std),
        "weights": content_digest(weights),
    }
    write_mark(folder / CARD, card)


def load(
    source: str | Path,
    *,
    classes: Sequence[str] = (),
    size: int = 112,
    weights: str | Path | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Classifier:
    """A classifier from a saved folder, or from the zoo with fresh or given weights.

    Args:
        source: A folder written by `save`, or an architecture's name (see `zoo.build`).
        classes: Class names, for an architecture; a folder has its own.
        size: Side of the input images, likewise.
        weights: A ``.safetensors`` file, or a pickle checkpoint, which is read with ``weights_only=True``.
        seed: Seed of fresh weights.
        name: How tables call it.

    Raises:
        UnreadableData: The folder or file is missing or damaged.
        ModelMismatch: The weights have other names or shapes than the architecture.
    """
    folder = Path(source)
    if (folder / CARD).exists():
        return _from_folder(folder, name)
    if folder.is_dir():
        raise UnreadableData(f"load: {folder} holds no {CARD}. Name a folder written by models.save.")
    network = build(str(source), classes=len(classes), size=size, seed=seed)
    if weights is not None:
        _fill(network, read_weights(Path(weights)), str(weights))
    mean, std = IMAGENET
    return wrap(
        network, classes=classes, size=size, mean=mean, std=std, name=name or str(source), architecture=str(source)
    )


def _from_folder(folder: Path, name: str | None) -> Classifier:
    card = _card(folder / CARD)
    origin, state = str(folder / WEIGHTS), read_weights(folder / WEIGHTS)

    def built() -> nn.Module:
        return build(card.architecture, classes=len(card.classes), size=card.size)

    try:
        if "timm:" not in card.architecture:  # whose networks cannot all be built without weights
            with torch.device("meta"):
                _compare(built(), state, origin)  # before there is memory for what a card may claim
        network = built()
    except InvalidInput as error:
        raise UnreadableData(f"load: {folder / CARD} is damaged ({error}). Save the model again.") from error
    _fill(network, state, origin)
    fields = {key: getattr(card, key) for key in ("classes", "size", "mean", "std", "architecture")}
    loaded = wrap(network, **fields, name=name or card.name)
    if loaded.digest != card.digest:
        raise UnreadableData(f"load: {folder / WEIGHTS} is not what its card describes. Save the model again.")
    return loaded


def _card(path: Path) -> _Card:
    try:
        return _Card.model_validate(read_json(path))
    except (OSError, ValueError) as error:
        wrong = error.errors() if isinstance(error, ValidationError) else ()
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong) or str(error)
        raise UnreadableData(f"load: {path} is damaged ({told}). Save the model again.") from error


def _fill(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    _compare(network, state, origin)
    network.load_state_dict(dict(state))


def _compare(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{k}: file {list(state[k].shape)}, network {list(own[k].shape)}"
        for k in own.keys() & state.keys()
        if own[k].shape != state[k].shape
    ]
    if missing or extra or shapes:
        told = [f"missing {missing[:3]}"] * bool(missing) + [f"unexpected {extra[:3]}"] * bool(extra) + shapes[:3]
        raise ModelMismatch(
            f"load: {origin} does not fit the architecture: {'; '.join(told)}. "
            "Name the architecture, the number of classes and the size it was trained with."
        )
