"""What the live laboratory answers over HTTP."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from heatprint.web.bench import Bench, Judged
from heatprint.web.jobs import Job, Jobs
from heatprint.web.specimens import Specimen, Specimens, png_of
from heatprint.web.uploads import read_image

GAINS = tuple(range(17))  # of the curve, levels
MOST_MARKED = 64  # changed pixels that a page can mark
MOST_BYTES, MOST_PIXELS = 16 * 2**20, 40_000_000  # of an upload
AT_ONCE = 2  # uploads that are decoded; a large one takes hundreds of megabytes


class Asked(BaseModel):
    """An image and how to look at it."""

    model_config = ConfigDict(extra="forbid")
    specimen: Specimen
    method: str = Field(max_length=100)
    target: int | None = Field(default=None, ge=0)


class Wanted(BaseModel):
    """An image and what to search for."""

    model_config = ConfigDict(extra="forbid")
    specimen: Specimen
    search: str = Field(max_length=100)


def live_routes(bench: Callable[[], Bench], specimens: Specimens, jobs: Jobs) -> APIRouter:
    """The routes.

    Args:
        bench: Waits for the laboratory and returns it.
        specimens: Images by name.
        jobs: What takes seconds.
    """
    routes = APIRouter()
    _looking(routes, bench, specimens)
    _measuring(routes, bench, specimens)
    _searching(routes, bench, specimens, jobs)
    return routes


def _looking(routes: APIRouter, bench: Callable[[], Bench], specimens: Specimens) -> None:
    """What there is to choose from, uploads, and prediction and heat map of an image."""
    reading = asyncio.Semaphore(AT_ONCE)

    @routes.get("")
    def about() -> dict[str, Any]:
        lab = bench()
        return {
            "size": lab.size,
            "explainers": [{"name": name, "title": title} for name, title in lab.explainers()],
            "searches": [{"name": one.name, "title": one.title} for one in lab.searches()],
            "gains": list(GAINS),
        }

    @routes.post("/upload")
    async def upload(request: Request) -> Any:
        content = await request.body()

        def read() -> str:
            pixels = read_image(content, bench().size, most_bytes=MOST_BYTES, most_pixels=MOST_PIXELS)
            return specimens.keep(pixels, None)

        async with reading:
            return {"base": await run_in_threadpool(read)}

    @routes.post("/look")
    def look(asked: Asked) -> dict[str, Any]:
        lab = bench()
        base, now, label = specimens.made(asked.specimen, lab, asked.method)
        seen = lab.look(now, method=asked.method, target=asked.target)
        changed = (base != now).any(0)
        delta = (now.astype(np.float64) - base) / 255
        return {
            "label": label,
            "predicted": seen.predicted,
            "target": seen.target,
            "probabilities": [round(float(p), 6) for p in seen.probabilities],
            "heat": floats(seen.heat),
            "note": seen.note,
            "side": now.shape[1],
            "image": "data:image/png;base64," + base64.b64encode(png_of(now)).decode("ascii"),
            "l0": int(changed.sum()),
            "l2": round(float(np.linalg.norm(delta)), 6),
            "linf": round(float(np.abs(delta).max() * 255)),
            "changed": np.argwhere(changed)[:MOST_MARKED].tolist(),
        }


def _measuring(routes: APIRouter, bench: Callable[[], Bench], specimens: Specimens) -> None:
    """What else can be said of an image: verdict, place, the gains of FGSM, single pixels."""

    @routes.post("/judge")
    def judge(specimen: Specimen) -> dict[str, Any]:
        lab = bench()
        _, now, _ = specimens.made(specimen, lab, lab.explainers()[0][0])
        where = lab.place(now)
        return {**_judged(lab.judge(now)), "place": None if where is None else {
            "umap": [where.x, where.y], "pca": [where.px, where.py],
            "near": [{"row": row, "distance": distance} for row, distance in where.neighbours],
        }}  # fmt: skip

    @routes.post("/curve")
    def curve(specimen: Specimen) -> dict[str, Any]:
        lab = bench()
        base, _, label = specimens.made(specimen.model_copy(update={"gain": 0, "edits": []}), lab,
                                        lab.explainers()[0][0])  # fmt: skip
        told = lab.curve(base, label, GAINS)
        return {"gains": list(GAINS), "label": label, "probabilities": np.round(told.astype(float), 6).tolist()}

    @routes.post("/reach")
    def reach(specimen: Specimen) -> dict[str, Any]:
        lab = bench()
        _, now, label = specimens.made(specimen, lab, lab.explainers()[0][0])
        share, colour = lab.reach(now, label)
        return {"reach": floats(share), "side": share.shape[0],
                "colour": base64.b64encode(colour.transpose(1, 2, 0).tobytes()).decode("ascii")}  # fmt: skip


def _searching(routes: APIRouter, bench: Callable[[], Bench], specimens: Specimens, jobs: Jobs) -> None:
    """Attacks that take seconds: started, asked about, stopped."""

    @routes.post("/search")
    def search(wanted: Wanted) -> Any:
        lab = bench()
        _, now, label = specimens.made(wanted.specimen, lab, lab.explainers()[0][0])

        def work(job: Job) -> dict[str, Any]:
            found, success, queries = lab.search(now, label, wanted.search, job.progress)
            return {"base": specimens.keep(found, label), "success": success, "queries": queries}

        return JSONResponse(jobs.start(work).told(), status_code=202)

    @routes.get("/jobs/{name}")
    def told(name: str) -> dict[str, Any]:
        return jobs.get(name).told()

    @routes.delete("/jobs/{name}")
    def stopped(name: str) -> dict[str, Any]:
        job = jobs.get(name)
        job.stop.set()
        return job.told()


def floats(values: np.ndarray) -> str:
    """An array as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def _judged(judged: Judged) -> dict[str, Any]:
    names = ("score", "threshold", "flagged", "family", "algorithm", "probability", "credibility", "unknown",
             "restored_label", "restored_place")  # fmt: skip
    return {name: getattr(judged, name) for name in names}
