"""Values as small pages for a notebook: images, heat maps on one scale, counts, tables. Self-contained, no script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from heatprint.core.display import Displayed
from heatprint.core.errors import InvalidInput
from heatprint.report.charts import spectrum
from heatprint.report.pages import templates
from heatprint.report.pictures import bar_uri, heat_uri, image_uri, perturbation_uri, shared_scale

MOST = 8  # images that are shown; how many there are is said


def drawn(value: Displayed) -> str:
    """HTML of a value.

    Raises:
        InvalidInput: Nothing here draws such a value.
    """
    name = type(value).__name__
    if name not in DRAWN:
        raise InvalidInput(f"notebook: a {name} has no picture.")
    return templates().get_template("notebook.html.j2").render(bar=bar_uri(), **DRAWN[name](value))


def _batch(value: Any) -> dict[str, Any]:
    """Images with their true classes as numbers: a batch knows no names."""
    rows = range(min(MOST, len(value)))
    return {
        "title": _counted(len(value), "image"),
        "figures": [{"pictures": [_image(value, row)], "lines": [value.ids[row], f"class {int(value.labels[row])}"]}
                    for row in rows],
        "left": len(value) - len(rows),
    }  # fmt: skip


def _attacked(value: Any) -> dict[str, Any]:
    """Clean, attacked and amplified difference of the first successes, and what it took."""
    won = value.success.nonzero().flatten().tolist()
    shown = (won or list(range(len(value.clean))))[:MOST]
    total, hit = value.attempted, int(value.success.sum())
    tried = ~value.skipped
    facts = [
        ("succeeded", f"{hit} of {total}" + (f" ({hit / total:.1%})" if total else "")),
        ("wrong before, not attacked", str(int(value.skipped.sum()))),
    ]
    if total:
        facts.append(("forward passes per image", f"{value.forwards[tried].float().mean():.1f}"))
    if hit:
        facts += [
            ("median pixels changed", f"{value.distance.l0[won].float().median():.0f}"),
            ("median L2", f"{value.distance.l2[won].median():.3f}"),
            ("median largest change, levels", f"{255 * value.distance.linf[won].median():.0f}"),
        ]
    return {
        "title": f"Attack on {_counted(len(value.clean), 'image')}",
        "facts": facts,
        "figures": [_change(value, row) for row in shown],
        "left": (hit or len(value.clean)) - len(shown),
        "of": "successes" if won else "images",
    }


def _change(value: Any, row: int) -> dict[str, Any]:
    added, gain = perturbation_uri(_array(value.clean, row), _array(value.adversarial, row))
    before, after = int(value.clean_logits[row].argmax()), int(value.logits[row].argmax())
    return {
        "pictures": [_image(value.clean, row), _image(value.adversarial, row), added],
        "lines": [value.clean.ids[row], f"class {before} to {after}; difference ×{gain:g}"],
    }


def _explained(value: Any) -> dict[str, Any]:
    """Heat maps on one zero-centred scale."""
    rows = range(min(MOST, len(value.ids)))
    maps = [value.heat[row].double().numpy() for row in rows]
    scale = shared_scale(maps) if maps else None
    return {
        "title": f"Heat maps of {_counted(len(value.ids), 'image')}",
        "scale": scale,
        "figures": [{"pictures": [heat_uri(one, scale)], "lines": [value.ids[row],
                     f"class {int(value.target[row])}, score {float(value.score[row]):.3g}"]}
                    for row, one in zip(rows, maps, strict=True) if scale],
        "left": len(value.ids) - len(rows),
    }  # fmt: skip


def _strategies(value: Any) -> dict[str, Any]:
    """Sizes, the spectrum, and what speaks for their number."""
    sizes = np.bincount(value.labels, minlength=value.count)
    facts = [("strategies", str(value.count)), ("proposed by the data", str(value.proposed)),
             ("stability", f"{value.stability:.2f}"), ("separability", f"{value.separability:.2f}")]  # fmt: skip
    return {
        "title": f"Strategies in {_counted(len(value.labels), 'heat map')}",
        "facts": facts + ([("note", value.note)] if value.note else []),
        "heads": ["strategy", "heat maps"],
        "rows": [[str(n), str(int(size))] for n, size in enumerate(sizes)],
        "chart": spectrum(value.eigenvalues.tolist(), value.null.tolist(), value.proposed, "eigenvalues"),
    }


def _card(value: Any) -> dict[str, Any]:
    """Every check, its verdict, why, and what to do."""
    return {
        "title": f"{value.name}: {value.headline}",
        "heads": ["check", "verdict", "why", "what to do"],
        "rows": [[one.check, one.verdict, one.why, one.do] for one in value.findings],
    }


def _identified(value: Any) -> dict[str, Any]:
    """Name, family and doubt of each image."""
    unknown = value.unknown()
    rows = [
        [str(row), "unknown" if unknown[row] else value.name[row], value.family[row],
         f"{value.family_probability[row]:.0%}", f"{value.credibility[row]:.2f}"]
        for row in range(min(MOST * 4, len(value.name)))
    ]  # fmt: skip
    return {
        "title": f"Attacks named in {_counted(len(value.name), 'image')}",
        "heads": ["image", "attack", "family", "probability of the family", "credibility"],
        "rows": rows,
        "left": len(value.name) - len(rows),
    }


DRAWN: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Attacked": _attacked,
    "Batch": _batch,
    "Card": _card,
    "Explained": _explained,
    "Identified": _identified,
    "Strategies": _strategies,
}


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _array(batch: Any, row: int) -> np.ndarray:
    return np.ascontiguousarray(batch.pixels[row].permute(1, 2, 0).numpy())


def _image(batch: Any, row: int) -> str:
    return image_uri(_array(batch, row))
