"""From identified attack to proven defence: what came in, what is advised, what it bought, and what is left of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heatprint.core.classifier import Classifier
from heatprint.core.errors import InvalidInput, StoreError
from heatprint.core.inventory import LOOP, inventoried
from heatprint.core.limits import share_threads
from heatprint.core.protocols import Progress
from heatprint.core.reading import read_json
from heatprint.core.scratch import scratch_in
from heatprint.core.store import Part, Store, remove, write_json
from heatprint.core.values import Batch
from heatprint.data.sources import Dataset
from heatprint.defences.advice import Cost, advise, shares_of
from heatprint.defences.route import RESTORED, Remedy, Router, answered, restored
from heatprint.defences.worth import Worth
from heatprint.detectors import load as load_detector
from heatprint.detectors.door import Detector
from heatprint.detectors.examples import KNOWN_MISTAKEN
from heatprint.detectors.families import BENIGN, FAMILIES
from heatprint.detectors.features.table import measure
from heatprint.detectors.identifier import FittedIdentifier
from heatprint.evaluation.forensics import Measured, check_transfer
from heatprint.evaluation.routing import NATURAL, Answers, adviser_cells, evidence, routed_table
from heatprint.study.candidates import CLEAR, CONTROL, Candidate, made
from heatprint.study.corpus import Trial, read_trials
from heatprint.study.counterattack import attacked_anew, evaded
from heatprint.study.engines import Local
from heatprint.study.forensics import FITTED, made_from
from heatprint.study.forensics import RESULTS as LABORATORY
from heatprint.study.kinds import gathered, measured
from heatprint.study.parts import Workshop
from heatprint.study.progress import SILENT, Watch

RESULTS, PAGE, WORTH = "defence.json", "defence.html", "defence/fitted"
VERSION = 2
EACH = {"learn": 200, "judge": 400}  # images of one kind that every remedy answers
TIMED = 64  # images, of which the time of an answer is taken
STEP = 512  # images between two signs of progress
AT_HAND, MOST = 0.1, 2  # share of what came in from which an attack is made anew, and how many of them


@dataclass(frozen=True, kw_only=True, eq=False)
class Laboratory:
    """A classifier with its detector and identifier, and images of known history with their features.

    Attributes:
        classifier: The undefended one.
        detector: Its guard.
        identifier: Says what was done.
        known: All images of the laboratory.
        learn: Rows that are learned from: all clean images, so many of each other kind, none saved anew.
        judge: The same of the test part, with attacks that are never learned from.
    """

    classifier: Classifier
    detector: Detector
    identifier: FittedIdentifier
    known: Measured
    learn: np.ndarray
    judge: np.ndarray

    def table(self, rows: np.ndarray) -> np.ndarray:
        """Features that the identifier sees, [N, columns]."""
        return self.known.table(self.identifier.settings.families, rows)

    def flagged(self, rows: np.ndarray, fpr: float) -> np.ndarray:
        """Which of these images the detector flags, bool [N]."""
        method = check_transfer(self.detector)
        return self.detector.flags(
            method.score_of(self.detector.learned, self.known.table(method.families, rows)), fpr=fpr
        )

    def worth(self, answers: Answers, seed: int) -> Worth:
        """What remedies are worth, from their answers to the rows that are learned from."""
        settings = self.identifier.settings
        return Worth.fit(
            self.table(self.learn), answers.right, answers.kinds.tolist(), answers.attacked, seed=seed,
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
            test part.
        trials: Those the laboratory was built with.
        prior: Share of the images that are attacked, which defences are chosen for.
        reject: How sure routing must be not to turn an image away, see `defences.route.Router`.
        fpr: False positive rate of the detector's threshold.
        images: Images of the test part that are attacked anew.
        full: Also attack detector and identifier, so as to pass the routing.
        seed: Of everything random.
        watch: Shows progress.

    Returns:
        ``"found"`` (what came in), ``"advice"`` (ranked), ``"chosen"``, ``"evidence"``, ``"adviser"`` (its record on
        every attack of the laboratory), ``"routing"``, ``"anew"`` (every defended model, and routing, attacked anew)
        and ``"left out"``; with `full` ``"evaded"``.

    Raises:
        StoreError: The folder has no detector yet.
        InvalidInput: Nothing looks attacked; the detector belongs to another classifier, or has no such threshold; the
            laboratory was built from other images.
    """
    store, tried = Store(Path(out)), tuple(trials or read_trials())
    detector, identifier = _fitted(store, classifier, fpr)
    _same(store, made_from(data.test, tried, seed))
    came = None if attacked is None else _came_in(classifier, detector, identifier, attacked, fpr)
    engine = Local()
    share_threads()
    with store.writing(), scratch_in(store.root), closing(engine), inventoried(store.root, LOOP):
        for stale in (RESULTS, PAGE):
            remove(store.root / stale)  # of an earlier finish
        models, left_out = made(classifier, data.train, candidates, store, seed=seed, watch=watch)
        workshop = Workshop(store=store, engine=engine)
        kinds = gathered(classifier, data.test, data.train, workshop, tried, seed=seed, watch=watch)
        known = measured(classifier, kinds, workshop, watch)
        lab = Laboratory(classifier=classifier, detector=detector, identifier=identifier, known=known,
                         learn=_thinned(known, "learn"), judge=_thinned(known, "judge"))  # fmt: skip
        remedies = {CLEAR: answered(classifier), **{name: answered(model) for name, model in models.items()},
                    RESTORED: restored(classifier)}  # fmt: skip
        digests = {name: model.digest for name, model in models.items()} | {CLEAR: classifier.digest}
        learned, judged, seconds = _answers(lab, remedies, digests, store, watch)
        with watch.step("what remedies are worth"):
            worth = lab.worth(learned, seed)
            worth.save(store.root / WORTH)
        router = Router(classifier=classifier, remedies=remedies, worth=worth, reject=reject)
        told = _told(lab, router, (learned, judged), seconds, came, prior=prior, fpr=fpr, seed=seed)
        told["found"]["images"] = None if attacked is None else len(attacked)
        at_hand, fresh = _at_hand(told["found"]["shares"], tried), _test_images(known, data.test)
        told["anew"] = attacked_anew({CLEAR: classifier, **models}, router, fresh, at_hand, store, images=images,
                                     seed=seed, watch=watch)  # fmt: skip
        if full:
            told["evaded"] = evaded(router, detector, identifier, fresh, store, seed=seed, watch=watch)
        told["left out"] = left_out
        write_json(store.root / RESULTS, told)
    return told


