"""The page's first words, written from the numbers: what was attacked, how often it fell, what retraining bought.

Sentences count and compare; none of them judges. A number that was not measured takes its sentence with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatprint.report.read import Run
from heatprint.report.tables import Share, is_control, studied_attacks


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
        said.append(f"It classifies {_of(clean)} clean test images correctly.")
    falls = [
        f"{run.attack_title(name)} flips {_of(share)}"
        for name in studied_attacks(run)
        if (share := _column(clear, name, "success"))
    ]
    if falls:
        said.append(f"Of the images it had right, {listed(falls)}.")
    return said + [sentence for name in sorted(clear.get("attacks") or {}) if (sentence := _control(run, name))]


def bought(run: Run) -> list[str]:
    """What retraining bought against old adversarials and a renewed attack, the strong attack beside it."""
    said = [sentence for name in studied_attacks(run) for sentence in _retrained(run, name)]
    return said + _strong(run)


def key_figures(run: Run) -> list[KeyFigure]:
    """The numbers worth a glance, each with the population it is a share of."""
    clear = run.arm("clear") or {}
    figures = [KeyFigure(title="clean images right", share=clear.get("clean"), note=run.arm_title("clear"))]
    for name in studied_attacks(run):
        title = run.attack_title(name)
        figures.append(KeyFigure(title=f"{title} succeeds", share=_column(clear, name, "success"), note="on clear"))
        immune = run.arm(f"{name}_immune")
        if immune:
            share = _column(immune, name, "success")
            note = f"anew on {run.arm_title(immune['name'])}"
            figures.append(KeyFigure(title=f"{title} succeeds", share=share, note=note))
    best = max(_strong_shares(run), key=lambda pair: pair[1]["share"], default=None)
    if best:
        name = run.attack_title((best[0].get("strong") or {})["attack"])
        note = f"the best arm, {run.arm_title(best[0]['name'])}"
        figures.append(KeyFigure(title=f"still right under {name}", share=best[1], note=note))
    return figures


def listed(words: list[str]) -> str:
    """Words with commas and an "and"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _subject(run: Run) -> str:
    data, model = run.settings["data"], run.settings["models"].get("clear") or {}
    size = f" ({model['parameters']:,} parameters)" if model.get("parameters") else ""
    return (
        f"A {model.get('architecture', 'network')} classifier{size} was trained on {data.get('train') or 0:,} images "
        f"of {listed(run.classes)} and attacked on {data.get('test') or 0:,} test images."
    )


def _retrained(run: Run, name: str) -> list[str]:
    """One attack: the old adversarials, the attack made anew, and the control fine-tuned on clean images."""
    immune, clear, title = run.arm(f"{name}_immune"), run.arm("clear") or {}, run.attack_title(name)
    if immune is None:
        return []
    said = [f"{run.arm_title(immune['name'])} was retrained on {title} images."]
    if static := _column(immune, name, "static"):
        said.append(f"It gets {_of(static)} old adversarials right.")
    if anew := _column(immune, name, "reattacked"):
        before = _column(clear, name, "reattacked")
        beside = f", against {_of(before)} for the clear model" if before else ""
        said.append(f"When {title} is made anew against it, {_of(anew)} images stay right{beside}.")
    if control := _column(run.arm("clean_control") or {}, name, "static"):
        said.append(f"Fine-tuning on clean images alone gets {_of(control)} of those old adversarials right.")
    return said


def _control(run: Run, name: str) -> str | None:
    share = _column(run.arm("clear") or {}, name, "success")
    if not share or not is_control(run, name):
        return None
    return f"{run.attack_title(name).capitalize()} that knows nothing of the model, the control, flips {_of(share)}."


def _strong(run: Run) -> list[str]:
    """The strong attack, arm by arm."""
    shares = _strong_shares(run)
    if not shares:
        return []
    name = run.attack_title(shares[0][0]["strong"]["attack"])
    kept = [f"{run.arm_title(arm['name'])} {_of(share)}" for arm, share in shares]
    return [f"Under {name}, the strong attack made against each model, images still right: {listed(kept)}."]


def _strong_shares(run: Run) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    arms = run.metrics["arms"]
    return [(arm, share) for arm in arms if (share := (arm.get("strong") or {}).get("robust"))]


def _column(arm: Mapping[str, Any], attack: str, column: str) -> Share | None:
    share: Share | None = ((arm.get("attacks") or {}).get(attack) or {}).get(column)
    return share


def _of(share: Share) -> str:
    return f"{share['count']:,} of {share['total']:,} ({100 * share['share']:.1f}\u00a0%)"
