"""Folders of hostile files, the menagerie, splits."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from heatprint.core.errors import InvalidInput, UnreadableData
from heatprint.core.values import Batch
from heatprint.data import load_folder, load_images, menagerie, split
from heatprint.data.sources import load_dataset, write_menagerie
from heatprint.data.splits import sample


def photo(path, size=(20, 16), colour=(200, 100, 50), mode="RGB", **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path, **save)


@pytest.fixture
def tree(tmp_path):
    for kind in ("cats", "dogs"):
        for i in range(3):
            photo(tmp_path / kind / f"{kind[:-1]}.{i}.png")
    return tmp_path


def test_ids_are_stable_sorted_relative_paths(tree):
    photo(tree / "cats" / "deeper" / "x.jpg")
    batch = load_images(tree, size=16)
    assert batch.ids == ("cats/cat.0.png", "cats/cat.1.png", "cats/cat.2.png", "cats/deeper/x.jpg",
                         "dogs/dog.0.png", "dogs/dog.1.png", "dogs/dog.2.png")  # fmt: skip
    assert batch.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert batch.pixels.shape == (7, 3, 16, 16)
    assert batch.pixels[0, :, 8, 8].tolist() == [200, 100, 50]


def png_of(width, height):
    """A few bytes that claim to be a picture of this size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_bad_images_are_listed_and_skipped(tree):
    whole = tree / "cats" / "big.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(whole)
    (tree / "cats" / "truncated.jpg").write_bytes(whole.read_bytes()[:3000])
    (tree / "cats" / "zero.png").write_bytes(b"")
    (tree / "cats" / "text.jpg").write_text("not an image")
    (tree / "dogs" / "bomb.png").write_bytes(png_of(60000, 60000))
    (tree / "dogs" / "large.png").write_bytes(png_of(9000, 9000))
    (tree / "dogs" / "link.png").symlink_to("/nowhere/at/all.png")
    loaded = load_folder(tree, size=16)
    reasons = {s.id: s.reason for s in loaded.skipped}
    assert set(reasons) == {"cats/truncated.jpg", "cats/zero.png", "cats/text.jpg", "dogs/bomb.png", "dogs/large.png",
                            "dogs/link.png"}  # fmt: skip
    assert reasons["cats/zero.png"] == "the file is empty"
    assert "not an image" in reasons["cats/text.jpg"]
    assert "truncated" in reasons["cats/truncated.jpg"]
    assert "pixels" in reasons["dogs/bomb.png"]
    assert "pixels" in reasons["dogs/large.png"]
    assert len(loaded.batch) == 7


def test_orientation_of_cameras_is_applied(tree):
    picture = np.zeros((20, 20, 3), dtype=np.uint8)
    picture[:10] = 255  # bright upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(picture).save(tree / "cats" / "turned.png", exif=exif)
    batch = load_images(tree, size=20)
    turned = batch.pixels[batch.ids.index("cats/turned.png"), 0].float()
    assert turned[:, 12:].mean() > 250
    assert turned[:, :8].mean() < 5


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F"])
def test_any_mode_becomes_rgb(tree, mode):
    path = tree / "dogs" / ("m.tif" if mode in ("CMYK", "I;16", "I", "F") else "m.png")
    if mode == "I;16":
        Image.fromarray(np.full((9, 9), 32768, dtype=np.uint16)).save(path)
    else:
        photo(path, colour=(128, 128, 128), mode=mode)
    batch = load_images(tree, size=12)
    pixel = batch.pixels[batch.ids.index(f"dogs/{path.name}")].float()
    assert pixel.shape == (3, 12, 12)
    assert abs(pixel.mean() - 128) < 3
    assert (pixel[0] - pixel[1]).abs().mean() < 1


def test_transparency_is_laid_on_white(tree):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tree / "cats" / "glass.png")
    batch = load_images(tree, size=8)
    assert (batch.pixels[batch.ids.index("cats/glass.png")] == 255).all()


def test_folders_that_cannot_be_classes_say_what_to_do(tree, tmp_path):
    with pytest.raises(UnreadableData, match="is not a folder"):
        load_images(tmp_path / "nowhere")
    (tree / "foxes").mkdir()
    with pytest.raises(UnreadableData, match=r"no usable image in .*foxes"):
        load_images(tree)
    one = tmp_path / "one"
    photo(one / "cats" / "a.png")
    with pytest.raises(UnreadableData, match=r"1 class folder.*two or more"):
        load_images(one)


def test_limits_keep_the_classes_even(tree):
    batch = load_folder(tree, size=8, limit=4).batch
    assert torch.bincount(batch.labels).tolist() == [2, 2]


def test_a_dataset_of_two_folders_or_one(tree, tmp_path):
    both = tmp_path / "kaggle" / "dogs-cats"
    for part in ("training_set", "test_set"):
        for kind in ("cats", "dogs"):
            photo(both / part / kind / "a.png")
    data = load_dataset(str(tmp_path / "kaggle"), size=32)
    assert data.train.ids == ("training_set/cats/a.png", "training_set/dogs/a.png")
    assert data.test.ids == ("test_set/cats/a.png", "test_set/dogs/a.png")
    photo(both / "test_set" / "foxes" / "a.png")
    with pytest.raises(UnreadableData, match="Both need the same class folders"):
        load_dataset(str(both), size=32)
    with pytest.raises(UnreadableData, match="neither 'menagerie'"):
        load_dataset("menagery", size=32)


