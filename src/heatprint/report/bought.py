"""What each defence bought, in sentences made of the numbers, the control fine-tuned on clean images beside every one.

Sentences count and compare; none of them judges. A number that was not measured takes its words with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatprint.report.read import Run
from heatprint.report.summary import column, listed, told
from heatprint.report.tables import Share, sized, studied_attacks

Arm = Mapping[str, Any]
CONTROL, UNDEFENDED = "clean_control", ("clear", "clean_control")


@dataclass(frozen=True, kw_only=True)
class Bought:
    """One defended arm."""

    title: str
    sentences: tuple[str, ...]


def bought(run: Run) -> list[Bought]:
    """Every arm that was defended, in the order of the run."""
    arms = [arm for arm in run.metrics["arms"] if arm["name"] not in UNDEFENDED]
    return [Bought(title=run.arm_title(arm["name"]), sentences=tuple(_said(run, arm))) for arm in arms]


def _said(run: Run, arm: Arm) -> list[str]:
    """Learnt from, clean, old adversarials, attacked anew, strong, worst case."""
    control = run.arm(CONTROL) or {}
    own = str(arm["name"]).removesuffix("_immune")
    immune = own != arm["name"]
    attacks = studied_attacks(run)
    said = _learnt(run, own) if immune else []
    if clean := _beside(arm.get("clean"), control.get("clean")):
        said.append(f"Of the clean images it is right for {clean}.")
    for name in [own] if immune else attacks:
        said += _old(run, arm, control, name)
    anew = [
        f"{sized(run, name)} {beside}"
        for name in attacks
        if (beside := _beside(column(arm, name, "reattacked"), column(control, name, "reattacked")))
    ]
    if anew:
        said.append(f"Attacked anew, these stand: after {'; after '.join(anew)}.")
    return said + _hardest(run, arm, control)


def _learnt(run: Run, name: str) -> list[str]:
    """How many adversarials an immune model was trained on."""
    found: Share | None = ((run.metrics["attacks"].get(name) or {}).get("train") or {}).get("success")
    if found is None:
        return []
    title = run.attack_title(name)
    if not found["count"]:
        return [f"No {title} attack on the training images succeeded: it learnt from clean images alone."]
    return [f"It was retrained on clean images and on {found['count']:,} {title} images that fooled the clear model."]


def _old(run: Run, arm: Arm, control: Arm, name: str) -> list[str]:
    """The old adversarials, and how what was learnt of them compares with the control and with a new attack."""
    static, theirs, fallen = column(arm, name, "static"), column(control, name, "static"), column(arm, name, "success")
    if not static:
        return []
    said = [f"On the old {run.attack_title(name)} adversarials it is right for {_beside(static, theirs)}."]
    if theirs and static["low"] <= theirs["high"] and theirs["low"] <= static["high"]:
        said.append("Those two intervals overlap: clean images alone may have bought as much.")
    if fallen and 1 - fallen["low"] < static["low"]:
        said.append(
            f"Of the images it gets right, {told(fallen)} fall when the attack is made anew: a smaller share stands "
            "than of the old ones."
        )
    return said


def _hardest(run: Run, arm: Arm, control: Arm) -> list[str]:
    """The strong attack, the same past blocked gradients, and the worst case per image."""
    strong, worst = arm.get("strong") or {}, arm.get("worst") or {}
    said = []
    if beside := _beside(strong.get("robust"), (control.get("strong") or {}).get("robust")):
        said.append(f"Against {sized(run, strong['attack'])} {beside} stand.")
    if adaptive := (arm.get("adaptive") or {}).get("standing"):
        said.append(
            "A part of it gives no gradient; when the same attack leads gradients past that part, "
            f"{told(adaptive)} stand."
        )
    if beside := _beside(worst.get("standing"), (control.get("worst") or {}).get("standing")):
        names = listed([run.attack_title(name) for name in worst["attacks"]])
        said.append(f"Image by image, the worst of {names}: {beside} stand.")
    return said


def _beside(share: Share | None, control: Share | None) -> str:
    """A share with the control's in brackets; empty where it was not measured."""
    if not share:
        return ""
    return told(share) + (f" [control: {told(control)}]" if control else "")
