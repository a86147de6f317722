"""Files from strangers: nothing crashes, hangs, grows or runs; every bad one is named, every good one read rightly."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heatprint import detectors
from heatprint.cli import main
from heatprint.core.classifier import Classifier
from heatprint.core.digest import content_digest
from heatprint.core.errors import HeatprintError, InvalidInput, StoreError, UnreadableData
from heatprint.core.pictures import FORMATS, MOST_BYTES, decode, stored
from heatprint.core.reading import parse_json, read_json, read_regular, spelled
from heatprint.core.streams import stream
from heatprint.data import load_files, load_folder
from heatprint.data.sources import write_menagerie
from heatprint.defences.worth import Worth
from heatprint.detectors.examples import Examples
from heatprint.detectors.features.table import measure
from heatprint.detectors.identifier import FittedIdentifier, Identifier
from heatprint.detectors.learners import Applied, learned
from heatprint.export import export
from heatprint.live import Guard, Laboratory
from heatprint.models import load, save
from heatprint.models.resume import load_state, save_state
from heatprint.models.weights import read_weights
from heatprint.report import report
from heatprint.report.views import VIEWS
from heatprint.runs.read import read_shown
from heatprint.study import load_recipe, study
from heatprint.study.recipe import RECIPES, Recipe
from heatprint.testing.hostile import bombs, images, learners, pickles, places, tables
from heatprint.testing.hostile.damage import mangled
from heatprint.testing.hostile.images import SIDE, Case
from heatprint.web import uploads

SECONDS = 60  # far more than anything here takes on a busy machine, far less than for ever


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What a call returns, or a failure when it does not come back; its thread is left behind."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append((True, call()))
        except BaseException as error:
            found.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, f"it hangs: nothing after {seconds} s"
    done, value = found[0]
    if not done:
        raise value
    return value


def put(folder: Path, cases: Iterator[Case]) -> dict[str, Case]:
    """Cases as files of a folder, by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for case in cases:
        assert case.name not in found
        (folder / case.name).write_bytes(case.content)
        found[case.name] = case
    return found


def off(case: Case, pixels: np.ndarray) -> float:
    """By how many levels an image [3, H, W] differs from what must be seen."""
    assert case.pixels is not None
    return float(np.abs(pixels.transpose(1, 2, 0).astype(float) - case.pixels).mean())


def answered(case: Case) -> str | None:
    """The reason why a file is refused; None where it is read. What the case asks for is checked."""
    try:
        pixels, reason = decode(case.content, SIDE), None
    except UnreadableData as error:
        pixels, reason = None, str(error)
    if pixels is None:
        assert case.pixels is None, (case.name, reason)
        assert reason
        assert reason.isprintable(), case.name
    else:
        assert not case.refused, case.name
        assert pixels.shape == (3, SIDE, SIDE)
        assert case.pixels is None or off(case, pixels) <= case.off, case.name
    return reason


def test_every_kind_of_image_is_read_with_its_pixels(tmp_path):
    known = put(tmp_path / "cats", images.readable()) | put(tmp_path / "dogs", images.readable())
    loaded = load_folder(tmp_path, size=SIDE)
    assert loaded.skipped == ()
    assert len(loaded.batch) == 2 * len(known) > 150
    for name, pixels in zip(loaded.batch.ids, loaded.batch.pixels.numpy(), strict=True):
        case = known[name.partition("/")[2]]
        assert off(case, pixels) <= case.off, name


def test_the_scene_tells_every_way_to_hold_a_camera_apart():
    """Else a turned picture could pass for an upright one."""
    seen = [stored.tobytes() for stored in images.held().values()]
    assert len(set(seen)) == 8


def test_what_is_no_image_is_named_with_a_reason_and_does_not_run(tmp_path):
    trace = tmp_path / "trace"
    bad = put(tmp_path / "data" / "cats", bombs.disguised(str(trace)))
    bad |= put(tmp_path / "data" / "cats", bombs.claiming())
    good = put(tmp_path / "data" / "dogs", images.readable())
    (tmp_path / "data" / "cats" / "good.png").write_bytes(good["plain.png"].content)
    loaded = within(SECONDS, lambda: load_folder(tmp_path / "data", size=SIDE))
    assert {one.id for one in loaded.skipped} == {f"cats/{name}" for name in bad}
    assert all(one.reason for one in loaded.skipped)
    assert len(loaded.batch) == len(good) + 1
    assert not trace.exists()
    alone = load_files(tmp_path / "data" / "dogs", size=SIDE, classes=("cats", "dogs"))
    assert len(alone.batch) == len(good)


