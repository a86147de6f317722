"""The closed loop as sections of words and tables, for a terminal, a document and a page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from heatprint.report.pages import as_bytes, policy, templates

Told = Mapping[str, Any]
SHOWN = 0.02  # share of what came in from which an attack is named


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what is to be said, and a table.

    Attributes:
        title: The heading.
        words: Paragraphs.
        heads: Of the columns.
        rows: As text.
    """

    title: str
    words: Sequence[str]
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def sections(told: Told) -> list[Section]:
    """All that ``defence.json`` has to say."""
    made = [_found(told), _advice(told), _anew(told), _routing(told)]
    made += [_evaded(told["evaded"])] if told.get("evaded") else []
    made += [_adviser(told), _evidence(told)]
    return [*made, _left_out(told["left out"])] if told["left out"] else made


def lines(told: Told) -> list[str]:
    """Markdown."""
    out: list[str] = []
    for one in sections(told):
        out += ["", f"## {one.title}", ""]
        out += [line for words in one.words for line in (words, "")]
        out += ["| " + " | ".join(one.heads) + " |", "|" + "---|" * len(one.heads)]
        out += ["| " + " | ".join(row) + " |" for row in one.rows]
    return out[1:]


def page(told: Told, *, facts: Mapping[str, str]) -> bytes:
    """One offline HTML file; equal arguments give equal bytes.

    Args:
        told: ``defence.json``.
        facts: What was looked at, by name, to stand under the heading.
    """
    pages = templates()
    script = pages.get_template("page.js").render()
    text = pages.get_template("defence_page.html.j2").render(
        facts=facts, sections=sections(told), version=facts.get("heatprint", ""), page_script=Markup(script),
        policy=policy([script]),
    )  # fmt: skip
    return as_bytes(text)


def _found(told: Told) -> Section:
    shares = sorted(told["found"]["shares"].items(), key=lambda item: -item[1])
    count, flagged, unknown = (told["found"][name] for name in ("images", "flagged", "unknown"))
    what = "attacked test images of the laboratory" if count is None else f"of {count} images"
    return Section(
        title="What came in",
        words=[f"{flagged} {what} look attacked, {unknown} of them like no known attack. Mean share of each:"],
        heads=["attack", "share"],
        rows=[[name, f"{share:.0%}"] for name, share in shares if share >= SHOWN] or [["nothing stands out", ""]],
    )


def _advice(told: Told) -> Section:
    best = told["advice"][0]
    also = "" if best["remedy"] == told["chosen"] else f" Of those that are models, {told['chosen']}."
    return Section(
        title="Advice",
        words=[
            f"If {told['prior']:.0%} of the images are attacked so and the others are clean, {best['remedy']} is "
            f"expected to answer {best['expected']:.1%} rightly.{also} Learned from images of this run that nothing "
            "here is judged with, attacked before any defence was there: by someone who does not know of it.",
        ],
        heads=["remedy", "expected right", "attacked", "gain", "clean", "clean lost", "time"],
        rows=[[one["remedy"], f"{one['expected']:.1%}", f"{one['attacked']:.1%}", f"{100 * one['gain']:+.1f}",
               f"{one['clean']:.1%}", f"{100 * one['loss']:+.1f}", f"{one['slower']:.1f}x"]
              for one in told["advice"]],
    )  # fmt: skip


def _anew(told: Told) -> Section:
    anew = told["anew"]
    chosen, clear, routed = (anew[name]["worst"] for name in (told["chosen"], "clear", "routed"))
    return Section(
        title="Attacked anew, by someone who knows the defence",
        words=[
            f"{clear['total']} test images that nothing was learned from: how many are answered rightly, and still are "
            "after attacks made against that very model by someone who has its weights and wants any other answer. The "
            "ensemble changes a pixel by at most 2/255; the others are the laboratory's own. Where a part has no "
            f"gradient, the attacker leads it past (marked *). After every one of these attacks {_counted(chosen)} "
            f"stand with {told['chosen']}, {_counted(clear)} with the undefended classifier.",
            f"Routing is shown everything that was found against any of the models: {_counted(routed)} stand. No "
            "attack here was made against the routing itself, so that is what it holds at most.",
        ],
        heads=["model", "clean", *anew["clear"]["attacks"], "worst case per image"],
        rows=[[name + ("*" if one["past gradients"] else ""),
               *map(_counted, [one["clean"], *one["attacks"].values(), one["worst"]])]
              for name, one in anew.items()],
    )  # fmt: skip


