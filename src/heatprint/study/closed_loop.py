"""From identified attack to proven defence: what came in, what is advised, what it bought, and what is left of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, StoreError
from heatprint.core.store import Part, Store, write_json
from heatprint.core.values import Batch
from heatprint.data.sources import Dataset
from heatprint.defences.advice import Evidence, ranked, shares_of
from heatprint.defences.route import REJECTED, RESTORED, Remedy, Router, answered, restored
from heatprint.defences.worth import Worth
from heatprint.detectors import load as load_detector
from heatprint.detectors.door import Detector
from heatprint.detectors.examples import KNOWN_MISTAKEN, Examples
from heatprint.detectors.families import BENIGN, FAMILIES
from heatprint.detectors.features.table import measure
from heatprint.detectors.heat_print import HeatPrint
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.evaluation.detection import Rows
from heatprint.evaluation.forensics import Measured
from heatprint.evaluation.routing import NATURAL, Answers, adviser_cells, evidence_of, routed_table
from heatprint.study.candidates import CLEAR, Candidate, made
from heatprint.study.corpus import Trial, read_trials
from heatprint.study.counterattack import attacked_anew, evaded
from heatprint.study.forensics import FITTED
from heatprint.study.kinds import gathered, measured
from heatprint.study.progress import SILENT, Watch

RESULTS, WORTH = "defence.json", "defence/fitted"
VERSION = 1
EACH = 200  # images of one kind, and in one part, that every remedy answers
TIMED = 64  # images, of which the time of an answer is taken
AT_HAND, MOST = 0.1, 2  # share of what came in from which an attack is made anew, and how many of them


@dataclass(frozen=True, kw_only=True, eq=False)
class Laboratory:
    """A classifier with its detector and identifier, and images of known history with their features.

    Attributes:
        classifier: The undefended one.
        detector: Its guard.
        identifier: Says what was done.
        known: All images of the laboratory.
        rows: Those that remedies answer: all clean ones, so many of each other kind and part, none saved anew.
    """

    classifier: Classifier
    detector: Detector
    identifier: FittedIdentifier
    known: Measured
    rows: np.ndarray

    @property
    def test(self) -> np.ndarray:
        """Places in `rows` that judge."""
        return np.flatnonzero(self.known.part[self.rows] == "test")

    @property
    def learned_from(self) -> np.ndarray:
        """Places in `rows` of other sources, without attacks that are never learned from."""
        return np.flatnonzero((self.known.part[self.rows] != "test") & ~self.known.unseen[self.rows])

    def table(self, places: np.ndarray) -> np.ndarray:
        """Features that the identifier sees, [N, columns]."""
        return self.known.table(self.identifier.settings.families, self.rows[places])

    def flagged(self, places: np.ndarray, fpr: float) -> np.ndarray:
        """Which of these images the detector flags, bool [N]."""
        method = self.detector.method
        assert isinstance(method, HeatPrint)  # what a laboratory fits
        table = self.known.table(method.families, self.rows[places])
        return self.detector.flags(method.score_of(self.detector.learned, table), fpr=fpr)

    def came_in(self, images: Batch, fpr: float) -> np.ndarray:
        """Features of those images of unknown history that look attacked, [N, columns].

        Raises:
            InvalidInput: None does.
        """
        flagged = self.detector.flags(self.detector.score(self.classifier, images.pixels), fpr=fpr)
        if not flagged.any():
            raise InvalidInput(
                f"defend: none of {len(images)} images looks attacked at a false positive rate of {fpr:g}, so there is "
                "no attack to choose a defence for. Leave --attacked out to choose for all attacks of the laboratory."
            )
        settings, pixels = self.identifier.settings, images.pixels[torch.from_numpy(flagged)]
        return measure(self.classifier, pixels, settings.families, rivals=settings.rivals)

    def worth(self, answers: Answers, seed: int) -> Worth:
        """What remedies are worth, from their answers to `rows`."""
        settings, seen = self.identifier.settings, answers.take(self.learned_from)
        return Worth.fit(
            self.table(self.learned_from), seen.right, seen.kinds.tolist(), seen.attacked, seed=seed,
            classifier=self.classifier.digest, families=settings.families, rivals=settings.rivals,
        )  # fmt: skip


def close_loop(
    classifier: Classifier,
    data: Dataset,
    out: str | Path,
    *,
    candidates: Sequence[Candidate],
    attacked: Batch | None = None,
    trials: Sequence[Trial] | None = None,
    prior: float = 0.5,
    reject: float = 0.0,
    fpr: float = 0.05,
    images: int = 100,
    full: bool = False,
    seed: int = 0,
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Identify, choose, apply, evaluate again; what is in the folder already is read.

    Args:
        classifier: The run's own, undefended.
        data: Images it learned from, for defences to learn from, and others, those of the run's laboratory.
        out: The run folder, with a detector and an identifier. Defended models are saved in it, numbers in
            ``defence.json``.
        candidates: Defences to make; models that are in the folder already are compared, too.
        attacked: Images that came in, of which nothing is known; without any, the laboratory's own attacks on the
            test part, all alike.
        trials: Those the laboratory was built with.
        prior: Share of the images that are attacked, which defences are chosen for.
        reject: Share of right answers below which routing turns an image away, see `defences.route.Router`.
        fpr: False positive rate of the detector's threshold.
        images: Test images that are attacked anew.
        full: Also attack the identifier, so as to pass the routing.
        seed: Of everything random.
        watch: Shows progress.

    Returns:
        ``"found"`` (what came in), ``"advice"`` (ranked), ``"chosen"``, ``"evidence"``, ``"adviser"`` (its record on
        every attack of the laboratory), ``"routing"``, ``"anew"`` (every defended model attacked anew) and
        ``"left out"``; with `full` ``"evaded"``.

    Raises:
        StoreError: The folder has no detector yet.
        InvalidInput: The detector finds nothing in `attacked`, or belongs to another classifier.
    """
    store, tried = Store(Path(out)), tuple(trials or read_trials())
    fitted = _fitted(store, classifier)
    with store.writing():
        models, left_out = made(classifier, data.train, candidates, store, seed=seed, watch=watch)
        kinds = gathered(classifier, data.test, data.train, store, tried, seed=seed, watch=watch)
        known = measured(classifier, kinds, store, watch)
        lab = Laboratory(classifier=classifier, detector=fitted[0], identifier=fitted[1], known=known,
                         rows=_thinned(known))  # fmt: skip
        remedies = {CLEAR: answered(classifier), **{name: answered(model) for name, model in models.items()},
                    RESTORED: restored(classifier)}  # fmt: skip
        identities = [classifier.digest, *(model.digest for model in models.values()), classifier.digest]
        answers = _answers(remedies, identities, known.examples.take(lab.rows), known.rows.take(lab.rows), store, watch)
        with watch.step("what remedies are worth"):
            worth = lab.worth(answers, seed)
            worth.save(store.root / WORTH)
            seconds = _seconds(remedies, data.test.pixels[:TIMED])
        router = Router(classifier=classifier, remedies=remedies, worth=worth, reject=reject)
        told = _loop(lab, router, answers, seconds, attacked, prior=prior, fpr=fpr, seed=seed)
        told["left out"] = left_out
        write_json(store.root / RESULTS, told)  # what follows is long
        at_hand = _at_hand(told["found"]["shares"], tried)
        told["anew"] = attacked_anew({CLEAR: classifier, **models}, data.test, at_hand, store, images=images, seed=seed,
                                     watch=watch)  # fmt: skip
        if full:
            told["evaded"] = evaded(router, *fitted, known, store, seed=seed, watch=watch)
        write_json(store.root / RESULTS, told)
    return told