def _told(
    lab: Laboratory,
    router: Router,
    answers: tuple[Answers, Answers],
    seconds: Mapping[str, float],
    came: np.ndarray | None,
    *,
    prior: float,
    fpr: float,
    seed: int,
) -> dict[str, Any]:
    """What came in, what is advised, and the records of adviser and routing on the test part."""
    learned, judged = answers
    clean = np.isin(learned.kinds, NATURAL)
    costs = {name: Cost(clean=float(right[clean].mean()), seconds=seconds[name])
             for name, right in learned.right.items()}  # fmt: skip
    table, flagged = lab.table(lab.judge), lab.flagged(lab.judge, fpr)
    if came is None:
        came = table[flagged & judged.attacked]
        if not len(came):
            raise InvalidInput("defend: no attack of the laboratory succeeded and was flagged: there is nothing to do.")

    def ranked(features: np.ndarray) -> list[dict[str, Any]]:
        worth = dict(zip(router.worth.remedies, router.worth.of(features).mean(0).tolist(), strict=True))
        return [asdict(one) for one in advise(worth, costs, plain=CLEAR, prior=prior)]

    advised = {}
    for kind in np.unique(judged.kinds[judged.attacked]):
        rows = flagged & (judged.kinds == kind)
        advised[str(kind)] = ranked(table[rows])[0]["remedy"] if rows.any() else CLEAR  # nobody asks the adviser
    found, advice = lab.identifier.identify_from(came), ranked(came)
    return {
        "found": {"flagged": len(came), "shares": shares_of(found.names, found.probabilities),
                  "unknown": int(found.unknown().sum())},
        "prior": prior,
        "advice": advice,
        "chosen": next(one["remedy"] for one in advice if one["remedy"] not in (RESTORED, CONTROL)),
        "evidence": evidence(learned),
        "adviser": adviser_cells(judged, advised, prior=prior),
        "routing": routed_table(judged, *_routed(router, judged, table), seed=seed),
    }  # fmt: skip


def _fitted(store: Store, classifier: Classifier, fpr: float) -> tuple[Detector, FittedIdentifier]:
    folder = store.root / FITTED
    if not folder.is_dir():
        raise StoreError(
            f"defend: {store.root} has no detector yet. Build it: heatprint detect --benchmark --run {store.root} "
            "--data ..."
        )
    detector, identifier = load_detector(folder), FittedIdentifier.load(folder)
    if not detector.classifier == identifier.classifier == classifier.digest:
        raise InvalidInput("defend: the detector was fitted for another classifier; run `heatprint detect` again.")
    if fpr not in detector.thresholds:
        known = ", ".join(f"{rate:g}" for rate in detector.thresholds) or "none, of too few images"
        raise InvalidInput(f"defend: fpr = {fpr:g} is no rate the detector has a threshold for: {known}.")
    check_transfer(detector)
    return detector, identifier


