"""Training in several processes: the same weights as in one, and the same bytes after a process was killed.

Run by torchrun this file is one of the processes: it trains the cases into a folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, Unsupported
from heatprint.core.values import Batch
from heatprint.models import train, wrap
from heatprint.models.augment import Augmentation, augmented
from heatprint.models.distributed import World, synchronised, world
from heatprint.models.lesson import CrossEntropy, Validation
from heatprint.models.train import Training

CPU = torch.device("cpu")
ONE_OF_TWO = World(rank=0, size=2, device=CPU)
IMAGES = 50
PLAIN = Training(optimiser="sgd", schedule="constant", lr=0.05, weight_decay=0.01, stages=((3, 0),), batch=16)
CASES = {
    "short": PLAIN,  # batches of 16, 16, 16 and 2: the last one leaves one of three processes without images
    "uneven": replace(PLAIN, batch=11, clip=0.3, schedule="one-cycle", stages=((2, 12), (1, 16))),
    "adamw": replace(PLAIN, optimiser="adamw", lr=1e-3, batch=20),
}


def fresh(*, normed: bool = False) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(6) if normed else nn.Identity()
        layers = [nn.Conv2d(3, 6, 3, bias=not normed), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()]
        network = nn.Sequential(*layers, nn.Linear(54, 3))
    return wrap(network, classes=("a", "b", "c"), size=16)


def images() -> Batch:
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(rng.integers(0, 256, (IMAGES, 3, 16, 16), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 3, IMAGES))
    return Batch(ids=tuple(f"{i:02}" for i in range(IMAGES)), pixels=pixels, labels=labels)


def process(kind: str, folder: Path, dying: str = "") -> None:
    """Train all cases into a folder; ``"CASE RANK STEP"`` says which process is killed, and where."""
    case, rank, last = dying.split() if dying else ("", "", "0")
    with world(torch.device(kind)) as group:
        with pytest.raises(InvalidInput, match=f"the {group.size} processes differ in images, recipe, seed"):
            train(fresh().to(group.device), images(), PLAIN, seed=group.rank, world=group)
        for name, training in CASES.items():

            def progress(done: int, total: int, note: object = "", name: str = name) -> None:
                if (name, str(group.rank)) == (case, rank) and done > int(last):
                    os.kill(os.getpid(), signal.SIGKILL)

            start = fresh(normed=kind == "cuda").to(group.device)
            model, history = train(start, images(), training, seed=7, checkpoint=folder / f"{name}.unfinished",
                                   progress=progress, world=group)  # fmt: skip
            if group.leads:
                weights = {key: value.cpu().contiguous() for key, value in model.trainable.state_dict().items()}
                save_file(weights, folder / f"{name}.safetensors", metadata={"losses": str([e.loss for e in history])})


def torchrun(processes: int, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def assert_trained_alike(folder: Path, device: str, atol: float) -> None:
    """The weights and losses in a folder are those of one process, and training moved every one of them much more."""
    for name, training in CASES.items():
        start = fresh(normed=device == "cuda").to(device)
        model, history = train(start, images(), training, seed=7)
        found = load_file(folder / f"{name}.safetensors")
        before = start.trainable.state_dict()
        for key, value in model.trainable.state_dict().items():
            assert torch.allclose(found[key], value.cpu(), rtol=0, atol=atol), f"{name}: {key}"
            assert not torch.allclose(before[key], value, rtol=0, atol=1e-3), f"{name}: {key} did not move"
        with safe_open(folder / f"{name}.safetensors", "pt") as file:
            losses = json.loads(file.metadata()["losses"])
        assert losses == pytest.approx([epoch.loss for epoch in history], abs=atol)


def test_two_processes_train_the_weights_of_one(tmp_path):
    run = torchrun(2, __file__, "cpu", tmp_path)
    assert run.returncode == 0, run.stderr
    assert_trained_alike(tmp_path, "cpu", 1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_the_weights_of_one_with_batch_norm_measured_over_both(tmp_path):
    run = torchrun(2, __file__, "cuda", tmp_path)
    assert run.returncode == 0, run.stderr
    assert_trained_alike(tmp_path, "cuda", 5e-4)


@pytest.mark.slow
def test_a_training_resumes_to_the_same_bytes_after_one_of_three_processes_was_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    run = torchrun(3, __file__, "cpu", whole)
    assert run.returncode == 0, run.stderr
    assert_trained_alike(whole, "cpu", 1e-5)

    run = torchrun(3, __file__, "cpu", killed, "uneven 1 6")  # in the second epoch
    assert run.returncode != 0
    assert (killed / "uneven.unfinished").exists()
    assert not (killed / "uneven.safetensors").exists()
    run = torchrun(3, __file__, "cpu", killed)
    assert run.returncode == 0, run.stderr
    for name in CASES:
        assert (killed / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_divide_a_batch_evenly_and_leave_no_image_out(size):
    for count in range(20):
        shares = [range(count)[World(rank=rank, size=size, device=CPU).share(count)] for rank in range(size)]
        assert [image for share in shares for image in share] == list(range(count))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_of_a_batch_is_augmented_as_in_the_whole():
    pictures = torch.rand(7, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    whole = augmented(pictures, 8, Augmentation(), np.random.default_rng(3))
    for rank in range(9):
        share, rng = World(rank=rank, size=9, device=CPU).share(7), np.random.default_rng(3)
        assert torch.equal(augmented(pictures[share], 8, Augmentation(), rng, count=7, share=share), whole[share])
        after = np.random.default_rng(3)
        augmented(pictures, 8, Augmentation(), after)
        assert rng.random() == after.random()  # so the next batch is the same, too


def test_synchronised_batch_norm_writes_into_the_network_it_came_from():
    network = fresh(normed=True).trainable.train()
    twin = synchronised(network)
    assert isinstance(twin[1], nn.SyncBatchNorm)
    assert isinstance(network[1], nn.BatchNorm2d)
    assert all(a is b for a, b in zip(twin.parameters(), network.parameters(), strict=True))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    twin(torch.rand(4, 3, 16, 16))
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_batch_norm_on_several_cpu_processes_is_refused():
    with pytest.raises(Unsupported, match=r"has batch norm \(1\), which 2 processes can compute together on GPUs only"):
        train(fresh(normed=True), images(), PLAIN, world=ONE_OF_TWO)


@pytest.mark.parametrize("asked", [{"objective": CrossEntropy()}, {"validation": Validation(measure=lambda _: {})}])
def test_several_processes_refuse_what_draws_for_whole_batches(asked):
    with pytest.raises(InvalidInput, match="2 processes divide a training on cross-entropy, without a validation"):
        train(fresh(), images(), PLAIN, world=ONE_OF_TWO, **asked)


def test_more_processes_than_images_in_a_batch_are_refused():
    with pytest.raises(InvalidInput, match="17 processes cannot divide batches of 16 images"):
        train(fresh(), images(), PLAIN, world=World(rank=0, size=17, device=CPU))


if __name__ == "__main__":
    process(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
