"""The tables: the paper's mixture, the columns it hides, the two kinds of error, and every setting.

A share is passed on as the run wrote it, ``{"count", "total", "share", "low", "high"}`` or None when nothing was
measured; nothing is computed again, so what is printed is what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from heatprint.report.read import Run

Share = Mapping[str, Any]
PAPER = {  # Klawikowska et al. 2020, Table 1, per cent
    ("clear", None): 85.80,
    ("clear", "fgsm"): 58.37,
    ("clear", "one-pixel"): 64.62,
    ("fgsm_immune", "fgsm"): 84.15,
    ("one-pixel_immune", "one-pixel"): 86.09,
}


@dataclass(frozen=True, kw_only=True)
class MixtureRow:
    """A row of the paper's Table 1."""

    model: str
    test_set: str
    share: Share | None
    paper: float | None


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """What one attack means to one arm, in the parts the mixture hides."""

    attack: str
    mixture: Share | None
    static: Share | None
    success: Share | None
    reattacked: Share | None


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm: clean, one row per attack, and what stands after the attacks made against these very weights.

    Attributes:
        title: Its name.
        clean: Right, of all clean test images.
        attacks: One row each.
        strong_attack: Title of the strong attack.
        strong: Right after it.
        adaptive: Right after it and after the same with gradients led past what gives none.
        needs_adaptive: Whether the arm has such a part; a run of an older version does not say, which counts as yes.
        worst: Right after every attack, image by image.
        worst_of: Titles of those attacks.
    """

    title: str
    clean: Share | None
    attacks: tuple[AttackRow, ...]
    strong_attack: str | None
    strong: Share | None
    adaptive: Share | None
    needs_adaptive: bool
    worst: Share | None
    worst_of: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ErrorTable:
    """Type I and II errors on one test set: rows of (arm, first row of the arm?, rows of the arm, errors)."""

    title: str
    rows: tuple[tuple[str, bool, int, Mapping[str, Any]], ...]


def mixture_table(run: Run) -> list[MixtureRow]:
    """Table 1 as the paper prints it, the paper's own numbers beside."""
    return [
        MixtureRow(
            model=run.arm_title(row["model"]),
            test_set=row["test_set"],
            share=row["share"],
            paper=PAPER.get((row["model"], row["attack"])),
        )
        for row in run.metrics["table1"]
    ]


def arm_table(run: Run) -> list[ArmRow]:
    """Clean, mixture, old adversarials, renewed attack, strong and adaptive attack and worst case, arm by arm."""
    rows = []
    for arm in run.metrics["arms"]:
        strong, worst = arm.get("strong") or {}, arm.get("worst") or {}
        name = strong.get("attack")
        attacks = tuple(
            AttackRow(
                attack=run.attack_title(attack),
                mixture=arm["attacks"][attack].get("mixture"),
                static=arm["attacks"][attack].get("static"),
                success=arm["attacks"][attack].get("success"),
                reattacked=arm["attacks"][attack].get("reattacked"),
            )
            for attack in ordered_attacks(run)
            if attack in (arm.get("attacks") or {})
        )
        rows.append(
            ArmRow(
                title=run.arm_title(arm["name"]),
                clean=arm.get("clean"),
                attacks=attacks,
                strong_attack=sized(run, name) if name else None,
                strong=strong.get("robust"),
                adaptive=(arm.get("adaptive") or {}).get("standing"),
                needs_adaptive=not name or arm.get("adaptive", {}) is not None,
                worst=worst.get("standing"),
                worst_of=tuple(map(run.attack_title, worst.get("attacks") or ())),
            )
        )
    return rows


def error_tables(run: Run) -> list[ErrorTable]:
    """One table per test set, the clean one first."""
    sets = ["clean", *(name for name in ordered_attacks(run))]
    tables = []
    for name in sets:
        rows: list[tuple[str, bool, int, Mapping[str, Any]]] = []
        for arm in run.metrics["arms"]:
            errors = (arm.get("errors") or {}).get(name) or []
            rows += [(run.arm_title(arm["name"]), n == 0, len(errors), row) for n, row in enumerate(errors)]
        if rows:
            title = "Clean test images" if name == "clean" else f"Clean + successful {run.attack_title(name)}"
            tables.append(ErrorTable(title=title, rows=tuple(rows)))
    return tables


def is_control(run: Run, attack: str) -> bool:
    """Whether an "attack" is only a control: noise that knows nothing of the model."""
    taxonomy = run.settings["attacks"].get(attack, {}).get("taxonomy") or {}
    return bool(taxonomy.get("knowledge") == "none" or taxonomy.get("paper") == "control")


def sized(run: Run, attack: str) -> str:
    """Title of an attack and how far it may go, since attacks of different radii cannot be compared by name."""
    eps = (run.settings["attacks"].get(attack, {}).get("settings") or {}).get("eps")
    return run.attack_title(attack) + (f" at {setting(eps)}" if isinstance(eps, float) else "")


def setting(value: Any) -> str:
    """A setting; sizes that are whole levels of the 8-bit lattice read k/255."""
    levels = value * 255 if isinstance(value, float) else 0.0
    return f"{round(levels)}/255" if 0 < levels <= 255 and abs(levels - round(levels)) < 1e-6 else plain(value)


def plain(value: Any) -> str:
    """A value in few digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}"


def strong_attacks(run: Run) -> list[str]:
    """Names of the attacks used as the strong one."""
    return sorted({arm["strong"]["attack"] for arm in run.metrics["arms"] if arm.get("strong")})


def studied_attacks(run: Run) -> list[str]:
    """The attacks the study is about: neither controls nor the strong attack that checks the defences."""
    strong = strong_attacks(run)
    measured = {name for arm in run.metrics["arms"] for name in (arm.get("attacks") or {})}
    return sorted(name for name in measured if name not in strong and not is_control(run, name))


def ordered_attacks(run: Run) -> list[str]:
    """Every attack of the run: the studied ones, the controls, the strong ones."""
    known = set(run.settings["attacks"]) | set(run.metrics["attacks"])
    known |= {name for arm in run.metrics["arms"] for name in (arm.get("attacks") or {})}
    studied, strong = studied_attacks(run), strong_attacks(run)
    rest = sorted(name for name in known if name not in studied and name not in strong)
    return [*studied, *rest, *strong]


def settings_tables(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Every setting and version of the run, flattened to ``a.b.c`` and grouped by what it belongs to."""
    data = {key: value for key, value in run.settings["data"].items() if key != "skipped"}
    attacks = {name: spec.get("settings") for name, spec in run.settings["attacks"].items()}
    explainer = {key: value for key, value in run.settings["explainer"].items() if key != "plan"}
    general = {key: run.settings.get(key) for key in ("heatprint", "recipe_name", "seed", "device")}
    groups = [
        ("Run", general),
        ("Recipe", run.settings["recipe"]),
        ("Data", data),
        ("Models", run.settings["models"]),
        ("Attacks", attacks),
        ("Explainer", explainer),
        ("Signature", run.settings.get("signature")),
        ("Embedding", run.settings.get("embedding")),
        ("Versions", run.settings["versions"]),
    ]
    return [(title, list(_flat(value, ""))) for title, value in groups if value]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, ", ".join(str(item) for item in value) or "none"
    else:
        yield name or "value", "none" if value is None else str(value)
