"""A data set of clean and attacked images for the Hugging Face library `datasets`.

    data/test-00000-of-00001.parquet   one row per image, the image as {bytes, path} with lossless PNG bytes
    README.md                          the data card

`datasets.load_dataset("FOLDER")` opens it with decoded images, since the file's schema says which column is one;
anything else that reads Parquet (DuckDB, pandas) opens it, too. The rows are written part by part, so that memory
does not grow with the number of images.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from heatprint.runs.finished import Finished

FILE = "data/test-00000-of-00001.parquet"
ROW_GROUP = 500  # images
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS = {  # type, and what the card says
    "image": (IMAGE, "the 8-bit image as a lossless PNG"),
    "id": (pa.string(), "the source image; a clean image and its attacked copies share it"),
    "kind": (pa.string(), "`clean`, or the attack that made the image"),
    "label": (pa.string(), "the true class"),
    "predicted": (pa.string(), "the class that the undefended model says"),
    "success": (pa.bool_(), "whether the attack reached its goal; empty for clean images"),
    "strategy": (pa.string(), "strategy of the clean image's heat map, empty where it is not in the atlas"),
    "x": (pa.float64(), "first coordinate of the signature in the UMAP plane, empty where it is not on the map"),
    "y": (pa.float64(), "second coordinate"),
    "step": (pa.int64(), "gain or generation of the attack's first success, -1 for none"),
    "l0": (pa.int64(), "pixels that the attack changed"),
    "l2": (pa.float64(), "length of the change, pixel values from 0 to 1"),
    "linf": (pa.float64(), "largest change of a value, in levels of 1/255"),
}
NAMES = {pa.string(): "string", pa.bool_(): "bool", pa.float64(): "float64", pa.int64(): "int64"}


def write_huggingface(run: Finished, out: Path) -> None:
    """Write the Parquet file and the data card; images that an attack skipped are left out, failures kept."""
    (out / FILE).parent.mkdir()
    schema, counted, won = _schema(), Counter[str](), Counter[str]()
    with pq.ParquetWriter(out / FILE, schema, compression="zstd") as writer:
        for rows in _batches(run):
            counted.update(row["kind"] for row in rows)
            won.update(row["kind"] for row in rows if row["success"])
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    (out / "README.md").write_text(_card(run, counted, won), encoding="utf-8", errors="backslashreplace")


def _schema() -> pa.Schema:
    features = {
        name: {"_type": "Image"} if kind == IMAGE else {"dtype": NAMES[kind], "_type": "Value"}
        for name, (kind, _) in COLUMNS.items()
    }
    told = json.dumps({"info": {"features": features}})
    return pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()], metadata={"huggingface": told})


def _batches(run: Finished) -> Iterator[list[dict[str, Any]]]:
    """Rows of all images: the clean ones of the atlas, then every attack's."""
    places = run.places()
    strategies = dict(zip(run.images["id"], run.images["strategy"], strict=True))

    def rows(columns: Mapping[str, list[Any]], kind: str) -> list[dict[str, Any]]:
        whole = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [
            {"success": None, **row, "kind": kind, "strategy": strategies.get(row["id"])}
            | {axis: places.get((row["id"], kind), {}).get(axis) for axis in ("x", "y")}
            for row in whole
            if not row.get("skipped")
        ]

    for start in range(0, len(run.images["id"]), ROW_GROUP):
        yield rows({name: values[start : start + ROW_GROUP] for name, values in run.images.items()}, "clean")
    for attack, columns in run.attacked():
        yield rows(columns, attack)


def _card(run: Finished, counted: Mapping[str, int], won: Mapping[str, int]) -> str:
    """The data card: a YAML header that names the file, the columns, and the counts."""
    kinds = "\n".join(
        f"| {kind} | {count:,} | {'' if kind == 'clean' else f'{won.get(kind, 0):,}'} |"
        for kind, count in counted.items()
    )
    columns = "\n".join(f"| `{name}` | {told} |" for name, (_, told) in COLUMNS.items())
    explainer = _words(str(run.atlas.get("explainer", "")))
    return f"""---
pretty_name: {json.dumps(f"heatprint: {run.name}", ensure_ascii=False)}
task_categories:
- image-classification
tags:
- adversarial-examples
- explainable-ai
configs:
- config_name: default
  data_files:
  - split: test
    path: {FILE}
---

# {_words(run.name)}: clean and attacked images

Test images of a heatprint study (seed {run.settings["seed"]}) of {_words(", ".join(run.classes))}; the copies that
attacks on the undefended model ({_words(run.architecture)}) made of them; and the strategies that spectral relevance
analysis ({_words(str(run.atlas.get("method", "")))}) found in the heat maps ({explainer}).
Strategies are groups of heat maps, not ground truth.

| kind | images | successes |
|---|---|---|
{kinds}

Failed attempts are kept. Images that were misclassified before an attack were not attacked and have no copy.

| column | meaning |
|---|---|
{columns}

The licence of the images is that of their source, which this card does not know.
"""


def _words(text: str) -> str:
    """A name from the outside as plain words in Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in " ".join(escape(text, quote=False).split()))
