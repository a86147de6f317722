"""A run folder by columns: what the fast reader finds is what a slow one finds row by row, and what it refuses."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from heatprint.core.errors import StoreError
from heatprint.core.pictures import stored
from heatprint.core.store import Part, Store, write_json
from heatprint.core.values import Batch
from heatprint.data.sources import Dataset
from heatprint.runs import parts, pictures
from heatprint.runs.attempts import matched
from heatprint.runs.columns import packed, packed_more
from heatprint.runs.late import Late
from heatprint.runs.parts import Step
from heatprint.runs.read import read_shown
from heatprint.runs.shown import Shown
from heatprint.study.images import keep

CLASSES, SIDE, WIDE = ("cats", "dogs"), 5, 6
ATTACKS = {"fgsm": 4, "one-pixel": 3}  # and rows of a part


def png(number: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number % 256, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def build_run(folder: Path, *, images: int = 23, seed: int = 0, originals: bool = False) -> Path:
    """A run whose map is in no order, with images that are not in the atlas, and a copy whose original is not there.

    `originals`: with the images of the study, which older runs do not have.
    """
    rng, store = np.random.default_rng(seed), Store(folder)
    ids = [f"{CLASSES[n % 2]}/Bild ä{n}.png" for n in range(images)]
    clean = rng.permutation(images).tolist()
    points: list[dict[str, Any]] = [point(rng, ids[n], n, "clean") for n in clean if n != 3]
    with store.writing():
        for attack, size in ATTACKS.items():
            tried = rng.permutation(images).tolist()
            won = {n: bool(rng.random() < 0.5) or n == 3 for n in tried}
            rows = [attempt(rng, ids[n], n, won[n], attack) for n in tried]
            for number, start in enumerate(range(0, images, size)):
                step = f"attacks/clear/{attack}/test"
                store.memo(step, number, 0, lambda some=rows[start : start + size]: Part(rows=columns(some)))
            points += [point(rng, ids[n], n, attack) for n in rng.permutation(tried).tolist() if won[n]]
            flow = [n for n in tried[::2] if won[n]]
            moved = rng.normal(size=(len(flow), SIDE, SIDE)).astype(np.float16)
            store.memo(f"atlas/flows/{attack}", 0, 0, lambda some=flow, moved=moved: Part(
                rows={"id": [ids[n] for n in some]}, arrays={"moved": moved}))  # fmt: skip
        atlas = rng.permutation(images)[: images // 2].tolist()
        signatures = rng.normal(size=(len(points), WIDE)).astype(np.float32)
        store.memo("global", 0, 0, lambda: Part(rows=columns(points), arrays={"signatures": signatures}))
        store.memo("atlas/images", 0, 0, lambda: Part(
            rows=columns([{"id": ids[n], "label": CLASSES[n % 2], "predicted": CLASSES[n % 2],
                           "strategy": f"{CLASSES[n % 2]} {1 + n % 3}" if n % 5 else None,
                           "image": {"bytes": png(n), "path": "x.png"}} for n in atlas]),
            arrays={"maps": rng.normal(size=(len(atlas), SIDE, SIDE)).astype(np.float32),
                    "logits": rng.normal(size=(len(atlas), 2)).astype(np.float32),
                    "spectral": np.zeros((len(atlas), 2), np.float32)}))  # fmt: skip
        if originals:
            test = batch(ids, range(images))
            keep(folder, "key", Dataset(name="d", classes=CLASSES, train=batch(["a"], [0]), test=test))
    write_json(folder / "run.json", {"recipe_name": "r", "seed": seed, "data": {"name": "d"},
                                     "attacks": {"fgsm": {"title": "FGSM"}}})  # fmt: skip
    write_json(folder / "metrics.json", {"classes": list(CLASSES),
                                         "atlas": {"classes": [], "cards": [], "flows": {}}})  # fmt: skip
    return folder


def batch(ids: list[str], numbers: Sequence[int]) -> Batch:
    """Grey images, each as light as its number."""
    pixels = torch.tensor(list(numbers), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    return Batch(ids=tuple(ids), pixels=pixels.contiguous(), labels=torch.zeros(len(ids), dtype=torch.long))


def point(rng: np.random.Generator, name: str, number: int, kind: str) -> dict[str, Any]:
    x, y, px, py = rng.normal(size=4).tolist()
    return {"id": name, "label": CLASSES[number % 2] if number != 5 else "", "kind": kind,
            "predicted": CLASSES[rng.integers(2)], "success": kind != "clean", "x": x, "y": float("nan") if number == 7
            else y, "px": px, "py": py, "preserved": rng.random()}  # fmt: skip


def attempt(rng: np.random.Generator, name: str, number: int, won: bool, attack: str) -> dict[str, Any]:
    told = {"id": name, "success": won, "skipped": False, "confidence_before": rng.random(), "confidence": rng.random(),
            "step": int(rng.integers(1, 9)), "l0": int(rng.integers(99)), "l2": rng.random(), "linf": 1,
            "image": {"bytes": png(100 + 10 * number + len(attack)), "path": "x.png"}}  # fmt: skip
    return told if attack == "fgsm" else {key: value for key, value in told.items() if key != "l2"}  # an older run


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


# --- the slow reader: one row after the other, by names ---------------------------------------------------


def slow(folder: Path) -> list[dict[str, Any]]:
    """What is known of every point of the map, looked up row by row."""
    store = Store(folder)
    place, atlas = store.read("global", 0), store.read("atlas/images", 0)
    points = rows_of(place)
    signature = {(one["kind"], one["id"]): place.arrays["signatures"][row] for row, one in enumerate(points)}
    first = {}
    for row, one in enumerate(points):
        if one["kind"] != "clean":
            first.setdefault(one["id"], row)
    clean = {one["id"]: row for row, one in enumerate(points) if one["kind"] == "clean"}
    images = {one["id"]: one | {key: values[row] for key, values in atlas.arrays.items()}
              for row, one in enumerate(rows_of(atlas))}  # fmt: skip
    tried = {attack: attempts_of(store, attack) for attack in ATTACKS}
    moved = {attack: flow_of(store, attack) for attack in ATTACKS}
    found = []
    for one in points:
        name, kind = one["id"], one["kind"]
        own = images.get(name, {})
        pair = first.get(name) if kind == "clean" else clean.get(name)
        other = None if pair is None else signature[points[pair]["kind"], name]
        before = [tried[attack][name]["confidence_before"] for attack in sorted(ATTACKS)][-1]
        copy = {} if kind == "clean" else tried[kind][name]
        found.append(one | {
            "pair": -1 if pair is None else pair,
            "strategy": own.get("strategy") if name in clean else None,
            "confidence": copy["confidence"] if copy else softmax(own["logits"]) if own else before,
            "gain": copy.get("step", -1),
            "l0": copy.get("l0", 0), "l2": copy.get("l2", 0.0), "linf": copy.get("linf", 0),
            "moved": np.nan if other is None else np.linalg.norm(signature[kind, name] - other),
            "png": copy["image"]["bytes"] if copy else own["image"]["bytes"] if own else None,
            "map": moved[kind].get(name) if copy else own.get("maps"),
        })  # fmt: skip
    return found


def rows_of(part: Part) -> list[dict[str, Any]]:
    return [dict(zip(part.rows, values, strict=True)) for values in zip(*part.rows.values(), strict=True)]


def attempts_of(store: Store, attack: str) -> dict[str, dict[str, Any]]:
    step = f"attacks/clear/{attack}/test"
    count = len(list((store.root / step / "_done").iterdir()))
    return {one["id"]: one for number in range(count) for one in rows_of(store.read(step, number))}


def flow_of(store: Store, attack: str) -> dict[str, np.ndarray]:
    part = store.read(f"atlas/flows/{attack}", 0)
    return dict(zip(part.rows["id"], part.arrays["moved"], strict=True))


def softmax(logits: np.ndarray) -> float:
    powers = np.exp(logits.astype(float))
    return float(powers.max() / powers.sum())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize(("images", "originals"), [(5, False), (8, True), (27, False), (64, True)])
def test_the_fast_reader_finds_what_a_slow_one_finds(tmp_path, images, originals):
    folder = build_run(tmp_path / "run", images=images, seed=images, originals=originals)
    shown, told = read_shown(folder), slow(folder)
    both = {**shown.columns, **shown.more()}
    assert not shown.broken()
    assert shown.ids.to_pylist() == [one["id"] for one in told]
    assert [shown.kinds[code] for code in shown.columns["kind"]] == [one["kind"] for one in told]
    for column, names in (("label", CLASSES), ("predicted", CLASSES), ("strategy", shown.strategies)):
        named = [names[code] if code >= 0 else None for code in shown.columns[column]]
        assert named == [one[column] or None for one in told]
    for column in ("pair", "success", "gain", "l0", "linf"):
        assert both[column].tolist() == [one[column] for one in told], column
    for column in ("confidence", "l2", "moved", "preserved"):
        np.testing.assert_allclose(both[column], [one[column] for one in told], rtol=1e-5, err_msg=column)
    for column, axes in (("umap", ("x", "y")), ("pca", ("px", "py"))):
        np.testing.assert_allclose(shown.columns[column], [[one[axis] for axis in axes] for one in told], rtol=1e-5)
    assert shown.columns["pictured"].tolist() == [originals or one["png"] is not None for one in told]
    maps = shown.maps.read()
    for row, one in enumerate(told):
        if one["png"] is not None:
            assert shown.images[row] == one["png"]
        elif originals:
            number = int(one["id"].split("ä")[1].removesuffix(".png"))
            np.testing.assert_array_equal(stored(shown.images[row]), np.full((4, 4, 3), number))
        np.testing.assert_array_equal(maps[row], np.full((SIDE, SIDE), np.nan) if one["map"] is None else one["map"])


def test_a_selection_is_the_same_rows_under_other_numbers(run):
    shown = read_shown(run)
    rows = np.random.default_rng(1).permutation(len(shown))[:17]
    some = shown.take(rows)
    assert some.ids.to_pylist() == [shown.ids[int(row)].as_py() for row in rows]
    np.testing.assert_array_equal(some.columns["confidence"], shown.more()["confidence"][rows])
    np.testing.assert_array_equal(some.maps.read(), shown.maps.read()[rows])
    for place, row in enumerate(rows):
        pair = shown.columns["pair"][row]
        there = np.flatnonzero(rows == pair)
        assert some.columns["pair"][place] == (there[0] if pair >= 0 and len(there) else -1)
        if some.columns["pictured"][place]:
            assert some.images[place] == shown.images[row]


def names_of(facts: Mapping[str, Any], block: bytes) -> list[str]:
    """Ids of all rows, as a browser takes them out of the block."""
    where = {column["name"]: column for column in facts["columns"]}
    source = np.frombuffer(block, "<i4", facts["rows"], where["source"]["offset"])
    begins = np.frombuffer(block, "<u4", facts["ids"]["count"] + 1, facts["ids"]["begins"])
    text = block[facts["ids"]["offset"] :][: facts["ids"]["bytes"]]
    own = [text[begin:end].decode() for begin, end in pairwise(begins)]
    return [own[place] for place in source]


def test_every_row_has_its_id_in_the_block(run):
    shown = read_shown(run)
    facts, block = packed(shown)
    assert names_of(facts, block) == shown.ids.to_pylist()
    some = shown.take([row for row in range(len(shown)) if row % 3])  # copies that lost their original
    assert names_of(*packed(some)) == some.ids.to_pylist()
    nothing = shown.take([])
    assert names_of(*packed(nothing)) == []
    assert json.loads(json.dumps(facts)) == facts


def test_a_million_ids_stay_apart():
    half = 500_000
    ids = pa.array([f"test_set/cats/cat.{n}.png" for n in range(half)])
    pair = np.concatenate([np.arange(half, 2 * half), np.arange(half)]).astype("<i4")
    kind = np.repeat([0, 1], half).astype("<i2")
    shown = Shown(
        name="", facts={}, classes=[], kinds=["clean", "a"], titles={"clean": "", "a": ""}, strategies=[], digest="",
        ids=pa.concat_arrays([ids, ids]), columns={"pair": pair, "kind": kind}, images=None, signatures=None, maps=None,
    )  # fmt: skip
    facts, block = packed(shown)
    names = names_of(facts, block)
    assert len(set(zip(kind.tolist(), names, strict=True))) == 2 * half
    assert facts["ids"]["count"] == half  # a copy has the id of its original
    assert names == ids.to_pylist() * 2
    mixed = np.random.default_rng(0).permutation(half)
    np.testing.assert_array_equal(matched(ids.take(pa.array(mixed)), ids), mixed)
    np.testing.assert_array_equal(matched(ids, ids.take(pa.array(mixed)))[mixed], np.arange(half))


def test_texts_are_found_or_not():
    wanted, known = pa.array(["b", "x", "a", "ä"]), pa.array(["a", "ä", "b"])
    assert matched(wanted, known).tolist() == [2, -1, 0, 1]
    assert matched(known, wanted).tolist() == [2, 3, 0]
    assert matched(known, known).tolist() == [0, 1, 2]
    empty = pa.array([], pa.string())
    assert matched(wanted, empty).tolist() == [-1] * 4
    assert matched(empty, known).tolist() == []


def test_parts_are_read_by_number_and_not_by_name(tmp_path):
    store = Store(tmp_path / "run")
    with store.writing():
        for number in (100000, 99999, 7):  # by name the first would come first
            store.memo("step", number, 0, lambda number=number: Part(rows={"id": [f"{number}"] * 2}))
    rows = Step.open(tmp_path / "run", "step").rows({"id": pa.string(), "more": pa.float64()}, needed=("id",))
    assert rows.text("id").to_pylist() == [*["7"] * 2, *["99999"] * 2, *["100000"] * 2]
    assert rows.part.tolist() == [7, 7, 99999, 99999, 100000, 100000]
    assert rows.place.tolist() == [0, 1] * 3
    assert np.isnan(rows.numbers("more", "<f4")).all()


def test_arrays_in_pieces_are_the_array(tmp_path, monkeypatch):
    rng, store = np.random.default_rng(0), Store(tmp_path / "run")
    whole = rng.normal(size=(50, 3)).astype(np.float32)
    with store.writing():
        store.memo("step", 0, 0, lambda: Part(arrays={"a": whole, "b": np.arange(4, dtype=np.uint8)}))
    monkeypatch.setattr(parts, "PIECE", 7 * 12)
    stored = Step.open(tmp_path / "run", "step").arrays()["a"]
    np.testing.assert_array_equal(np.concatenate([block for _, block in stored.blocks()]), whole)
    for wanted in (rng.integers(0, 50, 40), np.array([49, 0, 0]), np.empty(0, np.int64)):
        np.testing.assert_array_equal(stored.take(wanted), whole[wanted])
    (tmp_path / "run" / "step" / "part-00000.safetensors").write_bytes(b"short")
    with pytest.raises(StoreError, match=r"step/part-00000\.safetensors is damaged.*study --out"):
        stored.take(np.array([3]))


# --- what is refused --------------------------------------------------------------------------------------


def damaged(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(content)


def test_a_part_damaged_meanwhile_costs_its_pictures_alone(tmp_path):
    folder = build_run(tmp_path / "run")
    shown = read_shown(folder)
    images = shown.images
    at = images.located()
    bad = (at.source == 1 + sorted(ATTACKS).index("fgsm")) & (at.part == 2)
    assert 0 < bad.sum() < len(bad)
    damaged(folder / "attacks/clear/fgsm/test/part-00002.parquet")
    for row in range(len(shown)):
        if not shown.columns["pictured"][row]:
            continue
        if bad[row]:
            with pytest.raises(StoreError, match=r"fgsm/test/part-00002\.parquet is damaged.*study --out"):
                images[row]
        else:
            assert images[row].startswith(b"\x89PNG")
    (folder / "attacks/clear/fgsm/test/part-00002.parquet").unlink()
    with pytest.raises(StoreError, match=r"fgsm/test/part-00002\.parquet is damaged"):
        images[int(np.flatnonzero(bad)[0])]


def asked(app: Any, path: str) -> tuple[int, bytes]:
    """Status and body of one answer."""
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": [(b"host", b"127.0.0.1")], "http_version": "1.1", "scheme": "http", "root_path": "",
             "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1)}  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent)


def test_the_server_names_the_part_and_goes_on(tmp_path):
    pytest.importorskip("fastapi")
    from heatprint.web.app import inspector

    begun = []
    folder = build_run(tmp_path / "run")
    app, shown = inspector(folder, None, token=None, map_sent=lambda: begun.append(1)), read_shown(folder)
    at = shown.images.located()
    of = {held.step.name: np.flatnonzero(at.source == number) for number, held in enumerate(at.sources)}
    damaged(folder / "atlas/images/part-00000.parquet")
    status, body = asked(app, f"/api/image/{of['atlas/images'][0]}.png")
    assert status == 422
    assert "atlas/images/part-00000.parquet is damaged" in json.loads(body)["error"]
    row = of["attacks/clear/fgsm/test"][0]
    assert asked(app, f"/api/image/{row}.png") == (200, shown.images[row])
    status, body = asked(app, f"/api/image/{np.flatnonzero(at.source < 0)[0]}.png")
    assert status == 422
    assert "holds no picture" in json.loads(body)["error"]
    assert not begun
    assert asked(app, "/api/points") == (200, packed(read_shown(folder, distances=False))[1])
    assert begun == [1]
    assert asked(app, "/api/more") == (200, packed_more(read_shown(folder, distances=False))[1])
    near = json.loads(asked(app, "/api/near/0")[1])
    assert [one["row"] for one in near] == [row for row, _ in shown.neighbours(0, len(near))]
    (folder / "global" / "part-00000.safetensors").write_bytes(b"")
    status, body = asked(app, "/api/near/0")
    assert status == 422
    assert "global/part-00000.safetensors is damaged" in json.loads(body)["error"]
    assert asked(app, "/api/run")[0] == 200


def test_neighbours_in_pieces_are_those_of_a_slow_count(run, monkeypatch):
    shown = read_shown(run)
    vectors = shown.signatures.rows(0, len(shown))
    monkeypatch.setattr(parts, "PIECE", 5 * 4 * WIDE)
    for row in (0, 4, len(shown) - 1):
        away = np.linalg.norm(vectors - vectors[row], axis=1)
        order = [int(other) for other in np.argsort(away, kind="stable") if other != row]
        for count in (1, 7, 10 * len(shown)):
            assert [other for other, _ in shown.neighbours(row, count)] == order[:count]


def test_a_part_of_another_study_is_not_shown_for_this_one(tmp_path):
    folder = build_run(tmp_path / "run")
    shown = read_shown(folder)
    build_run(tmp_path / "other", seed=5)
    file = "atlas/images/part-00000.parquet"
    (folder / file).write_bytes((tmp_path / "other" / file).read_bytes())
    row = int(np.flatnonzero(shown.images.located().source == 0)[0])
    with pytest.raises(StoreError, match=r"images/part-00000\.parquet is damaged \(it is not what was written\)"):
        shown.images[row]


def test_an_image_without_a_picture_says_why(run):
    shown = read_shown(run)
    row = int(np.flatnonzero(shown.columns["pictured"] == 0)[0])
    with pytest.raises(StoreError, match="holds no picture of this image: older versions"):
        shown.images[row]


def test_an_original_that_was_altered_is_refused(tmp_path):
    folder = build_run(tmp_path / "run", originals=True)
    shown = read_shown(folder)
    at = shown.images.located()
    pixels = folder / "images" / "test.npy"
    content = bytearray(pixels.read_bytes())
    row = int(np.flatnonzero(at.source == 0)[4])
    content[-48 * (23 - int(at.place[row])) + 5] ^= 1
    pixels.write_bytes(content)
    with pytest.raises(StoreError, match=rf"test\.npy is damaged \(image {at.place[row]} is not the one"):
        shown.images[row]
    assert shown.images[int(np.flatnonzero(at.source == 0)[5])]
    pixels.write_bytes(content[:100])
    with pytest.raises(StoreError, match=r"images/test\.npy is damaged.*reads the images anew"):
        shown.images[int(np.flatnonzero(at.source == 0)[5])]
    listed = folder / "images" / "test.parquet"
    listed.write_bytes(listed.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"images/test\.parquet is damaged"):
        read_shown(folder)


def test_what_is_late_is_made_once_and_after_a_failure_again():
    asked_for = []

    def make() -> int:
        asked_for.append(1)
        if len(asked_for) == 1:
            raise StoreError("not yet")
        return 7

    late = Late(make)
    with pytest.raises(StoreError, match="not yet"):
        late()
    assert [late(), late()] == [7, 7]
    assert len(asked_for) == 2


def test_few_pictures_stay_in_memory(tmp_path, monkeypatch):
    shown = read_shown(build_run(tmp_path / "run", images=60))
    monkeypatch.setattr(pictures, "KEPT", 2000)
    rows = np.flatnonzero(shown.columns["pictured"]).tolist()
    first = [shown.images[row] for row in rows]
    held = [one for one in shown.images.located().sources if isinstance(one, pictures.InParts)]
    sizes = [[part.nbytes for part in one._kept.values()] for one in held]
    assert all(len(size) == 1 or sum(size) <= 2000 for size in sizes)
    assert max(map(len, sizes)) > 1
    assert [shown.images[row] for row in reversed(rows)] == first[::-1]


def test_a_torn_part_of_an_attack_costs_what_it_holds(tmp_path):
    folder = build_run(tmp_path / "run")
    whole = read_shown(folder)
    at = whole.images.located()
    fgsm = at.source == 1 + sorted(ATTACKS).index("fgsm")
    lost = fgsm & (at.part == at.part[fgsm][0])
    part = f"attacks/clear/fgsm/test/part-{at.part[fgsm][0]:05d}.parquet"
    (folder / part).write_bytes((folder / part).read_bytes()[:60])
    shown = read_shown(folder)
    assert len(shown.broken()) == 1
    assert np.isnan(shown.more()["confidence"][lost]).all()
    kept = ~lost & (shown.columns["kind"] > 0)
    np.testing.assert_array_equal(shown.more()["confidence"][kept], whole.more()["confidence"][kept])
    for row in np.flatnonzero(lost):
        with pytest.raises(StoreError, match=rf"not found.*{part} is damaged"):
            shown.images[row]
    for row in np.flatnonzero(kept):
        assert shown.images[row] == whole.images[row]
    told, _ = packed_more(shown)
    assert f"{part} is damaged" in told["broken"]


@pytest.mark.parametrize("broken", ["global/part-00000.parquet", "atlas/images/part-00000.parquet"])
def test_a_torn_part_is_named_when_the_run_is_opened(tmp_path, broken):
    folder = build_run(tmp_path / "run")
    (folder / broken).write_bytes((folder / broken).read_bytes()[:60])
    with pytest.raises(StoreError, match=rf"{broken} is damaged.*study --out"):
        read_shown(folder)


@pytest.mark.parametrize("step", ["global", "atlas/images"])
def test_a_step_that_is_not_done_is_named(tmp_path, step):
    folder = build_run(tmp_path / "run")
    (folder / step / "_done" / "part-00000.json").write_text("{")  # torn
    with pytest.raises(StoreError, match=rf"{step}' is not marked done.*study --out"):
        read_shown(folder)


def test_a_map_of_nothing_is_empty(tmp_path):
    folder = build_run(tmp_path / "run")
    with Store(folder).writing():
        Store(folder).memo("global", 0, 1, Part)
    shown = read_shown(folder)
    assert len(shown) == 0
    assert packed(shown)[0]["rows"] == 0


def test_another_run_has_another_digest(run, tmp_path):
    same, other = build_run(tmp_path / "same"), build_run(tmp_path / "other", seed=1)
    assert read_shown(run).digest == read_shown(same).digest != read_shown(other).digest