@given(st.lists(st.text(min_size=1), unique=True, max_size=60), st.text(min_size=1))
def test_splits_part_every_id_once_and_never_move_it(ids, newcomer):
    shares = {"train": 0.6, "fit": 0.2, "test": 0.2}
    rows = split(ids, shares)
    assert sorted(r for part in rows.values() for r in part.tolist()) == list(range(len(ids)))
    where = {ids[r]: part for part, found in rows.items() for r in found.tolist()}
    grown = [newcomer + "!" * 61, *reversed(ids)]
    again = split(grown, shares)
    assert all(where[grown[r]] == part for part, found in again.items() for r in found.tolist() if grown[r] in where)


def test_split_shares_are_kept_roughly_and_checked():
    rows = split([str(i) for i in range(5000)], {"a": 0.7, "b": 0.3})
    assert abs(len(rows["a"]) - 3500) < 150
    with pytest.raises(InvalidInput, match="add up to 1"):
        split(["x"], {"a": 0.7})


def test_samples_are_even_and_depend_on_ids_alone():
    labels = torch.arange(40) % 2
    batch = Batch(ids=tuple(f"i{n}" for n in range(40)), pixels=torch.zeros(40, 3, 2, 2).byte(), labels=labels)
    rows = sample(batch, 11)
    assert torch.bincount(labels[rows]).tolist() == [6, 5]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert set(batch.take(order).take(sample(batch.take(order), 11)).ids) == set(batch.take(rows).ids)
    assert torch.equal(sample(batch, None), torch.arange(40))


def test_a_limit_on_a_plain_tree_keeps_every_class(tmp_path):
    for kind in ("a", "b"):
        for i in range(60):
            photo(tmp_path / kind / f"{i}.png", size=(8, 8))
    data = load_dataset(str(tmp_path), size=32, train=20, test=10)
    assert torch.bincount(data.train.labels).tolist() == [10, 10]
    assert torch.bincount(data.test.labels).tolist() == [5, 5]
    for path in sorted((tmp_path / "b").iterdir())[1:]:
        path.unlink()
    with pytest.raises(UnreadableData, match="has no image of b"):
        load_dataset(str(tmp_path), size=32)


@given(st.integers(0, 2**31), st.sampled_from(menagerie.SPECIES), st.sampled_from([32, 64, 112]))
@settings(max_examples=settings.default.max_examples // 2)
def test_the_menagerie_is_deterministic_and_masks_fit(seed, species, size):
    def scene(artefact=None):
        return menagerie.draw(species, rng=np.random.default_rng(seed), size=size, artefact=artefact)

    plain = scene()
    assert np.array_equal(plain.image, scene().image)
    assert plain.image.shape == (size, size, 3)
    assert 0.1 < plain.object_mask.mean() < 0.8
    assert not plain.artefact_mask.any()
    for artefact in menagerie.ARTEFACTS:
        planted = scene(artefact)
        assert planted.artefact_mask.any()
        assert np.array_equal(planted.image[~planted.artefact_mask], plain.image[~planted.artefact_mask])
        assert not (planted.object_mask & planted.artefact_mask).any()


def test_pasting_an_artefact_leaves_the_argument_alone():
    image = np.full((40, 60, 3), 90, dtype=np.uint8)
    pasted, mask = menagerie.paste(image, "bars", rng=np.random.default_rng(0))
    assert (image == 90).all()
    assert (pasted != image).any(2)[mask].mean() > 0.5
    with pytest.raises(InvalidInput, match="bars"):
        menagerie.paste(image, "fence", rng=np.random.default_rng(0))


def test_a_written_menagerie_reads_back_as_what_a_study_draws(tmp_path):
    out = tmp_path / "animals"
    write_menagerie(out, train=4, test=2, size=32, seed=5, masks=True)
    read = load_dataset(str(out), size=32)
    drawn = load_dataset("menagerie", size=32, train=4, test=2, seed=5)
    where = {i: row for row, i in enumerate(drawn.train.ids)}
    assert set(read.train.ids) == set(where)
    for row, name in enumerate(read.train.ids):
        assert torch.equal(read.train.pixels[row], drawn.train.pixels[where[name]])
    assert len(list((out / "masks").rglob("*.png"))) == 6
    with pytest.raises(InvalidInput, match="not an empty folder"):
        write_menagerie(out, train=2, test=2, size=32)


def test_the_menagerie_cannot_be_told_apart_by_colour():
    """A nearest-mean classifier on mean colours stays near chance: species differ by shape."""
    data = load_dataset("menagerie", size=32, train=300, test=200)
    train, test = data.train.images.mean((2, 3)), data.test.images.mean((2, 3))
    centres = torch.stack([train[data.train.labels == k].mean(0) for k in (0, 1)])
    right = (torch.cdist(test, centres).argmin(1) == data.test.labels).float().mean()
    assert right < 0.62


def test_the_photographs_load_as_kaggle_lays_them_out(photographs):
    data = load_dataset(str(photographs), size=32, train=20, test=10)
    assert data.classes == ("cats", "dogs")
    assert (len(data.train), len(data.test)) == (20, 10)
    assert data.train.ids[0].startswith("training_set/cats/cat.")
