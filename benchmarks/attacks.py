"""Attacks side by side with their peers, and the sparse forward beside the plain one.

Both sides of each comparison alternate in one process, image by image or call by call; medians and ratios are printed
and written as JSON, so that noise of the machine hits both alike. Peers get the classifier in its fastest form (batch
norm folded, channels-last). The peers come from the extras `bench` and `torchattacks`; one that is missing is left out.

    python benchmarks/attacks.py [sparse] [one-pixel] [fgsm] [pgd] [--repeats 5] [--images 4] [--threads 2]
                                 [--model FOLDER --data FOLDER] [--json attacks.json]

Without --model the networks carry fresh weights and attack noise: right for timing, meaningless for success rates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heatprint.attacks import attack, make
from heatprint.core.classifier import Classifier
from heatprint.core.values import Batch
from heatprint.data.sources import draw_batch, load_dataset
from heatprint.evaluation import share
from heatprint.models import load, predict, wrap
from heatprint.models.sparse import SparseForward

LINE = "{:58} {:>12} {:>12} {:>8}  {}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4, help="of the one-pixel comparison, each at full budget")
    parser.add_argument("--generations", type=int, default=100, help="of the one-pixel comparison")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", help="folder of a trained model")
    parser.add_argument("--data", help="data set of its images")
    parser.add_argument("--json", type=Path, default=Path("attacks.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(LINE.format(f"{options.threads} threads", "heatprint", "other", "ratio", "[least, most]"))
    found: dict[str, Any] = {"threads": options.threads, "torch": torch.__version__}
    for name in options.sections or SECTIONS:
        found[name] = SECTIONS[name](options)
    options.json.write_text(json.dumps(found, indent=1))
    print(f"written: {options.json}")


# -- the sparse forward


def thin_vgg() -> Classifier:
    """Eight convolutions of 16 to 96 channels at 64 px."""
    layers: list[nn.Module] = []
    width = 3
    for wide in (16, 32, 64, 96):
        for _ in range(2):
            layers += [nn.Conv2d(width, wide, 3, padding=1), nn.ReLU()]
            width = wide
        layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, 64), nn.ReLU(), nn.Linear(64, 2))
    return wrap(network, classes=("a", "b"), size=64, name="thin VGG at 64 px")


def sparse(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Candidates per second, and the error against float64 of both forwards."""

    def named(architecture: str, size: int) -> Classifier:
        model = load(architecture, classes=("a", "b"), size=size)
        return model.named(f"{architecture.removeprefix('torchvision:')} at {size} px")

    return [
        one_network(named("vgg16-paper", 112), 128, (8, 16, 32), options.repeats),
        one_network(thin_vgg(), 1024, (16, 64, 256), options.repeats),
        one_network(named("vgg-slim", 112), 1024, (16, 64, 256), options.repeats),
        one_network(named("vgg-slim", 64), 1024, (16, 64, 256), options.repeats),
        one_network(named("torchvision:resnet18", 112), 256, (8, 16, 32), options.repeats),
    ]


