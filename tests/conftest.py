"""Shared fixtures. Everything runs on drawn or random images; the photographs are looked for, never required."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from heatprint.testing import linear_classifier, small_classifier

# `fast` draws the same few examples every time, so that a change that passed cannot fail for what it did not touch;
# `thorough` draws many new ones: HYPOTHESIS_PROFILE=thorough. Neither judges how fast the machine is today.
ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fast", max_examples=30, derandomize=True, **ANY_SPEED)
settings.register_profile("thorough", max_examples=600, print_blob=True, **ANY_SPEED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# two workers share two cores; one alone takes both
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def linear():
    return linear_classifier()


@pytest.fixture(scope="session")
def small():
    return small_classifier()


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The paper's images: HEATPRINT_DATA, or ../shared/data; skipped visibly where there are none."""
    for root in (os.environ.get("HEATPRINT_DATA"), Path(__file__).parents[2] / "shared" / "data"):
        folder = Path(root) / "dogs-cats-images" if root else None
        if folder and folder.is_dir():
            return folder
    pytest.skip("the photographs are not here: set HEATPRINT_DATA to the folder that holds dogs-cats-images")


@pytest.fixture
def laboratory(tmp_path: Path) -> Path:
    """A run folder with a model that was trained for a moment, and three trials."""
    from heatprint.data.sources import load_dataset
    from heatprint.models import load, save, train
    from heatprint.models.train import Training

    folder = tmp_path / "run"
    data = load_dataset("menagerie", size=32, train=120, test=160)
    fresh = load("vgg-slim", classes=data.classes, size=32, seed=0).named("clear")
    model, _ = train(fresh, data.train, Training(stages=((3, 32),), lr=3e-3), seed=0)
    save(model, folder / "models" / "clear")
    (folder / "schema.json").write_text('{"schema": 1}')
    (folder / "trials.toml").write_text(
        '[[trials]]\nname = "pgd"\nalgorithm = "pgd"\nmethod = "bim"\nladder = [1, 2, 4, 8, 16]\n'
        '[[trials]]\nname = "fgsm"\nalgorithm = "fgsm"\nmethod = "fgsm"\nsettings = { eps = "64/255" }\n'
        '[[trials]]\nname = "ddn"\nalgorithm = "ddn"\nmethod = "ddn"\nunseen = true\nsettings = { steps = 20 }\n'
        '[[trials]]\nname = "noise 4"\nalgorithm = "noise"\nmethod = "noise"\nsettings = { eps = "4/255" }\n'
    )
    return folder
