"""The page's first words, written from the numbers: what was attacked, how often it fell, what the strong attack left.

Sentences count and compare; none of them judges. A number that was not measured takes its sentence with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatprint.report.read import Run
from heatprint.report.tables import Share, is_control, sized, studied_attacks


@dataclass(frozen=True, kw_only=True)
class KeyFigure:
    """One large number."""

    title: str
    share: Share | None
    note: str


def attacked(run: Run) -> list[str]:
    """What was attacked and how often it fell, in sentences."""
    clear = run.arm("clear") or {}
    said = [_subject(run)]
    if clean := clear.get("clean"):
        said.append(f"It classifies {told(clean)} clean test images correctly.")
    falls = [
        f"{run.attack_title(name)} flips {told(share)}"
        for name in studied_attacks(run)
        if (share := column(clear, name, "success"))
    ]
    if falls:
        said.append(f"Of the images it had right, {listed(falls)}.")
    return said + [sentence for name in sorted(clear.get("attacks") or {}) if (sentence := _control(run, name))]


def withstood(run: Run) -> list[str]:
    """What the strong attack leaves of each model, in a sentence."""
    shares = _strong_shares(run)
    if not shares:
        return []
    name = sized(run, shares[0][0]["strong"]["attack"])
    kept = [
        f"{run.arm_title(arm['name'])} {told(share)}"
        + (", gradients led past the part that gives none" if arm.get("adaptive") else "")
        for arm, share in shares
    ]
    return [f"Under {name}, the strong attack made against each model, images still right: {'; '.join(kept)}."]


def key_figures(run: Run) -> list[KeyFigure]:
    """The numbers worth a glance, each with the population it is a share of."""
    clear = run.arm("clear") or {}
    figures = [KeyFigure(title="clean images right", share=clear.get("clean"), note=run.arm_title("clear"))]
    for name in studied_attacks(run):
        title = run.attack_title(name)
        figures.append(KeyFigure(title=f"{title} succeeds", share=column(clear, name, "success"), note="on clear"))
        immune = run.arm(f"{name}_immune")
        if immune:
            share = column(immune, name, "success")
            note = f"anew on {run.arm_title(immune['name'])}"
            figures.append(KeyFigure(title=f"{title} succeeds", share=share, note=note))
    best = max(_strong_shares(run), key=lambda pair: pair[1]["share"], default=None)
    if best:
        name = sized(run, best[0]["strong"]["attack"])
        note = f"the best arm, {run.arm_title(best[0]['name'])}"
        figures.append(KeyFigure(title=f"still right under {name}", share=best[1], note=note))
    return figures


def listed(words: list[str]) -> str:
    """Words with commas and an "and"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def column(arm: Mapping[str, Any], attack: str, name: str) -> Share | None:
    """A column of an arm for an attack; None where it was not measured."""
    share: Share | None = ((arm.get("attacks") or {}).get(attack) or {}).get(name)
    return share


def told(share: Share) -> str:
    """A share as count, total and per cent."""
    return f"{share['count']:,} of {share['total']:,} ({100 * share['share']:.1f}\u00a0%)"


def _subject(run: Run) -> str:
    data, model = run.settings["data"], run.settings["models"].get("clear") or {}
    size = f" ({model['parameters']:,} parameters)" if model.get("parameters") else ""
    return (
        f"A {model.get('architecture', 'network')} classifier{size} was trained on {data.get('train') or 0:,} images "
        f"of {listed(run.classes)} and attacked on {data.get('test') or 0:,} test images."
    )


def _control(run: Run, name: str) -> str | None:
    share = column(run.arm("clear") or {}, name, "success")
    if not share or not is_control(run, name):
        return None
    return f"{run.attack_title(name).capitalize()} that knows nothing of the model, the control, flips {told(share)}."


def _strong_shares(run: Run) -> list[tuple[Mapping[str, Any], Share]]:
    """Every arm with what stands after the strong attack, in its adaptive form where the arm needs that."""
    found = []
    for arm in run.metrics["arms"]:
        hardest = (arm.get("adaptive") or {}).get("standing") or (arm.get("strong") or {}).get("robust")
        if hardest:
            found.append((arm, hardest))
    return found