def test_half_of_a_file_is_refused_and_more_of_it_read_or_refused():
    reasons = [answered(case) for case in bombs.truncated(10)]
    assert len(reasons) > 700
    assert sum(reason is None for reason in reasons) < len(reasons) / 4


def test_damage_anywhere_is_read_or_refused():
    reasons = [answered(case) for case in images.damaged(1, 400)]
    assert 40 < sum(reason is None for reason in reasons) < 360


def test_uploads_are_answered_as_the_loader_answers():
    for case in [*images.readable(), *bombs.disguised("trace"), *bombs.claiming(), *images.damaged(2, 200)]:
        try:
            expected = decode(case.content, SIDE, formats=uploads.FORMATS, most_pixels=10**6)
        except UnreadableData:
            with pytest.raises(InvalidInput):
                uploads.read_image(case.content, SIDE, most_bytes=10**7, most_pixels=10**6)
        else:
            found = uploads.read_image(case.content, SIDE, most_bytes=10**7, most_pixels=10**6)
            assert np.array_equal(found, expected)


def test_pictures_of_a_run_folder_are_its_own_or_damaged():
    whole = images.written(images.scene(), "PNG")
    assert np.array_equal(stored(whole), images.scene())
    for number in range(200):
        with contextlib.suppress(StoreError):
            assert stored(mangled(whole, stream(number, "stored"))).shape[2] == 3
    for case in (*bombs.claiming(), *bombs.disguised("trace")):
        with pytest.raises(StoreError, match="cannot be read"):
            stored(case.content)


def test_only_the_decoders_of_the_kinds_that_are_read_are_let_near_a_file(monkeypatch):
    """PostScript would be run; whatever is asked of Pillow names its formats."""
    from PIL import Image

    asked = []
    real = Image.open

    def watched(file, mode="r", formats=None):
        asked.append(formats)
        return real(file, mode, formats)

    monkeypatch.setattr(Image, "open", watched)
    for case in bombs.disguised("trace"):
        answered(case)
    assert set(asked) == {FORMATS}
    assert not {"EPS", "WMF", "PDF"} & set(FORMATS)


GROWS = """
import json, resource, sys
from heatprint.testing.hostile import bombs
from heatprint.testing.hostile.images import SIDE
from heatprint.core.errors import UnreadableData
from heatprint.core.pictures import decode
import numpy as np

def used():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

size, told = int(sys.argv[1]), {}
with open("/proc/self/statm") as file:
    mapped = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (3 << 30),) * 2)  # a real bomb ends here, and not the machine
for case in bombs.bombs(size):
    before = used()
    try:
        pixels = decode(case.content, SIDE)
        right = case.pixels is None or np.array_equal(pixels.transpose(1, 2, 0), case.pixels)
        answer = "refused, but read" if case.refused else "" if right else "other pixels"
    except UnreadableData as error:
        answer = "" if case.pixels is None else f"not read: {error}"
    told[case.name] = [answer, used() - before, len(case.content) >> 20]
print(json.dumps(told))
"""


def grown(size: int, seconds: float) -> dict[str, tuple[str, int, int]]:
    """Of every bomb what was wrong, and by how many MiB the most that the process ever held has grown."""
    done = subprocess.run([sys.executable, "-c", GROWS, str(size)], capture_output=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, tuple[str, int, int]] = json.loads(done.stdout)
    return told


def test_bombs_neither_hang_nor_grow():
    told = grown(5_000_000, SECONDS)
    assert len(told) > 10
    for name, (wrong, more, own) in told.items():
        assert not wrong, (name, wrong)
        assert more <= 100 + 3 * own, name


def test_every_name_is_read_under_an_id_of_its_own(tmp_path):
    good = places.well_named(tmp_path / "data" / "cats")
    places.well_named(tmp_path / "data" / "dogs")
    loaded = within(SECONDS, lambda: load_folder(tmp_path / "data", size=SIDE))
    assert set(loaded.batch.ids) == {f"{kind}/{spelled(name)}" for kind in ("cats", "dogs") for name in good}
    assert (loaded.batch.pixels.numpy().transpose(0, 2, 3, 1) == images.scene()).all()
    assert all(name.isprintable() or "\u202f" in name for name in loaded.batch.ids)
    assert {one.id for one in loaded.skipped} == {"cats/named.png", "dogs/named.png"}  # a folder called like an image