def one_network(model: Classifier, count: int, batches: Sequence[int], repeats: int) -> dict[str, Any]:
    """One network; the plain side gets ready channels-last batches of the size that is best for it."""
    rng = torch.Generator().manual_seed(0)
    images = (torch.rand((4, 3, model.size, model.size), generator=rng) * 255).round() / 255
    rows = torch.randint(0, 4, (count,), generator=rng)
    places = torch.randint(0, model.size, (count, 1, 2), generator=rng)
    colours = torch.rand((count, 1, 3), generator=rng).round()
    forward = SparseForward(model)
    session = forward.session(images)
    ready = {b: images[rows[:b]].contiguous(memory_format=torch.channels_last) for b in batches}

    def plain(batch: int) -> Callable[[], object]:
        rounds = max(1, min(count // 4, 256) // batch)
        return lambda: [model(ready[batch]) for _ in range(rounds)]

    with torch.no_grad():
        times: dict[Any, list[float]] = {}
        for turn in range(repeats + 1):
            for batch in batches:
                per = seconds(plain(batch)) / (batch * max(1, min(count // 4, 256) // batch))
                times.setdefault(batch, []).append(per)
            times.setdefault("sparse", []).append(seconds(lambda: session(rows, places, colours)) / count)
            if not turn:
                times.clear()  # the first round warms up
    best = min(batches, key=lambda b: statistics.median(times[b]))
    result = compared(f"sparse forward, {model.name} (plain: batch {best})", times["sparse"], times[best])
    return result | errors(model, forward, images, rows[:16], places[:16], colours[:16]) | {"gain": forward.gain}


def errors(model: Classifier, forward: SparseForward, images: Tensor, *edits: Tensor) -> dict[str, float]:
    """Largest error over the largest logit, against float64, of edits ten times what a pixel can do."""
    rows, places, colours = edits
    colours = 10 * colours
    painted = images[rows].clone()
    painted[torch.arange(len(rows)), :, places[:, 0, 0], places[:, 0, 1]] = colours[:, 0]
    sparse_logits = forward(images, rows, places, colours)
    with torch.no_grad():
        plain_logits = model(painted)
        model.network.double()
        mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (model.mean, model.std))
        truth = model.network((painted.double() - mean) / std)
        model.network.float()
    scale = truth.abs().max()
    told = {
        "sparse_error": float((sparse_logits - truth).abs().max() / scale),
        "plain_error": float((plain_logits - truth).abs().max() / scale),
    }
    print(f"    error against float64: sparse {told['sparse_error']:.1e}, plain {told['plain_error']:.1e}")
    return told


# -- attacks and peers


def one_pixel(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds per image at equal population and generations, and the successes of both."""
    model, images = subject(options)
    images = images.take(range(min(options.images, len(images))))
    settings = {"population": 400, "generations": options.generations}
    method = make("one-pixel", preset="scipy", **settings)  # the strategy the peers run too
    generations, trained = options.generations, model.trainable.to(memory_format=torch.contiguous_format)
    peers = {
        "torchattacks, network as trained": torchattacks_pixel(Module(model, trained), generations),
        "torchattacks, network folded": torchattacks_pixel(Module(model, model.network), generations),
        "ART, network folded": art_pixel(model, generations),
    }
    results = []
    for name, peer in peers.items():
        if peer is None:
            continue
        ours, theirs, won, lost = [], [], 0, 0
        for row in range(len(images)):
            one = images.take([row])
            start = time.perf_counter()
            won += int(attack(model, one, method).success.sum())
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            made = peer(one.images, one.labels)
            theirs.append(time.perf_counter() - start)
            saved = Batch.from_images(ids=one.ids, images=made.clamp(0, 1), labels=one.labels)
            lost += int((predict(model, saved.pixels).argmax(1) != one.labels).sum())
        title = f"one pixel against {name}, 400 x {options.generations}, {model.name}"
        result = compared(title, ours, theirs)
        result |= {"successes": share(won, len(images)), "their_successes": share(lost, len(images))}
        print(f"    successes: heatprint {told(result['successes'])}, {name} {told(result['their_successes'])}")
        results.append(result)
    return results


def torchattacks_pixel(network: nn.Module, generations: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    if find_spec("torchattacks") is None:
        return None
    import torchattacks

    found = torchattacks.OnePixel(network, pixels=1, steps=generations, popsize=400, inf_batch=128)
    return lambda images, labels: found(images, labels)


def art_pixel(model: Classifier, generations: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    if find_spec("art") is None:
        return None
    from art.attacks.evasion import PixelAttack

    if generations != 100:
        return None  # it has no setting for them
    found = PixelAttack(art_classifier(model, scale=255), th=1, es=1, verbose=False)

    def run(images: Tensor, labels: Tensor) -> Tensor:
        del labels  # it refuses any for two classes, and takes its own predictions: the images are all right
        made = found.generate((images * 255).numpy().astype(np.float32), max_iter=generations)
        return torch.from_numpy(np.asarray(made, dtype=np.float32)) / 255

    return run


def fgsm(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The smallest gain in whole levels up to 16/255, images in one batch."""
    if find_spec("art") is None:
        return []
    from art.attacks.evasion import FastGradientMethod

    model, images = subject(options)
    images = images.take(range(min(64, len(images))))
    found = FastGradientMethod(
        art_classifier(model), norm=np.inf, eps=16.5 / 255, eps_step=1 / 255, minimal=True, batch_size=64
    )
    x, y = images.images.numpy(), images.labels.numpy()
    title = f"FGSM minimal gain against ART, {len(images)} images, {model.name}"
    return [alternating(title, lambda: attack(model, images, make("fgsm")), lambda: found.generate(x, y), options)]


def pgd(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Forty steps in the maximum norm; heatprint stops an image that has fallen, and judges its PNG file."""
    model, images = subject(options)
    images = images.take(range(min(64, len(images))))
    method = make("pgd", eps="2/255", step="0.5/255", steps=40)
    title = f"PGD-40 against {{}}, {len(images)} images, {model.name}"
    results = []
    if find_spec("torchattacks"):
        import torchattacks

        one = torchattacks.PGD(Module(model, model.network), eps=2 / 255, alpha=0.5 / 255, steps=40)
        x, y = images.images, images.labels
        results.append(
            alternating(title.format("torchattacks"), lambda: attack(model, images, method), lambda: one(x, y), options)
        )
    if find_spec("foolbox"):
        import foolbox

        other = foolbox.attacks.LinfPGD(abs_stepsize=0.5 / 255, steps=40)
        seen = foolbox.PyTorchModel(Module(model, model.network), bounds=(0, 1))
        x, y = images.images, images.labels
        results.append(
            alternating(
                title.format("foolbox"),
                lambda: attack(model, images, method),
                lambda: other(seen, x, y, epsilons=2 / 255),
                options,
            )
        )
    return results


class Module(nn.Module):
    """A classifier as a module of images in [0, 1]."""

    def __init__(self, model: Classifier, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (model.mean, model.std))
        self.folded = network is model.network
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        x = (x - self.mean) / self.std
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last) if self.folded else x)
        return logits


def art_classifier(model: Classifier, scale: float = 1.0) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=Module(model, model.network),
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, model.size, model.size),
        nb_classes=len(model.classes),
        clip_values=(0, scale),
        preprocessing=(0.0, scale),
        device_type="cpu",
    )


def subject(options: argparse.Namespace) -> tuple[Classifier, Batch]:
    """vgg-slim at 112 px, trained or fresh, and images that it gets right."""
    if options.model:
        model = load(Path(options.model), name="vgg-slim")
        images = load_dataset(options.data or "menagerie", size=model.size).test
    else:
        model = load("vgg-slim", classes=("cats", "dogs"), size=112).named("vgg-slim")
        drawn = draw_batch(64, "test_set", size=112, seed=0)
        images = Batch(ids=drawn.ids, pixels=drawn.pixels, labels=predict(model, drawn.pixels).argmax(1))
    images = images.take(range(min(400, len(images))))
    return model, images.take((predict(model, images.pixels).argmax(1) == images.labels).nonzero().squeeze(1))


# -- timing


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternating(
    title: str, ours: Callable[[], object], theirs: Callable[[], object], options: argparse.Namespace
) -> dict[str, Any]:
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(options.repeats)]
    return compared(title, [a for a, _ in pairs], [b for _, b in pairs])


def compared(title: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Medians in milliseconds, and the median of the paired ratios: how many times faster heatprint is."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    mine, other, ratio = (statistics.median(v) for v in (ours, theirs, ratios))
    spread = f"[{min(ratios):.2f}, {max(ratios):.2f}]"
    print(LINE.format(title, f"{1e3 * mine:.3f} ms", f"{1e3 * other:.3f} ms", f"{ratio:.2f}", spread), flush=True)
    return {
        "title": title,
        "heatprint_ms": 1e3 * mine,
        "other_ms": 1e3 * other,
        "ratio": ratio,
        "least": min(ratios),
        "most": max(ratios),
        "repeats": len(ratios),
    }


def told(found: dict[str, Any] | None) -> str:
    assert found is not None
    return f"{found['count']}/{found['total']} [{100 * found['low']:.1f} %, {100 * found['high']:.1f} %]"


SECTIONS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "sparse": sparse,
    "one-pixel": one_pixel,
    "fgsm": fgsm,
    "pgd": pgd,
}

if __name__ == "__main__":
    main()
