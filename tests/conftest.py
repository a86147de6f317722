"""Shared fixtures. Everything runs on drawn or random images; the photographs are looked for, never required."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from heatprint.testing import linear_classifier, small_classifier

torch.set_num_threads(2)


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