@pytest.mark.parametrize(
    "text", ["a\\b", "\\xff", "\udcff", "\\\\xff", "\n", "\\n", "\\u000a", "é", "e\u0301", "\u202e"]
)
def test_names_are_spelled_so_that_they_stay_apart(text):
    others = ["a\\b", "\\xff", "\udcff", "\\\\xff", "\n", "\\n", "\\u000a", "é", "e\u0301", "\u202e"]
    assert [one for one in others if spelled(one) == spelled(text)] == [text]
    assert spelled(text).encode().decode().isprintable() or text == "e\u0301"


def test_pipes_devices_circles_and_endless_folders_are_named_and_not_waited_for(tmp_path):
    bad = places.misplaced(tmp_path / "data" / "cats")
    for kind in ("cats", "dogs"):
        put(tmp_path / "data" / kind, images.readable())
    (tmp_path / "data" / "foxes").symlink_to(tmp_path / "data")  # a class that is the whole
    (tmp_path / "data" / "wolves").symlink_to("dogs")  # but a class may lie elsewhere
    loaded = within(SECONDS, lambda: load_folder(tmp_path / "data", size=SIDE))
    assert loaded.classes == ("cats", "dogs", "wolves")
    assert {one.id for one in loaded.skipped} == {"foxes"} | {f"cats/{spelled(name)}" for name in bad}
    assert len(loaded.batch) == 3 * len(list(images.readable()))
    reasons = {one.id: one.reason for one in loaded.skipped}
    assert reasons["cats/pipe.png"] == reasons["cats/zero.png"] == "not a file"
    assert "not followed" in reasons["cats/up"]
    assert "symbolic links" in reasons["cats/itself.png"]
    assert f"{MOST_BYTES:,}" in reasons["cats/sparse.png"]
    found = within(SECONDS, lambda: load_files(tmp_path / "data", size=SIDE, classes=("cats", "dogs")))
    assert {f"cats/{spelled(name)}" for name in bad} <= {one.id for one in found.skipped}


def test_only_usable_images_count_towards_a_limit(tmp_path):
    for kind in ("cats", "dogs"):
        put(tmp_path / kind, bombs.disguised("trace"))
        for number in range(6):
            (tmp_path / kind / f"z{number}.png").write_bytes(images.written(images.scene(), "PNG"))
    loaded = load_folder(tmp_path, size=SIDE, limit=8)
    assert torch.bincount(loaded.batch.labels).tolist() == [4, 4]
    assert loaded.batch.ids[:4] == tuple(f"cats/z{number}.png" for number in range(4))
    alone = load_files(tmp_path, size=SIDE, classes=("cats", "dogs"), limit=8)
    assert alone.batch.ids == loaded.batch.ids