def _routing(told: Told) -> Section:
    routing = told["routing"]
    lead, away = routing["lead"]["union"], routing["rejected"]
    order = sorted(routing["systems"].items(), key=lambda item: -item[1]["union"]["share"])
    return Section(
        title="Routing by identified attack",
        words=[
            "Test images as they are and in every attacked copy that fooled the undefended classifier. Union: all of "
            "an image's copies and itself answered rightly. Mean: of all attacks, each alike.",
            "All copies fooled it, so that whoever sees an attack knows its answer is wrong, and of two classes also "
            "the right one: with more classes, or attacks that fail, expect less of routing.",
            f"On the union, routing is {100 * lead['lead']:+.1f} points ({100 * lead['low']:+.1f} to "
            f"{100 * lead['high']:+.1f}) against the best single remedy, {lead['over']}. It turns away "
            f"{_counted(away['clean'])} clean and {_counted(away['attacked'])} attacked images.",
        ],
        heads=["system", "union", "mean", "clean"],
        rows=[[name, _counted(one["union"]), f"{one['mean']:.1%}", _counted(one["clean"])] for name, one in order],
    )


def _evaded(evaded: Told) -> Section:
    return Section(
        title="Past detector and identifier",
        words=[
            "By someone who knows classifier, detector and identifier and wants to pass, or to be taken for something "
            "harmless. The routing looks at the same traces, but was not itself attacked. Best alone: the single "
            "remedy that answers most of the same images, which this attacker did not attack either.",
        ],
        heads=["attack", "levels", "fooled", "routed right", "turned away", "wrong", "best alone"],
        rows=[[name, str(one["levels"]),
               *(_counted(one[what]) for what in ("fooled", "right", "rejected", "wrong")), _best(one["alone"])]
              for name, one in evaded.items()],
    )  # fmt: skip


def _best(alone: Told) -> str:
    name = max(alone, key=lambda one: alone[one]["share"])
    return f"{name} {_counted(alone[name])}"


def _adviser(told: Told) -> Section:
    cells = told["adviser"]
    hits = sum(cell["hit"] for cell in cells)
    mean = sum(cell["regret"] for cell in cells) / max(len(cells), 1)
    return Section(
        title="The adviser's record",
        words=[
            f"As if a folder of each attack had come in, {told['prior']:.0%} of the traffic attacked so: the first "
            f"choice was the best remedy in {hits} of {len(cells)}, and gave {100 * mean:.1f} points away on average. "
            "Judged on test images. Where nothing looks attacked, nobody asks: the choice is no defence.",
        ],
        heads=["attack", "images", "advised", "right", "best", "points given away"],
        rows=[[cell["kind"], str(cell["images"]), cell["advised"], _counted(cell["right"]),
               "the same" if cell["hit"] else cell["best"], f"{100 * cell['regret']:.1f}"] for cell in cells],
    )  # fmt: skip


def _evidence(told: Told) -> Section:
    evidence = told["evidence"]
    remedies = list(next(iter(evidence.values())))
    return Section(
        title="Evidence",
        words=["What was learned from: share of images answered rightly, by what was done to them. The judging images "
               "of the sections above are others."],
        heads=["done", "images", *remedies],
        rows=[[kind, str(next(iter(row.values()))["total"]), *(f"{row[name]['share']:.0%}" for name in remedies)]
              for kind, row in evidence.items()],
    )  # fmt: skip


def _left_out(left_out: Told) -> Section:
    return Section(title="Left out", words=[], heads=["defence", "why"], rows=[[*item] for item in left_out.items()])


def _counted(share: Told | None) -> str:
    """A share with its count and its 95 % interval."""
    if share is None:
        return "–"
    return (f"{share['share']:.0%} ({share['count']}/{share['total']}, "
            f"{100 * share['low']:.0f} to {100 * share['high']:.0f})")  # fmt: skip
