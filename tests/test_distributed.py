"""Training in several processes: the same weights as in one, and the same bytes after a process was killed.

Run by torchrun this file is one of the processes: it trains the cases into a folder.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, StoreError, Unsupported
from heatprint.core.store import Store
from heatprint.core.values import Batch
from heatprint.models import load, train, wrap
from heatprint.models.augment import Augmentation, augmented
from heatprint.models.distributed import World, synchronised, world
from heatprint.models.lesson import CrossEntropy, Validation
from heatprint.models.train import Training
from heatprint.study import load_recipe
from heatprint.study.progress import SILENT
from heatprint.study.steps import Lab
from heatprint.study.training import train_first

CPU = torch.device("cpu")
ONE_OF_TWO = World(rank=0, size=2, device=CPU)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
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


def torchrun_line(processes: int, *command: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone", *command]


def torchrun(processes: int, *command: str | Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
    line = torchrun_line(processes, *command)
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert (done.returncode != 0) == fails, done.stderr
    return done


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
    torchrun(2, __file__, "cpu", tmp_path)
    assert_trained_alike(tmp_path, "cpu", 1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_the_weights_of_one_with_batch_norm_measured_over_both(tmp_path):
    torchrun(2, __file__, "cuda", tmp_path)
    assert_trained_alike(tmp_path, "cuda", 5e-4)


@pytest.mark.slow
def test_a_training_resumes_to_the_same_bytes_after_one_of_three_processes_was_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    torchrun(3, __file__, "cpu", whole)
    assert_trained_alike(whole, "cpu", 1e-5)

    torchrun(3, __file__, "cpu", killed, "uneven 1 6", fails=True)  # in the second epoch
    assert (killed / "uneven.unfinished").exists()
    assert not (killed / "uneven.safetensors").exists()
    torchrun(3, __file__, "cpu", killed)
    for name in CASES:
        assert (killed / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()


@pytest.mark.slow
def test_a_process_whose_neighbour_dies_says_so(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        here = ENVIRONMENT | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    pair = [
        subprocess.Popen([sys.executable, __file__, "cpu", tmp_path, "uneven 1 6"], text=True, stderr=subprocess.PIPE,
                         env=here | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]  # fmt: skip
    told = [process.communicate(timeout=300)[1] for process in pair]
    assert pair[1].returncode == -signal.SIGKILL
    assert "EngineError: train: another of the 2 processes has ended, so this one ends, too" in told[0]


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


def test_a_number_of_processes_that_nobody_started_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InvalidInput, match=r"WORLD_SIZE = 4 .* LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set"), \
            world(CPU):  # fmt: skip
        pass


def written(path: Path, epochs: int) -> Path:
    """The recipe of a study whose network has no batch norm, which processes on the CPU can train together."""
    path.write_text(
        'name = "bare"\narchitecture = "torchvision:squeezenet1_1"\n'
        "[data]\nsize = 32\ntrain = 40\ntest = 8\n"
        f"[training]\nbatch = 16\nstages = [[{epochs}, 32]]\n"
        '[[attacks]]\nname = "fgsm"\nmethod = "fgsm"\n'
        '[strong]\nname = "pgd"\nmethod = "pgd"\n'
    )
    return path


def found_ready(recipe: Path, run: Path) -> Classifier:
    """The classifier as a study takes it from the folder, without training anything."""
    before = {path: path.stat().st_mtime_ns for path in (run / "models").rglob("*")}
    lab = Lab(load_recipe(recipe), Store(run), SILENT)
    data = lab.load()
    clear = lab.train(lab.begin(data), data)
    assert {path: path.stat().st_mtime_ns for path in (run / "models").rglob("*")} == before
    return clear


def test_a_study_finds_the_model_that_was_trained_by_itself(tmp_path):
    recipe = written(tmp_path / "bare.toml", epochs=1)
    folder = train_first(load_recipe(recipe), tmp_path / "run")
    assert folder == tmp_path / "run" / "models" / "clear"
    assert found_ready(recipe, tmp_path / "run").digest == load(folder).digest


def test_a_folder_in_use_is_refused(tmp_path):
    with Store(tmp_path).writing(), pytest.raises(StoreError, match="another process is writing"):
        train_first(load_recipe("tiny"), tmp_path)


@pytest.mark.slow
def test_the_command_interrupted_in_two_processes_says_how_to_go_on_and_ends_in_the_same_bytes(tmp_path):
    recipe = written(tmp_path / "bare.toml", epochs=12)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    command = ["-m", "heatprint", "train", "--recipe", recipe, "--device", "cpu", "--out"]
    assert f"model: {whole / 'models' / 'clear'}" in torchrun(2, *command, whole).stdout

    process = subprocess.Popen(torchrun_line(2, *command, stopped), env=ENVIRONMENT, text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    while not (stopped / "models" / "clear" / "unfinished.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
    told, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert told.count("Stopped. The same command again goes on after the last finished epoch.") == 1
    assert not (stopped / "models" / "clear" / "card.json").exists()

    torchrun(2, *command, stopped)
    journal = [json.loads(line) for line in (stopped / "events.jsonl").read_text().splitlines()]
    again = max(i for i, line in enumerate(journal) if line == line | {"step": "training clear", "event": "begin"})
    assert journal[again + 1]["done"] > 3  # the steps of an epoch: the first was not trained again
    for name in ("model.safetensors", "card.json"):
        assert (stopped / "models" / "clear" / name).read_bytes() == (whole / "models" / "clear" / name).read_bytes()
    assert not (stopped / "models" / "clear" / "unfinished.safetensors").exists()
    found_ready(recipe, stopped)


if __name__ == "__main__":
    process(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