def test_files_that_vanish_or_change_while_they_are_read_are_named(tmp_path):
    for number in range(600):
        path = tmp_path / f"{number:03d}.png"
        path.write_bytes(images.written(images.scene(), "PNG"))

    def meanwhile(done, total, note=""):
        if done == 1:
            (tmp_path / "597.png").unlink()
            (tmp_path / "598.png").unlink()
            os.mkfifo(tmp_path / "598.png")
            (tmp_path / "599.png").write_bytes(b"")

    loaded = within(SECONDS, lambda: load_files(tmp_path, size=SIDE, classes=("a", "b"), progress=meanwhile))
    assert len(loaded.batch) == 597
    reasons = {one.id: one.reason for one in loaded.skipped}
    assert set(reasons) == {"597.png", "598.png", "599.png"}
    assert reasons["597.png"].startswith("not there")
    assert (reasons["598.png"], reasons["599.png"]) == ("not a file", "the file is empty")


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of ours, while we are somebody who may not read everything: root may, whatever permissions say."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(65534)
    except OSError as error:
        pytest.skip(f"root cannot become nobody here, and reads every file ({error})")
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_named(nobody):
    for kind in ("cats", "dogs"):
        put(nobody / "data" / kind, images.readable())
        put(nobody / "data" / kind / "locked", images.readable())
    load_folder(nobody / "data", size=SIDE)  # what is imported on the way is imported now
    (nobody / "data" / "cats" / "plain.png").chmod(0)
    (nobody / "data" / "cats" / "locked").chmod(0)
    (nobody / "data" / "dogs" / "locked").chmod(0o444)  # can be listed, but not entered
    with unprivileged():
        loaded = load_folder(nobody / "data", size=SIDE)
    one = len(list(images.readable()))
    reasons = {skipped.id: skipped.reason for skipped in loaded.skipped}
    assert "Permission denied" in reasons["cats/plain.png"]
    assert "a folder that cannot be read" in reasons["cats/locked"]
    assert len(reasons) == 2 + one
    assert len(loaded.batch) == 2 * one - 1
    (nobody / "data").chmod(0)
    with unprivileged(), pytest.raises(UnreadableData, match="cannot be read"):
        load_folder(nobody / "data", size=SIDE)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A saved model, which nobody has taught anything."""
    folder = tmp_path_factory.mktemp("hostile") / "model"
    save(load("vgg-slim", classes=("cats", "dogs"), size=32, seed=0), folder)
    return folder


def test_checkpoints_that_run_something_run_nothing(tmp_path):
    trace = tmp_path / "trace"
    cases = put(tmp_path / "weights", pickles.checkpoints(trace))
    assert len(cases) > 100
    for name in cases:
        with pytest.raises(UnreadableData, match=r"cannot be read as weights|holds no state_dict"):
            read_weights(tmp_path / "weights" / name)
        assert not trace.exists(), name
    pickle.loads(cases["protocol 4.pt"].content).close()
    assert trace.exists()  # they do run something, where nobody takes care


@pytest.mark.parametrize("door", ["weights", "folder", "explain", "explain weights", "laboratory", "guard", "study"])
def test_no_door_that_takes_a_path_runs_what_lies_there(door, model, fitted, tmp_path, monkeypatch, capsys):
    trace = tmp_path / "trace"
    evil = pickle.dumps(pickles.Runs(trace))
    run = tmp_path / "run"
    shutil.copytree(model, run / "models" / "clear")
    shutil.copytree(fitted, run / "forensics" / "fitted")
    (run / "schema.json").write_text('{"schema": 1}')
    (run / "models" / "clear" / "model.safetensors").write_bytes(evil)
    (tmp_path / "evil.pt").write_bytes(evil)
    (tmp_path / "evil.toml").write_bytes(evil)
    (tmp_path / "cat.png").write_bytes(images.written(images.scene(), "PNG"))
    explain = ["explain", str(tmp_path / "cat.png"), "--model"]
    lines = {
        "explain": [*explain, str(run / "models" / "clear")],
        "explain weights": [*explain, "vgg-slim", "--classes", "a,b", "--weights", str(tmp_path / "evil.pt")],
        "study": ["study", "--recipe", str(tmp_path / "evil.toml"), "--out", str(tmp_path / "out")],
    }
    calls = {
        "weights": lambda: load("vgg-slim", classes=("a", "b"), size=32, weights=tmp_path / "evil.pt"),
        "folder": lambda: load(run / "models" / "clear"),
        "laboratory": lambda: Laboratory.open(run),
        "guard": lambda: Guard.load(run / "models" / "clear", run),
    }
    if door in calls:
        with pytest.raises(HeatprintError):
            calls[door]()
    else:
        monkeypatch.setattr(sys, "argv", ["heatprint", *lines[door]])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert "Traceback" not in capsys.readouterr().err
    assert not trace.exists()


def test_weights_that_are_no_file_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    for name in ("pipe.pt", "folder.safetensors", "zero.pt"):
        with pytest.raises(UnreadableData, match="not a regular file"):
            within(SECONDS, lambda name=name: read_weights(tmp_path / name))


def test_tensors_that_are_no_weights_are_refused(tmp_path):
    whole = torch.zeros(3)
    for name, state in {
        "sparse": {"a": whole.to_sparse()}, "complex": {"a": whole.to(torch.complex64)},
        "nothing": {"a": whole.to("meta")}, "number": {1: whole},
    }.items():  # fmt: skip
        torch.save(state, tmp_path / f"{name}.pt")
        with pytest.raises(UnreadableData):
            read_weights(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("name", tables.arrays())
def test_arrays_that_do_not_belong_together_are_no_model_no_training_and_no_detector(name, model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "model.safetensors").write_bytes(tables.arrays()[name])
    with pytest.raises(HeatprintError):
        load(folder)
    network = torch.nn.Linear(2, 2)
    before = network.weight.clone()
    assert load_state(folder / "model.safetensors", "key", network, torch.optim.SGD(network.parameters(), lr=1)) == (
        [], {},
    )  # fmt: skip
    assert torch.equal(network.weight, before)
    card = {"schema": 1, "name": "heat-print", "settings": {}, "classifier": "", "classes": [], "size": 8,
            "thresholds": {}}  # fmt: skip
    (folder / "detector.json").write_text(json.dumps(card))
    (folder / "detector.safetensors").write_bytes(tables.arrays()[name])
    with contextlib.suppress(StoreError):  # some are arrays, of which the method will say that they are not its own
        detectors.load(folder)


def test_a_training_of_others_is_not_put_back(tmp_path):
    network, other = torch.nn.Linear(2, 2), torch.nn.Linear(3, 2)
    for wrong in (
        lambda: save_state(tmp_path / "s", "key", other, torch.optim.SGD(other.parameters(), lr=1), [], {}),
        lambda: save_state(tmp_path / "s", "key", network, torch.optim.SGD(network.parameters(), lr=1), [],
                           dict(other.state_dict())),
        lambda: _with_momentum(tmp_path / "s", network, other),
    ):  # fmt: skip
        wrong()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert load_state(tmp_path / "s", "key", network, torch.optim.SGD(network.parameters(), lr=1)) == ([], {})
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def _with_momentum(path: Path, network: torch.nn.Module, other: torch.nn.Module) -> None:
    optimiser = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    save_state(path, "key", network, optimiser, [], {})


def refused_or_the_same(folder: Path, digest: str) -> None:
    """A model loads as what it is, under whatever name, or is refused."""
    try:
        found = load(folder)
    except HeatprintError:
        return
    assert found.digest == digest


def cards(model: Path, most: int) -> Iterator[tuple[str, bytes]]:
    card = json.loads((model / "card.json").read_bytes())
    yield from tables.texts().items()
    yield from tables.retyped(card, most)
    for architecture in ("ensemble:1000000|vgg-slim", "ensemble:1_0|vgg-slim", "bits:4|" * 500 + "vgg-slim",
                         "ensemble:99|ensemble:99|vgg-slim", "median:100001|vgg-slim", "smoothed:1000000000|vgg-slim",
                         "vgg16-paper", "torchvision:../x", "timm:", "__import__('os')|vgg-slim"):  # fmt: skip
        yield architecture, json.dumps(card | {"architecture": architecture}).encode()
    for size in (4096, 5000, 10**9, -1, 0):
        yield str(size), json.dumps(card | {"architecture": "vgg16-paper", "size": size}).encode()
    yield "classes", json.dumps(card | {"classes": [str(n) for n in range(200_000)]}).encode()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_cards_that_claim_anything_are_refused_or_the_model(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    digest = load(model).digest
    for _, content in cards(model, 60):
        (tmp_path / "model" / "card.json").write_bytes(content)
        within(SECONDS, lambda: refused_or_the_same(tmp_path / "model", digest))


def test_forged_learners_are_refused_before_they_are_asked():
    for learner in ("trees", "boosting", "logistic"):
        content = np.frombuffer(learners.honest(learner), np.uint8)
        assert Applied(content).probabilities(learners.table()).shape == (learners.ROWS, 2)
    for _, content in learners.forged():
        with pytest.raises(StoreError, match=r"damaged|foreign code"):
            Applied(np.frombuffer(content, np.uint8))


def test_pickles_among_the_learners_run_nothing(tmp_path):
    trace = tmp_path / "trace"
    for case in pickles.checkpoints(trace):
        if case.content:
            with pytest.raises(StoreError):
                Applied(np.frombuffer(case.content, np.uint8))
    assert not trace.exists()


def examples(count: int = 24) -> Examples:
    """Noise, of which every other image is said to be attacked."""
    pixels = torch.randint(
        0, 256, (2 * count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    names = ("clean", "pgd") * count
    return Examples(
        sources=tuple(map(str, range(2 * count))), pixels=pixels, labels=torch.zeros(2 * count, dtype=torch.long),
        kinds=names, names=names, attacked=np.array([name == "pgd" for name in names]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted(model, tmp_path_factory) -> Path:
    """A run folder's detector, identifier and remedies, fitted to noise."""
    folder, classifier = tmp_path_factory.mktemp("hostile") / "fitted", load(model)
    method = detectors.make("heat-print", families=("margin",), learner="logistic")
    found = detectors.fit(classifier, examples(), method, name="heat-print")
    found.calibrate(found.score(classifier, examples().pixels), fpr=0.05).save(folder)
    settings = Identifier(families=("margin",), learner="logistic")
    table = measure(classifier, examples().pixels, ("margin",), rivals=1)
    settings.fit_from(classifier, table, examples(), table, examples()).save(folder)
    known = learned("logistic", table, np.arange(48) % 2 > 0, np.ones(48), seed=0)
    Worth(classifier=classifier.digest, families=("margin",), rivals=1, remedies=("nothing", "blur"),
          learners=(np.empty(0, np.uint8), known), usual=np.array([0.4, 0.6])).save(folder)  # fmt: skip
    return folder


