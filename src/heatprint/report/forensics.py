"""The numbers of a forensic laboratory as Markdown tables, for a terminal and for a document alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Told = Mapping[str, Any]
RATES = ("at 5%", "at 1%", "guarded")
WHOLE = "heat print and squeezing"
SHOWN = ("margin alone", "image alone", "map as a picture", "map as a key", "heat print", "heat print and squeezing")
COMPARED = ("margin alone", "dropout", "signature alone", "map as a picture", "picture and margin", "image alone",
            "map as a key", "heat print", "squeezing", WHOLE, "one class")  # fmt: skip
NAMED = ("margin alone", "image alone", "picture and margin", "map as a key", WHOLE, "and compression",
         "true difference")  # fmt: skip
FEWEST = 20  # images of a kind saved anew, below which it gets no line


def lines(told: Told) -> list[str]:
    """All tables of ``forensics.json``, headings among them."""
    out = [*_detection(told), *_others(told), *_equal_margin(told), *_left_out(told), *_naming(told), *_location(told)]
    if told.get("transferred"):
        out += _transferred(told["transferred"])
    if "published" in told:
        out += _published(told["published"])
    if "resisted" in told:
        out += _resisted(told["resisted"])
    return out


def _sets(told: Told) -> dict[str, Told]:
    return {name: told["ablation"][name] for name in SHOWN if name in told["ablation"]} | {
        "one class": told["one class"]
    }


def _detection(told: Told) -> list[str]:
    """AUROC and shares found of each attack by each set of features."""
    sets = _sets(told)
    attacks = sets[WHOLE]["attacks"]
    plain = [kind for kind in attacks if " @" not in kind]
    anew = [kind for kind in attacks if " @" in kind and attacks[kind]["images"] >= FEWEST]
    out = ["## Detection", "", "AUROC · share found at 5 % · at 1 % of others flagged · guarded."]
    for title, kinds in (("attack", plain), ("saved anew", anew)):
        rows = [
            [f"{kind} ({attacks[kind]['images']})", *(_cell(one["attacks"][kind]) for one in sets.values())]
            for kind in kinds
        ]
        out += ["", *_table([title, *sets], rows)] if rows else []
    return out


def _cell(one: Told) -> str:
    return " · ".join([f"{one['auroc']:.3f}", *(f"{100 * one[name]['share']:.0f}" for name in RATES if name in one)])


def _others(told: Told) -> list[str]:
    """What was flagged though nobody attacked it, and what a flag is worth."""
    whole = told["ablation"][WHOLE]
    known = [name for name in RATES if name in whole["realised"]]
    if not known:
        return ["", "Too few images were left alone to take a threshold from."]
    rows = [
        [f"{kind} ({next(iter(rates.values()))['total']})", *(f"{rates[name]['share']:.1%}" for name in known)]
        for kind, rates in {**whole["others"], "all": whole["realised"]}.items()
    ]
    out = ["", "## Flagged though left alone", "", *_table(["left alone (images)", *known], rows), ""]
    trusted = [
        [prior, *("–" if shares[name] is None else f"{shares[name]:.1%}" for name in known)]
        for prior, shares in whole["precision"].items()
    ]
    return [*out, *_table(["share of flagged images that were attacked", *known], trusted)]


def _equal_margin(told: Told) -> list[str]:
    known = {**told["ablation"], "one class": told["one class"]}
    sets = {name: known[name] for name in COMPARED if name in known}
    rows = []
    for kind, one in told["ablation"][WHOLE]["attacks"].items():
        if " @" not in kind:
            values = [tested["attacks"][kind]["equal_margin"]["auroc"] for tested in sets.values()]
            rows.append([f"{kind} ({one['equal_margin']['images']})",
                         *("–" if value is None else f"{value:.3f}" for value in values)])  # fmt: skip
    return ["", "## At equal margin", "", *_table(["attack (images)", *sets], rows)]


def _left_out(told: Told) -> list[str]:
    rows = [
        [f"{name} ({what})", f"{one['pooled']:.3f}"]
        for what, part in (("algorithm", told["left out"]["algorithms"]), ("family", told["left out"]["families"]))
        for name, one in part.items()
    ]
    return ["", "## Left out of learning", "", *_table(["left out", "AUROC"], rows)]


def _naming(told: Told) -> list[str]:
    found = told["identification"]
    sets = {name: found["sets"][name] for name in NAMED if name in found["sets"]}
    rows = [[name, f"{one['names']:.3f}", f"{one['families']:.3f}"] for name, one in sets.items()]
    heads = next(iter(sets.values()))
    out = ["", "## Naming", "", *_table(["balanced accuracy, named from", f"names ({len(heads['confusion'])})",
                                         f"families ({len(heads['family_confusion'])})"], rows)]  # fmt: skip
    unknown = found["unknown"]
    if unknown["auroc"] is not None:
        each = ", ".join(f"{name} {value:.3f}" for name, value in unknown["algorithms"].items())
        out += ["", f"Attacks never learned from are told from known ones with AUROC {unknown['auroc']:.3f} ({each})."]
    return out


def _location(told: Told) -> list[str]:
    names = ("exactly", "within one pixel", "label restored")
    rows = [[f"{kind} ({one['exactly']['total']})", *(_share(one[name]) for name in names)]
            for kind, one in told["location"].items() if one["exactly"]]  # fmt: skip
    return ["", "## The pixel", "", *_table(["attack (images)", *names], rows)] if rows else []


def _transferred(one: Told) -> list[str]:
    rows = [[f"{kind} ({found['images']})", _cell(found)] for kind, found in one["attacks"].items()]
    flagged = ", ".join(f"{name} {one['realised'][name]['share']:.1%}" for name in RATES if name in one["realised"])
    return ["", "## With another network's detector", "", f"Of others flagged: {flagged}.", "",
            *_table(["attack (images)", "AUROC · found"], rows)]  # fmt: skip


def _published(told: Told) -> list[str]:
    rows = []
    for name, one in told["detectors"].items():
        if "unsupported" in one:
            rows.append([name, one["unsupported"], *[""] * 5])
            continue
        known, held_out = ("–" if one[sort] is None else _pooled(one[sort]) for sort in ("known", "held out"))
        generalises = {True: "yes", False: "**no**", None: "–"}[one["generalises"]]
        flagged = one["realised"].get("at 5%")
        rows.append([name, known, held_out, generalises, "–" if flagged is None else f"{flagged['share']:.1%}",
                     f"{one['seconds_to_fit']:.0f}", f"{one['ms_per_image']:.1f}"])  # fmt: skip
    heads = ["detector", "attacks learned from", "never learned from", "generalises", "flagged at 5 %", "s to fit",
             "ms per image"]  # fmt: skip
    out = ["", "## Published detectors", "", "AUROC with its interval · found at 5 %.", "", *_table(heads, rows)]
    if "steps" not in told["leak"]:
        return out
    steps = ", ".join(f"{name} {value:.3f}" for name, value in told["leak"]["steps"].items())
    return [*out, "", f"Bayesian uncertainty by its published leaks, mean AUROC: {steps}."]


def _pooled(one: Told) -> str:
    low, high = one["interval"]
    found = f" · {100 * one['at 5%']['share']:.0f}" if "at 5%" in one else ""
    return f"{one['auroc']:.3f} ({low:.3f} to {high:.3f}){found}"


def _resisted(told: Told) -> list[str]:
    rows = [
        [name, str(one["eps"]), _beaten(one["before"]), _beaten(one["after"])] for name, one in told["attacks"].items()
    ]
    heads = ["attack that knows the detector", "levels", "plain PGD", "this attack"]
    how = "AUROC · fooled the network · fooled it and passed the detector, guarded at 5 %."
    return ["", "## Attacked with knowledge of the detector", "",
            f"{told['images']} images. {how}", "",
            *_table(heads, rows)]  # fmt: skip


def _beaten(one: Told) -> str:
    area = "–" if one["auroc"] is None else f"{one['auroc']:.3f}"
    passed = one.get("passed at 5%")
    return " · ".join([area, _share(one["fooled"]), "–" if passed is None else _share(passed)])


def _share(one: Told) -> str:
    return f"{one['share']:.1%} ({one['low']:.1%} to {one['high']:.1%})"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(r) + " |" for r in rows)]