def _loop(
    lab: Laboratory,
    router: Router,
    answers: Answers,
    seconds: Mapping[str, float],
    attacked: Batch | None,
    *,
    prior: float,
    fpr: float,
    seed: int,
) -> dict[str, Any]:
    """What came in, what is advised, and the records of adviser and routing on the test part."""
    evidence = evidence_of(answers.take(lab.learned_from), seconds, plain=CLEAR)
    judged, table, flagged = answers.take(lab.test), lab.table(lab.test), lab.flagged(lab.test, fpr)
    came = table[flagged & judged.attacked] if attacked is None else lab.came_in(attacked, fpr)
    found = lab.identifier.identify_from(came)
    advice = ranked(evidence, router.worth.of(came).mean(0), prior=prior)
    advised = _advised(evidence, judged, flagged, router.worth.of(table), prior)
    return {
        "found": {"images": None if attacked is None else len(attacked), "flagged": len(came),
                  "shares": shares_of(found.names, found.probabilities), "unknown": int(found.unknown().sum())},
        "prior": prior,
        "advice": [asdict(one) for one in advice],
        "chosen": next(one.remedy for one in advice if one.remedy != RESTORED),
        "evidence": _told(evidence),
        "adviser": adviser_cells(judged, advised, prior=prior),
        "routing": routed_table(judged, *_routed(router, judged, table), seed=seed),
    }  # fmt: skip


