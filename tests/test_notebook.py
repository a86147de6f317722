"""Values in a notebook: pictures that are the values' own, words that are escaped, and nothing fetched before."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from heatprint.attacks import attack, make
from heatprint.core.display import Displayed
from heatprint.core.errors import InvalidInput
from heatprint.core.values import Batch
from heatprint.explainers import explain
from heatprint.explainers import make as make_explainer
from heatprint.signatures import cluster
from heatprint.signatures import make as make_signature
from heatprint.testing import labelled_batch

HOSTILE = "<script>alert(1)</script>&\"'.png"


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")) for one in found]


@pytest.fixture(scope="module")
def batch(small) -> Batch:
    found = labelled_batch(small, 12)
    return Batch(ids=(HOSTILE, *found.ids[1:]), pixels=found.pixels, labels=found.labels)


def test_a_batch_shows_its_first_images_and_says_how_many_there_are(batch):
    page = batch._repr_html_()
    shown = pictures(page)
    assert len(shown) == 8
    np.testing.assert_array_equal(shown[0], batch.pixels[0].permute(1, 2, 0))
    assert "12 images" in page
    assert "and 4 more" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_an_attack_shows_successes_and_counts_them(small, batch):
    hit = attack(small, batch, make("fgsm", eps=64 / 255))
    page = hit._repr_html_()
    won = hit.success.nonzero().flatten().tolist()
    assert won
    assert f"succeeded <b>{len(won)} of {hit.attempted}" in page
    clean, adversarial, _ = pictures(page)[:3]
    np.testing.assert_array_equal(clean, hit.clean.pixels[won[0]].permute(1, 2, 0))
    np.testing.assert_array_equal(adversarial, hit.adversarial.pixels[won[0]].permute(1, 2, 0))


def test_an_attack_without_success_shows_what_was_tried(small, batch):
    hit = attack(small, batch, make("noise", eps=0.0))
    page = hit._repr_html_()
    assert "succeeded <b>0 of" in page
    assert len(pictures(page)) == 8 * 3


def test_heat_maps_share_a_scale_that_is_white_at_zero(small, batch):
    seen = explain(small, batch, make_explainer("gradient"))
    page = seen._repr_html_()
    first = pictures(page)[0]
    sign = np.sign(first[..., 0].astype(int) - first[..., 2])  # red above zero, blue below
    heat = seen.heat[0].numpy()
    strong = np.abs(heat) > np.abs(heat).max() / 4
    assert (sign[strong] == np.sign(heat[strong])).all()
    assert "one scale for all" in page


def test_strategies_show_their_sizes_and_spectrum(small, batch):
    maps = torch.rand(60, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    found = cluster(maps, make_signature("spray"))
    page = found._repr_html_()
    assert f"proposed by the data <b>{found.proposed}</b>" in page
    assert page.count("<circle") == len(found.eigenvalues)


def test_an_empty_batch_is_no_error():
    none = Batch(ids=(), pixels=torch.zeros(0, 3, 4, 4, dtype=torch.uint8), labels=torch.zeros(0, dtype=torch.int64))
    assert "0 images" in none._repr_html_()


def test_a_value_nobody_draws_says_so():
    class Odd(Displayed):
        pass

    with pytest.raises(InvalidInput, match="Odd"):
        Odd()._repr_html_()


def test_values_do_not_wake_the_report():
    code = "import sys, heatprint.core.values; sys.exit('heatprint.report' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