def asked(folder: Path, model: Classifier) -> None:
    """A guard made of what is in a folder answers, or its maker is told what is wrong."""
    try:
        worth, identifier = Worth.load(folder), FittedIdentifier.load(folder)
        guard = Guard(classifier=model, detector=detectors.load(folder), identifier=identifier, worth=worth, fpr=0.05)
        guard.check(examples().pixels[:2])
        identifier.identify(model, examples().pixels[:2])
        worth.best(model, examples().pixels[:2])
        guard.detector.score(model, examples().pixels[:2])
    except HeatprintError as error:
        told = str(error)
    else:
        return
    assert told


def fitted_damage(folder: Path, most: int) -> Iterator[tuple[str, bytes]]:
    """Contents for the files of a fitted folder, by the name of the file."""
    for name in ("detector", "identifier", "worth"):
        card = json.loads((folder / f"{name}.json").read_bytes())
        yield from ((f"{name}.json", content) for content in tables.texts().values())
        yield from ((f"{name}.json", content) for _, content in tables.retyped(card, most))
        yield from ((f"{name}.safetensors", content) for content in tables.arrays().values())
        whole = (folder / f"{name}.safetensors").read_bytes()
        yield from ((f"{name}.safetensors", mangled(whole, stream(n, name))) for n in range(most))