def _same(store: Store, wanted: str) -> None:
    """Refuse other images, trials or seeds than the laboratory was built from: it would be built again, for hours."""
    try:
        found = read_json(store.root / LABORATORY).get("made from")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != wanted:
        raise InvalidInput(
            f"defend: the laboratory of {store.root} was built from other images, with other trials or another seed. "
            "Give the --data, --limit, --trials and --seed that `heatprint detect --benchmark` was given, or run that "
            "again."
        )


def _came_in(
    classifier: Classifier, detector: Detector, identifier: FittedIdentifier, images: Batch, fpr: float
) -> np.ndarray:
    """Features of those images of unknown history that look attacked, [N, columns]."""
    flagged = detector.flags(detector.score(classifier, images.pixels), fpr=fpr)
    if not flagged.any():
        raise InvalidInput(
            f"defend: none of {len(images)} images looks attacked at a false positive rate of {fpr:g}, so there is no "
            "attack to choose a defence for. Leave --attacked out to choose for all attacks of the laboratory."
        )
    pixels, settings = images.pixels[torch.from_numpy(flagged)], identifier.settings
    return measure(classifier, pixels, settings.families, rivals=settings.rivals)


def _thinned(known: Measured, part: str) -> np.ndarray:
    """Rows of a part: all clean images, so many of each other kind, none that was saved anew."""
    inside = known.part == "test" if part == "judge" else (known.part != "test") & ~known.unseen
    chosen = []
    for kind in np.unique(known.rows.kinds):
        if "@" in kind or kind == KNOWN_MISTAKEN:
            continue
        rows = np.flatnonzero(inside & (known.rows.kinds == kind))
        if kind not in NATURAL and len(rows) > EACH[part]:
            rows = rows[np.linspace(0, len(rows) - 1, EACH[part]).astype(int)]  # from all over: classes come in turn
        chosen.append(rows)
    return np.sort(np.concatenate(chosen))


def _test_images(known: Measured, test: Batch) -> Batch:
    """Clean images that neither detector, identifier nor routing learned from, nor took thresholds from."""
    sources = set(known.rows.sources[known.part == "test"].tolist())
    return test.take([row for row, name in enumerate(test.ids) if name in sources])


def _answers(
    lab: Laboratory, remedies: Mapping[str, Remedy], digests: Mapping[str, str], store: Store, watch: Watch
) -> tuple[Answers, Answers, dict[str, float]]:
    """What each remedy says of the images that are learned from, of those that judge, and the time it takes."""
    rows = np.concatenate([lab.learn, lab.judge])
    some, about = lab.known.examples.take(rows), lab.known.rows.take(rows)
    heard, seconds = {}, {}
    for name, remedy in remedies.items():
        with watch.step(f"answers of {name}") as progress:

            def said(remedy: Remedy = remedy, progress: Progress = progress) -> Part:
                return _said(remedy, some.pixels, progress)

            key = (VERSION, name == RESTORED, digests.get(name, digests[CLEAR]), some.pixels)
            part = store.memo(f"defence/answers/{name.replace(' ', '-')}", 0, key, said)
        heard[name] = part.arrays["labels"]
        seconds[name] = part.arrays["seconds"].item()
    both = Answers(kinds=about.kinds, sources=about.sources, attacked=about.attacked, labels=some.labels.numpy(),
                   said=heard)  # fmt: skip
    cut = len(lab.learn)
    return both.take(np.arange(cut)), both.take(np.arange(cut, len(rows))), seconds


def _said(remedy: Remedy, pixels: Tensor, progress: Progress) -> Part:
    """Answers, and the time of one: measured once and kept, since the order of advice depends on it."""
    remedy(pixels[:4])  # for warmth
    begin = time.perf_counter()
    remedy(pixels[:TIMED])
    seconds = (time.perf_counter() - begin) / len(pixels[:TIMED])
    parts = []
    for part in torch.split(pixels, STEP):
        parts.append(remedy(part))
        progress(sum(map(len, parts)), len(pixels))
    return Part(arrays={"labels": torch.cat(parts).numpy(), "seconds": np.array(seconds)})


def _routed(router: Router, judged: Answers, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where routing is right, and where it turns the image away, bool [N], from answers that are there already."""
    said = np.stack([judged.said[name] for name in router.worth.remedies], 1)
    labels = router.decide(router.worth.of(table), said).labels.numpy()
    return labels == judged.labels, labels < 0


def _at_hand(shares: Mapping[str, float], trials: Sequence[Trial]) -> list[Trial]:
    """The first trial of the likeliest attacks that came in, each a tenth or more of all, or of the likeliest alone."""
    attacks = sorted((name for name in shares if FAMILIES[name] not in BENIGN), key=lambda name: -shares[name])
    first = {trial.algorithm: trial for trial in reversed(trials)}
    wanted = [name for name in attacks[:MOST] if shares[name] >= AT_HAND] or attacks[:1]
    return [first[name] for name in wanted if name in first]
