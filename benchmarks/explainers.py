"""What a heat map costs beside a gradient and beside the peers, and which architectures conserve relevance.

python benchmarks/explainers.py speed [--networks vgg16 resnet18 resnet50] [--threads 1] [--images 8] [--repeats 7]
python benchmarks/explainers.py memory [--networks vgg16 resnet18] [--images 8]
python benchmarks/explainers.py conservation

Speed: rounds alternate between the methods, each at its best memory format; ratios are taken within a round.
Memory: each method in a process of its own, resident memory: what the first explanation leaves behind (the parts of the
weights that are kept), and the peak of the next above that.
Conservation: biases zeroed after batch norm is folded, one calibrated random network per architecture.
Needs the bench extra for zennit and captum; without them their columns are left out.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from heatprint.core.classifier import Classifier
from heatprint.explainers import make
from heatprint.models import wrap

ARCHITECTURES = ["vgg11", "vgg16", "resnet18", "resnet50", "densenet121", "mobilenet_v2", "efficientnet_b0",
                 "convnext_tiny", "vit_b_16"]  # fmt: skip
Method = Callable[[], Tensor]
FREED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # freed memory leaves the process
FREED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # freed memory leaves the process


def calibrated(architecture: str, size: int) -> nn.Module:
    """A random network whose batch norms know their inputs, and whose head is not zero."""
    torch.manual_seed(1)
    raw = getattr(torchvision.models, architecture)(weights=None)
    for module in raw.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    if hasattr(raw, "heads"):
        nn.init.normal_(raw.heads.head.weight, std=0.05)
    with torch.no_grad():
        raw.train()(torch.randn(8, 3, size, size))
    return raw.eval().requires_grad_(False)


def wrapped(raw: nn.Module, size: int) -> Classifier:
    return wrap(raw, classes=[str(k) for k in range(1000)], size=size)


def methods(architecture: str, images: int, only: str | None = None) -> dict[str, Method]:
    """Name to one explanation of a batch."""
    raw = calibrated(architecture, 112)
    model = wrapped(raw, 112)
    inputs = torch.randn(images, 3, 112, 112)
    target = torch.zeros(images, dtype=torch.long)
    formats = {"channels-last": torch.channels_last, "channels-first": torch.contiguous_format}
    found: dict[str, Method] = {}
    ours = inputs.contiguous(memory_format=torch.channels_last)
    for name, method in (("gradient", "gradient"), ("lrp", "lrp.sequential_preset_a_flat")):
        explainer = make(method)
        found[name] = lambda explainer=explainer: explainer.attribute(model, ours, target)[0].relevance
    for name, layout in formats.items():
        if find_spec("zennit") and only in (None, f"zennit {name}"):
            found[f"zennit {name}"] = zennit(raw, architecture, inputs.contiguous(memory_format=layout), target)
        if find_spec("captum") and architecture.startswith("vgg") and only in (None, f"captum {name}"):
            found[f"captum {name}"] = captum(raw, inputs.contiguous(memory_format=layout), target)
    return found


def zennit(raw: nn.Module, architecture: str, inputs: Tensor, target: Tensor) -> Method:
    """EpsilonPlusFlat with the canonizer its documentation names for the architecture."""
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    layout = torch.channels_last if inputs.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    network = getattr(torchvision.models, architecture)(weights=None).eval().requires_grad_(False)
    network.load_state_dict(raw.state_dict())
    network = network.to(memory_format=layout)
    canonizer = ResNetCanonizer() if architecture.startswith("resnet") else SequentialMergeBatchNorm()
    seed = torch.nn.functional.one_hot(target, 1000).float()

    def run() -> Tensor:
        leaf = inputs.clone().requires_grad_()
        with EpsilonPlusFlat(canonizers=[canonizer]).context(network) as watched:
            return torch.autograd.grad(watched(leaf), leaf, seed)[0]

    return run


def captum(raw: nn.Module, inputs: Tensor, target: Tensor) -> Method:
    """Alpha 1 beta 0 on convolutions, epsilon elsewhere: Captum has no flat rule."""
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule

    layout = torch.channels_last if inputs.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    network = torchvision.models.vgg16(weights=None).eval()
    network.load_state_dict(raw.state_dict())
    network = network.to(memory_format=layout)

    def run() -> Tensor:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.rule = Alpha1_Beta0_Rule()
            elif isinstance(module, nn.Linear | nn.AdaptiveAvgPool2d):
                module.rule = EpsilonRule(epsilon=0.1)
        return LRP(network).attribute(inputs.clone().requires_grad_(), target=target)

    return run


def speed(networks: list[str], threads: int, images: int, repeats: int) -> None:
    torch.set_num_threads(threads)
    print(f"{threads} threads, batches of {images} at 112 px, {repeats} alternating rounds, best layout of each peer")
    for architecture in networks:
        runs = methods(architecture, images)
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for round_ in range(repeats + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if round_:  # the first warms up
                    spent[name].append(time.perf_counter() - start)
        base = spent["gradient"]
        print(f"{architecture}: gradient {statistics.median(base) / images * 1e3:.1f} ms per image")
        print(f"  heatprint, preset A flat: {told(ratios(spent['lrp'], base))} gradients")
        for peer in ("zennit", "captum"):
            layouts = [spent[name] for name in spent if name.startswith(peer)]
            if layouts:
                best = min(layouts, key=statistics.median)
                print(
                    f"  {peer}: {told(ratios(best, base))} gradients, {told(ratios(best, spent['lrp']))} of heatprint's"
                )


def ratios(one: list[float], other: list[float]) -> list[float]:
    return [a / b for a, b in zip(one, other, strict=True)]


def told(values: list[float]) -> str:
    return f"x{statistics.median(values):.2f} [{min(values):.2f} {max(values):.2f}]"


def memory(networks: list[str], images: int) -> None:
    print(f"MiB of one explanation at its peak, and MiB kept from the first on; batches of {images} at 112 px")
    for architecture in networks:
        peaks: dict[str, list[float]] = {}
        for name in ("gradient", "lrp", "zennit channels-last"):
            if name.startswith("zennit") and not find_spec("zennit"):
                continue
            command = [sys.executable, __file__, "peak", "--networks", architecture, "--images", str(images),
                       "--method", name]  # fmt: skip
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | FREED).stdout
            peaks[name] = [float(number) for number in out.split()]
        base = peaks["gradient"][1]
        cells = [f"{name} {top:.0f} (x{top / base:.2f}), kept {kept:.0f}" for name, (kept, top) in peaks.items()]
        print(f"{architecture}: {'; '.join(cells)}")


def peak(architecture: str, images: int, method: str) -> None:
    """What a first explanation leaves behind, and how far the next one rises above that."""
    torch.set_num_threads(1)
    runs = methods(architecture, images, method)
    runs["gradient"]()
    gc.collect()
    loaded = status("VmRSS")
    runs[method]()
    gc.collect()
    rests = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    runs[method]()
    print((rests - loaded) / 1024, (status("VmHWM") - rests) / 1024)


def status(key: str) -> float:
    """A line of the process's own status, KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(key)))


