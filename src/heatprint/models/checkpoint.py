"""Saved classifiers: weights in safetensors beside a JSON card. No pickle of ours, ever.

FOLDER/model.safetensors    weights
FOLDER/card.json            architecture, classes, size, normalisation, digest, how it was trained
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as dump
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, ModelMismatch, UnreadableData
from heatprint.core.store import write_atomic, write_json
from heatprint.models.wrap import wrap
from heatprint.models.zoo import IMAGENET, build

WEIGHTS, CARD = "model.safetensors", "card.json"


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
    write_atomic(folder / WEIGHTS, dump(state))
    card = {
        "architecture": classifier.architecture,
        "classes": list(classifier.classes),
        "digest": classifier.digest,
        "mean": list(classifier.mean),
        "name": classifier.name,
        "notes": dict(notes or {}),
        "size": classifier.size,
        "std": list(classifier.std),
    }
    write_json(folder / CARD, card)


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
        _fill(network, _read(Path(weights)), str(weights))
    mean, std = IMAGENET
    return wrap(
        network, classes=classes, size=size, mean=mean, std=std, name=name or str(source), architecture=str(source)
    )


def _from_folder(folder: Path, name: str | None) -> Classifier:
    try:
        card = json.loads((folder / CARD).read_bytes())
        network = build(card["architecture"], classes=len(card["classes"]), size=card["size"])
        fields = {key: card[key] for key in ("classes", "size", "mean", "std", "architecture")}
        expected, called = card["digest"], card["name"]
        if not isinstance(card["size"], int) or not all(isinstance(v, float) for v in card["mean"] + card["std"]):
            raise TypeError("size, mean and std must be numbers")
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableData(f"load: {folder / CARD} is damaged ({error}). Save the model again.") from error
    _fill(network, _read(folder / WEIGHTS), str(folder / WEIGHTS))
    loaded = wrap(network, **fields, name=name or called)
    if loaded.digest != expected:
        raise UnreadableData(f"load: {folder / WEIGHTS} is not what its card describes. Save the model again.")
    return loaded


def _read(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise UnreadableData(f"load: there is no file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickle protocols that it then reads or refuses
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise UnreadableData(
            f"load: {path} cannot be read as weights ({type(error).__name__}: {str(error)[:200]}). "
            "Give a .safetensors file or a state_dict saved by torch.save; whole pickled models are refused."
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UnreadableData(f"load: {path} holds no state_dict (names to tensors).")
    return dict(state)


def _fill(network: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
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
    network.load_state_dict(dict(state))