def answer_all(fitted: Path, model: Path, folder: Path, damage: Iterable[tuple[str, bytes]]) -> int:
    """Ask what was fitted again and again, each time with one file replaced."""
    classifier, count = load(model), 0
    asked(fitted, classifier)
    for file, content in damage:
        shutil.copytree(fitted, folder, dirs_exist_ok=True)
        (folder / file).write_bytes(content)
        within(SECONDS, lambda: asked(folder, classifier))
        count += 1
    return count


def test_fitted_folders_that_anybody_wrote_answer_or_are_refused(fitted, model, tmp_path):
    assert answer_all(fitted, model, tmp_path / "fitted", islice(fitted_damage(fitted, 12), 0, None, 8)) > 30


def test_what_was_learned_is_known_by_its_digest(fitted, tmp_path):
    shutil.copytree(fitted, tmp_path / "fitted")
    path = tmp_path / "fitted" / "worth.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not those that were written"):
        Worth.load(tmp_path / "fitted")


@pytest.mark.parametrize("name", tables.texts())
def test_what_is_no_json_ends_in_an_error_that_readers_expect(name, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(tables.texts()[name])
    with contextlib.suppress(ValueError):
        json.dumps(parse_json(path.read_bytes()))
    with contextlib.suppress(ValueError):
        read_json(path)


def test_json_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(OSError, match="not a regular file"):
        within(SECONDS, lambda: read_json(tmp_path / "run.json"))
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_regular(tmp_path / "large", 10)
    assert read_regular(tmp_path / "large", 11) == bytes(11)


def recipe_text(name: str) -> str:
    from importlib import resources

    return (resources.files(RECIPES) / f"{name}.toml").read_text(encoding="utf-8")


def tried(path: Path, content: bytes) -> bool:
    """Whether a recipe is one; its mistakes are told in a few lines."""
    path.write_bytes(content)
    try:
        load_recipe(path)
    except InvalidInput as error:
        told = str(error)
    else:
        return True
    assert told.count("\n") < 100
    return False


def test_recipes_that_are_none_are_told_their_mistakes(tmp_path):
    few = list(tables.recipes(recipe_text("tiny")))
    few = [one for number, one in enumerate(few) if number < 30 or number % 5 == 0 or number > len(few) - 5]
    right = [within(SECONDS, lambda content=content: tried(tmp_path / "r.toml", content)) for _, content in few]
    assert 5 < sum(right) < len(right) / 3
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(InvalidInput, match="not a regular file"):
        within(SECONDS, lambda: load_recipe(tmp_path / "pipe.toml"))


MANY = """
import faulthandler, resource, sys
from heatprint.core.errors import UnreadableData
from heatprint.core.pictures import decode
from heatprint.testing.hostile import bombs, images
import numpy as np

kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cases = images.damaged(first, count) if kind == "damaged" else bombs.truncated(count)
before, read, done = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, 0
for case in cases:
    faulthandler.dump_traceback_later(30, exit=True)  # one file must not take so long
    done += 1
    try:
        pixels = decode(case.content, images.SIDE)
    except UnreadableData as error:
        assert case.pixels is None and str(error).isprintable(), (case.name, str(error))
    else:
        assert not case.refused, case.name
        read += 1
faulthandler.cancel_dump_traceback_later()
print(done, read, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "first", "count"), [("damaged", 3, 4000), ("damaged", 4, 4000), ("truncated", 0, 50)])
def test_thousands_of_damaged_images_neither_end_the_process_nor_fill_it(kind, first, count):
    """In a process of its own: a decoder that crashed would take this one along."""
    done = subprocess.run(
        [sys.executable, "-c", MANY, kind, str(first), str(count)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cases, read, more = map(int, done.stdout.split())
    assert cases >= 4000
    assert 0 < read < cases / 2
    assert more < 200, f"{more} MiB"


@pytest.mark.slow
def test_large_bombs_neither_hang_nor_grow():
    for name, (wrong, more, own) in grown(100_000_000, 250).items():
        assert not wrong, (name, wrong)
        assert more <= 150 + 3 * own, name


@pytest.mark.slow
def test_the_largest_pictures_are_decoded_one_at_a_time():
    """Six at once, of as many pixels as are taken: as much memory as two, and not as six."""
    code = """
import io, resource
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from heatprint.core.pictures import decode
sink = io.BytesIO()
Image.new("RGBA", (8000, 8000)).save(sink, "PNG")
content = sink.getvalue()
decode(content, 8)
one = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(6) as pool:
    list(pool.map(lambda _: decode(content, 8), range(6)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / one)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=True)
    assert float(done.stdout) < 2


@pytest.mark.slow
def test_hundreds_of_cards_fitted_folders_and_checkpoints_are_survived(fitted, model, tmp_path):
    assert answer_all(fitted, model, tmp_path / "fitted", fitted_damage(fitted, 60)) > 400
    shutil.copytree(model, tmp_path / "model")
    digest, whole = load(model).digest, (model / "model.safetensors").read_bytes()
    for number in range(300):
        (tmp_path / "model" / "model.safetensors").write_bytes(mangled(whole, stream(number, "weights")))
        refused_or_the_same(tmp_path / "model", digest)
    (tmp_path / "model" / "model.safetensors").write_bytes(whole)
    for _, content in cards(model, 300):
        (tmp_path / "model" / "card.json").write_bytes(content)
        within(SECONDS, lambda: refused_or_the_same(tmp_path / "model", digest))
    torch.save(load(model).trainable.state_dict(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for number in range(300):
        (tmp_path / "w.pt").write_bytes(mangled(whole, stream(number, "checkpoint")))
        with contextlib.suppress(UnreadableData):
            read_weights(tmp_path / "w.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "paper-slim", "clever-hans"])
def test_every_recipe_with_any_value_replaced_is_told_its_mistakes(name, tmp_path):
    right = [
        within(SECONDS, lambda content=content: tried(tmp_path / "r.toml", content))
        for _, content in tables.recipes(recipe_text(name))
    ]
    assert len(right) > 500
    assert sum(right) < len(right) / 3


def all_of(folder: Path) -> Recipe:
    """The recipe `tiny` on all images of a folder."""
    tiny = load_recipe("tiny", data=str(folder))
    return tiny.model_copy(update={"data": tiny.data.model_copy(update={"train": None, "test": None})})


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A run over good images alone: drawn ones, every readable kind, every name."""
    root = tmp_path_factory.mktemp("good")
    data = root / "animals"
    write_menagerie(data, train=40, test=16, size=64)
    put(data / "training_set" / "dogs" / "kinds", images.readable())
    places.well_named(data / "test_set" / "cats")
    study(all_of(data), root / "run")
    return root


@pytest.mark.slow
def test_a_study_over_hostile_files_names_every_one_and_is_that_of_the_good_ones(good, tmp_path):
    data, trace = tmp_path / "animals", tmp_path / "trace"
    shutil.copytree(good / "animals", data, symlinks=True)
    bad = set()
    for part, kind in (("training_set", "cats"), ("test_set", "dogs")):
        folder = data / part / kind
        found = [
            case for case in (*bombs.disguised(str(trace)), *bombs.claiming(), *bombs.bombs(5_000_000)) if case.refused
        ]
        bad |= {f"{part}/{kind}/0 bad/{name}" for name in put(folder / "0 bad", iter(found))}
        cut = (case for case in bombs.truncated(4) if case.refused)
        bad |= {f"{part}/{kind}/z bad/{name}" for name in put(folder / "z bad", cut)}
        bad |= {f"{part}/{kind}/places/{spelled(name)}" for name in places.misplaced(folder / "places")}
    (data / "training_set" / "wolves").symlink_to(data)
    bad |= {"training_set/wolves", "test_set/cats/named.png"}
    assert len(bad) > 300
    page = within(500, lambda: study(all_of(data), tmp_path / "run"))
    card = json.loads((tmp_path / "run" / "run.json").read_bytes())
    skipped = {one["id"]: one["reason"] for one in card["data"].pop("skipped")}
    assert set(skipped) == bad
    assert all(skipped.values())
    assert not trace.exists()
    text = page.read_text(encoding="utf-8")
    assert all(escape(name) in text and escape(reason) in text for name, reason in skipped.items())
    assert "<img src=x onerror" not in text
    assert (tmp_path / "run" / "metrics.json").read_bytes() == (good / "run" / "metrics.json").read_bytes()
    alone = json.loads((good / "run" / "run.json").read_bytes())
    assert [one["id"] for one in alone["data"].pop("skipped")] == ["test_set/cats/named.png"]
    assert all(card[key] == alone[key] for key in ("models", "attacks", "explainer"))
    assert card["data"]["fingerprint"] == alone["data"]["fingerprint"]


@pytest.mark.slow
def test_a_study_resumes_over_what_others_put_into_its_folder(good, tmp_path):
    """Whatever is no longer what was written is made again; what was put there does not run."""
    run, trace = tmp_path / "run", tmp_path / "trace"
    shutil.copytree(good / "run", run)
    evil = pickle.dumps(pickles.Runs(trace))
    for name in ("models/clear/model.safetensors", "images/train.npy", "figures/part-00000.safetensors"):
        (run / name).write_bytes(evil)
    for name in ("models/fgsm_immune/card.json", "images/_done/images.json", ".verified.json"):
        (run / name).write_bytes(tables.texts()["nested object"])
    (run / "attacks/clear/fgsm/test/part-00000.parquet").write_bytes(tables.rows()["claims"])
    (run / "attacks/clear/pgd/test/_done/part-00000.json").write_bytes(tables.texts()["pairs"])
    study(all_of(good / "animals"), run)
    assert (run / "metrics.json").read_bytes() == (good / "run" / "metrics.json").read_bytes()
    assert not trace.exists()
    (run / "recipe.json").write_bytes(tables.texts()["nested list"])
    with pytest.raises(StoreError, match=r"recipe\.json is damaged"):
        study(all_of(good / "animals"), run)


def forgeries(run: Path) -> Iterator[tuple[str, bytes]]:
    """Contents for the files of a run folder, which their marks then vouch for."""
    for name in ("run.json", "metrics.json"):
        document = json.loads((run / name).read_bytes())
        yield from ((name, content) for content in tables.texts().values())
        yield from ((name, content) for _, content in tables.retyped(document, 40))
    for step in ("figures", "global", "atlas/images", "atlas/cards", "attacks/clear/fgsm/test"):
        for suffix, contents in (("parquet", tables.rows()), ("safetensors", tables.arrays())):
            name = f"{step}/part-00000.{suffix}"
            whole = (run / name).read_bytes()
            yield from ((name, content) for content in contents.values())
            yield from ((name, mangled(whole, stream(number, name))) for number in range(5))


def vouched(run: Path, name: str, content: bytes) -> None:
    """Write a file and, where it is of a part, its digest into the part's mark."""
    (run / name).write_bytes(content)
    mark = (run / name).parent / "_done" / "part-00000.json"
    if mark.exists():
        told = json.loads(mark.read_bytes())
        mark.write_text(json.dumps(told | {"files": told["files"] | {Path(name).name: content_digest(content)}}))


@pytest.mark.slow
def test_a_run_folder_that_anybody_wrote_is_shown_or_said_to_be_damaged(good, tmp_path):
    run, count = tmp_path / "run", 0
    doors = (lambda: report(run), lambda: export(run, "csv", tmp_path / f"csv {count}"), lambda: read_shown(run),
             *(lambda view=view: view(run) for view in VIEWS.values()))  # fmt: skip
    for name, content in forgeries(good / "run"):
        shutil.copytree(good / "run", run, dirs_exist_ok=True)
        vouched(run, name, content)
        for door in doors if count % 6 == 0 else doors[1:3]:
            with contextlib.suppress(HeatprintError):
                within(SECONDS, door)
        count += 1
    assert count > 300