def conservation() -> None:
    print("sum of relevance over the logit with biases zeroed; largest and smallest of 4 images")
    print(f"{'':16} {'preset A flat':>22} {'epsilon-plus':>22} {'lrp-0':>22} {'zennit epsilon-plus':>24}")
    for architecture in ARCHITECTURES:
        size = 224 if architecture.startswith("vit") else 112
        raw = calibrated(architecture, size)
        model = wrapped(raw, size)
        for network in (raw, model.network):
            zero_biases(network)
        inputs = torch.randn(4, 3, size, size)
        target = model.network(inputs).argmax(1)
        cells = []
        for name, settings in (
            ("lrp.sequential_preset_a_flat", {"epsilon": 1e-9}),
            ("lrp.epsilon_plus", {"epsilon": 1e-9}),
            ("lrp.z", {}),
        ):
            seen, _ = make(name, **settings).attribute(model, inputs, target)
            share = seen.totals["input"] / seen.score
            cells.append(f"{share.min():.5f} to {share.max():.5f}")
        cells.append(zennit_conserves(raw, architecture, inputs, target) if find_spec("zennit") else "not installed")
        print(f"{architecture:16} {cells[0]:>22} {cells[1]:>22} {cells[2]:>22} {cells[3]:>24}", flush=True)


def zero_biases(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
        for name, parameter in module.named_parameters(recurse=False):
            if "bias" in name:
                parameter.data.zero_()


def zennit_conserves(raw: nn.Module, architecture: str, inputs: Tensor, target: Tensor) -> str:
    """The same for zennit's EpsilonPlus, with the canonizer it has for the architecture."""
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import EpsilonPlus
    from zennit.torchvision import ResNetCanonizer

    canonizer = ResNetCanonizer() if architecture.startswith("resnet") else SequentialMergeBatchNorm()
    leaf = inputs.clone().requires_grad_()
    try:
        with EpsilonPlus(canonizers=[canonizer]).context(raw) as watched:
            logits = watched(leaf)
            logit = logits.detach().gather(1, target[:, None])
            (relevance,) = torch.autograd.grad(
                logits, leaf, torch.zeros_like(logits).scatter(1, target[:, None], logit)
            )
    except RuntimeError as error:
        return f"error: {str(error)[:14]}"
    share = relevance.sum((1, 2, 3)) / logit.squeeze(1)
    return f"{share.min():.4g} to {share.max():.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "memory", "conservation", "peak"])
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet18", "resnet50"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--method", default="lrp")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # captum's and zennit's own
    if given.what == "speed":
        speed(given.networks, given.threads, given.images, given.repeats)
    elif given.what == "memory":
        memory(given.networks, given.images)
    elif given.what == "peak":
        peak(given.networks[0], given.images, given.method)
    else:
        conservation()


if __name__ == "__main__":
    main()