def _fitted(store: Store, classifier: Classifier) -> tuple[Detector, FittedIdentifier]:
    folder = store.root / FITTED
    if not folder.is_dir():
        raise StoreError(
            f"defend: {store.root} has no detector yet. Build it: heatprint detect --benchmark --run {store.root} "
            "--data ..."
        )
    detector, identifier = load_detector(folder), FittedIdentifier.load(folder)
    if not detector.classifier == identifier.classifier == classifier.digest:
        raise InvalidInput("defend: the detector was fitted for another classifier; run `heatprint detect` again.")
    return detector, identifier


def _thinned(known: Measured) -> np.ndarray:
    """All clean images, so many of each other kind and part, none that was saved anew."""
    chosen: list[np.ndarray] = []
    for kind in np.unique(known.rows.kinds):
        if "@" in kind or kind == KNOWN_MISTAKEN:
            continue
        for test in (True, False):
            inside = np.flatnonzero((known.rows.kinds == kind) & ((known.part == "test") == test))
            few = np.unique(np.linspace(0, len(inside) - 1, EACH).astype(int)) if len(inside) else inside
            chosen.append(inside if kind in NATURAL else inside[few])  # from all over, since classes come in turn
    return np.sort(np.concatenate(chosen))


def _answers(
    remedies: Mapping[str, Remedy],
    identities: Sequence[str],
    examples: Examples,
    rows: Rows,
    store: Store,
    watch: Watch,
) -> Answers:
    """What each remedy says of these images."""
    right = {}
    for (name, remedy), identity in zip(remedies.items(), identities, strict=True):

        def said(remedy: Remedy = remedy) -> Part:
            return Part(arrays={"labels": remedy(examples.pixels).numpy()})

        with watch.step(f"answers of {name}"):
            part = store.memo(
                f"defence/answers/{name.replace(' ', '-')}", 0, (VERSION, identity, examples.pixels), said
            )
        right[name] = part.arrays["labels"] == examples.labels.numpy()
    return Answers(kinds=rows.kinds, names=np.asarray(examples.names), sources=rows.sources, attacked=rows.attacked,
                   right=right)  # fmt: skip


def _seconds(remedies: Mapping[str, Remedy], pixels: Tensor) -> dict[str, float]:
    """Time of an answer of each, in a batch, after one for warmth."""
    taken = {}
    for name, remedy in remedies.items():
        remedy(pixels[:4])
        begin = time.perf_counter()
        remedy(pixels)
        taken[name] = (time.perf_counter() - begin) / len(pixels)
    return taken


def _advised(
    evidence: Evidence, judged: Answers, flagged: np.ndarray, expected: np.ndarray, prior: float
) -> dict[str, str]:
    """Kind of attack to the remedy advised for a folder of it; nobody asks where nothing was flagged."""
    folders = {str(kind): flagged & (judged.kinds == kind) for kind in np.unique(judged.kinds[judged.attacked])}
    return {kind: ranked(evidence, expected[rows].mean(0), prior=prior)[0].remedy
            for kind, rows in folders.items() if rows.any()}  # fmt: skip


def _routed(router: Router, judged: Answers, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where routing is right, and where it turns the image away, bool [N], from answers that are there already."""
    chosen, _ = router.choose(table)
    right = np.zeros(len(chosen), dtype=bool)
    for name, own in judged.right.items():
        right |= (chosen == name) & own
    return right, chosen == REJECTED


def _at_hand(shares: Mapping[str, float], trials: Sequence[Trial]) -> list[Trial]:
    """The first trial of the likeliest attacks that came in, each a tenth or more of all, or of the likeliest alone."""
    attacks = sorted((name for name in shares if FAMILIES[name] not in BENIGN), key=lambda name: -shares[name])
    first = {trial.algorithm: trial for trial in reversed(trials)}
    wanted = [name for name in attacks[:MOST] if shares[name] >= AT_HAND] or attacks[:1]
    return [first[name] for name in wanted if name in first]


def _told(evidence: Evidence) -> dict[str, Any]:
    """The table of evidence, for ``defence.json``."""
    return {
        "kinds": {kind: int(count) for kind, count in zip(evidence.kinds, evidence.images, strict=True)},
        "right": {name: {kind: round(float(value), 6) for kind, value in zip(evidence.kinds, row, strict=True)}
                  for name, row in zip(evidence.remedies, evidence.right, strict=True)},
        "seconds": {name: float(value) for name, value in zip(evidence.remedies, evidence.seconds, strict=True)},
    }  # fmt: skip
