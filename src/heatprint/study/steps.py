"""The steps of a study, each memoised under everything its result depends on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from heatprint.core.classifier import Classifier
from heatprint.core.digest import digest, file_digest
from heatprint.core.errors import StoreError
from heatprint.core.protocols import Defence, Progress
from heatprint.core.reading import read_json
from heatprint.core.store import Part, Store, read_mark, remove, write_json
from heatprint.core.values import Attacked, Batch, PlanLine
from heatprint.data.planted import Carriers, Planted, draw_planted
from heatprint.data.sources import Dataset
from heatprint.data.splits import sample
from heatprint.defences import defend
from heatprint.defences.retrain import Retrain
from heatprint.evaluation import Arm, evaluate
from heatprint.evaluation.straight import stand_in
from heatprint.models import load, save, train
from heatprint.models.checkpoint import CARD, WEIGHTS
from heatprint.models.distributed import ALONE, World
from heatprint.models.resume import UNFINISHED, Epoch, discard
from heatprint.report import report
from heatprint.study import artefact
from heatprint.study.atlas import UNITS, measure_border, measure_cards, measure_flows, measure_images
from heatprint.study.atlas import summarised as summarised_atlas
from heatprint.study.attacking import Assault, attacked
from heatprint.study.before_after import chosen_pairs, summarised
from heatprint.study.checks import rehearse
from heatprint.study.disk import check_disk, disk_need
from heatprint.study.engines import Engine, Local
from heatprint.study.examples import draw_tiles
from heatprint.study.explaining import compared, mapped, signed
from heatprint.study.images import kept_images, read_images
from heatprint.study.parts import Workshop
from heatprint.study.places import measure_places
from heatprint.study.progress import Watch
from heatprint.study.recipe import AttackTable, Recipe

VERSION = 3  # raise it when a step's result changes for equal settings
IMAGES = {"adaptive": "test"}

log = logging.getLogger("heatprint")
Trained = tuple[Classifier, Sequence[Epoch]]


class Lab:
    """The steps, bound to one recipe and one run folder."""

    def __init__(
        self, recipe: Recipe, store: Store, watch: Watch, engine: Engine | None = None, *, world: World = ALONE
    ) -> None:
        self.recipe, self._store, self._watch, self._world = recipe, store, watch, world
        limits = recipe.resources
        self._workshop = Workshop(
            store=store,
            engine=engine or Local(),
            threads=limits.threads,
            memory=limits.memory,
            gpus=limits.gpus,
        )
        self.device = device(recipe.device)
        torch.backends.cudnn.deterministic = True  # equal seeds must give equal numbers

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file into the run folder."""
        write_json(self._store.root / name, value)

    def load(self) -> Dataset:
        """The images."""
        table, asked = self.recipe.data, self.recipe.data.model_dump() | {"seed": self.recipe.seed}
        with self._watch.step(f"images from {table.source}") as progress:
            if self._world and not self._world.leads:
                return kept_images(self._store, **asked)
            return read_images(self._store, **asked, progress=progress)

    def begin(self, data: Dataset) -> Classifier:
        """The untrained classifier, once it is clear that the study can end; the folder is not a finished one any more.

        Raises:
            InvalidInput: Sizes, layers or rules do not fit the network.
            StoreError: The disk is too full.
        """
        recipe, root = self.recipe, self._store.root
        if not self._world or self._world.leads:
            remove(root / "metrics.json")  # of an earlier finish, perhaps on other images
        fresh = load(recipe.architecture, classes=data.classes, size=recipe.data.size, seed=recipe.seed)
        check_disk(root, disk_need(recipe, data, fresh, rehearse(fresh, recipe)))
        return fresh.named("clear").to(self.device)

    def report(self) -> Path:
        """The page."""
        with self._watch.step("report"):
            return report(self._store.root)

    def train(self, fresh: Classifier, data: Dataset) -> Classifier:
        """The classifier everything is about."""
        return self._taught(fresh, data.train)

    def _taught(self, fresh: Classifier, images: Batch) -> Classifier:
        """A classifier trained by the recipe, under its own name."""
        recipe = self.recipe
        key = digest(VERSION, fresh.digest, recipe.training, recipe.seed, *images.identity)

        def make(progress: Progress) -> Trained:
            return train(
                fresh,
                images,
                recipe.training,
                seed=recipe.seed,
                checkpoint=self._checkpoint(fresh.name),
                progress=progress,
                world=self._world,
            )

        return self._model(fresh.name, key, make)

    def attack(
        self, classifier: Classifier, batch: Batch, table: AttackTable, split: str, *, of: str = "clear"
    ) -> Attacked:
        """An attack on the training or test images, in parts; ``"adaptive"`` is on test images, against a stand-in."""
        criterion, budget = table.rules
        how = Assault(
            method=table.make(),
            every_target=table.every_target,
            criterion=criterion,
            budget=budget,
            seed=self.recipe.seed,
        )
        chosen = batch.take(sample(batch, table.train if split == "train" else table.test))
        with self._watch.step(f"{table.title or table.name} on {of}, {IMAGES.get(split, split)} images") as progress:
            step = f"attacks/{of}/{table.name}/{split}"
            return attacked(self._workshop, step, classifier, chosen, how, progress)

    def defend(self, clear: Classifier, batch: Batch, hits: Mapping[str, Attacked]) -> list[Classifier]:
        """The clean-only control, the immune models, one per attack that asks for it, and the recipe's defences."""
        recipe, table = self.recipe, self.recipe.retraining
        methods: dict[str, Defence] = {"clean_control": Retrain(training=table.training)} if table.control else {}
        methods |= {
            f"{a.name}_immune": Retrain(attacks=(a.name,), training=table.training) for a in recipe.attacks if a.retrain
        }
        methods |= {d.name: d.make() for d in recipe.defences}
        made = []
        for name, method in methods.items():
            known = {a: hits[a] for a in getattr(method, "attacks", ())}
            seen = [hit.adversarial.prints for hit in known.values()], [hit.success for hit in known.values()]
            key = digest(VERSION, clear.digest, method, recipe.seed, *batch.identity, *seen)

            def make(progress: Progress, name: str = name, method: Defence = method) -> Trained:
                safe = defend(
                    clear,
                    batch,
                    method,
                    attacked=hits,
                    name=name,
                    seed=recipe.seed,
                    checkpoint=self._checkpoint(name),
                    keep_checkpoint=True,
                    progress=progress,
                )
                return safe, ()

            made.append(self._model(name, key, make))
        return made

    def evaluate(
        self, classifier: Classifier, test: Batch, old: Mapping[str, Attacked], *, is_first: bool
    ) -> dict[str, Any]:
        """An arm's columns: old adversarials, attacks made anew, the strong one, that one past blocked gradients."""
        arm, recipe = classifier.name, self.recipe
        new = (
            dict(old)
            if is_first
            else {a.name: self.attack(classifier, test, a, "test", of=arm) for a in recipe.attacks}
        )
        strong = self.attack(classifier, test, recipe.strong, "test", of=arm)
        passable = stand_in(classifier, test)
        adaptive = self.attack(passable, test, recipe.strong, "adaptive", of=arm) if passable else None
        controls = {a.name for a in recipe.attacks if a.make().taxonomy.knowledge == "none"}
        with self._watch.step(f"evaluation of {arm}"):
            card = evaluate(
                Arm(
                    classifier=classifier,
                    test=test,
                    old=old,
                    new=new,
                    strong=(recipe.strong.name, strong),
                    adaptive=adaptive,
                    controls=controls,
                )
            )
        notes = read_json(self._store.root / "models" / arm / CARD)["notes"]
        return card | {"title": arm.replace("_", " "), "training": notes["history"]}

    def figures(self, arms: Sequence[Classifier], test: Batch, old: Mapping[str, Attacked]) -> tuple[PlanLine, ...]:
        """The examples of the paper's figures 1 to 3; returns the rule plan of the heat maps."""
        explainer = self.recipe.explainer.make()
        key = (VERSION, [a.digest for a in arms], explainer, self.recipe.examples, *test.identity,
               [o.adversarial.prints for o in old.values()])  # fmt: skip
        with self._watch.step("heat maps") as progress:
            part = self._store.memo(
                "figures", 0, key, lambda: draw_tiles(arms, test, old, explainer, self.recipe.examples, progress)
            )
        return tuple(PlanLine(**line) for line in json.loads(bytes(part.arrays["plan"])))

    def pairs(self, classifier: Classifier, old: Mapping[str, Attacked]) -> dict[str, Any]:
        """How far each attack moves the explanations, over up to so many images as the recipe says; {} for none."""
        explainer, count = self.recipe.explainer.make(), self.recipe.pairs
        told = {}
        for table in self.recipe.attacks if count else ():
            control = table.make().taxonomy.knowledge == "none"
            clean, changed, available = chosen_pairs(old[table.name], count, control=control)
            with self._watch.step(f"before and after {table.title or table.name}") as progress:
                step = f"pairs/{table.name}"
                parts = compared(self._workshop, step, classifier, clean, changed, explainer, progress)
            told[table.name] = summarised(parts, available=available, control=control)
        return told

    def places(self, classifier: Classifier, test: Batch, old: Mapping[str, Attacked]) -> Part:
        """Signatures of clean and successfully attacked test images, on one common map."""
        table, seed = self.recipe.map, self.recipe.seed
        sets = {"clean": test.take(sample(test, table.images))}
        shown = set(sets["clean"].ids)
        for name, hit in old.items():
            rows = hit.success.nonzero().squeeze(1).tolist()
            fell = hit.adversarial.take([row for row in rows if hit.adversarial.ids[row] in shown])
            sets |= {name: fell} if len(fell) else {}
        known = {}
        for name, batch in sets.items():
            with self._watch.step(f"signatures of {name} images") as progress:
                step = f"signatures/{name}"
                known[name] = signed(self._workshop, step, classifier, batch, table.signer(), progress)
        key = (VERSION, classifier.digest, table.umap, seed,
               {name: (batch.identity, known[name].vectors) for name, batch in sets.items()})  # fmt: skip
        with self._watch.step("map of signatures"):
            return self._store.memo(
                "global", 0, key,
                lambda: measure_places(classifier.classes, sets, known, table.embedders(seed), seed=seed),
            )  # fmt: skip

    def atlas(self, classifier: Classifier, test: Batch, old: Mapping[str, Attacked], places: Part) -> dict[str, Any]:
        """The strategies of the test images, their cards, where attacks move them, and the border."""
        recipe, table = self.recipe, self.recipe.atlas
        explainer, method, seed = recipe.explainer.make(), table.clusterer(recipe.seed), recipe.seed
        chosen = test.take(sample(test, table.images))
        units = {a.name: UNITS.get(a.method, "steps") for a in recipe.attacks}
        key = (VERSION, "by id", classifier.digest, explainer, method, table.side, *chosen.identity)
        outcomes = {name: (one.adversarial.prints, one.success) for name, one in old.items()}
        with self._watch.step("heat maps of the test images") as progress:
            step, side = "atlas/maps", table.side
            maps = mapped(self._workshop, step, classifier, chosen, explainer, side=side, progress=progress)
        with self._watch.step("strategies"):
            images = self._store.memo(
                "atlas/images", 0, key,
                lambda: measure_images(classifier, chosen, explainer, method, side=table.side, maps=maps),
            )  # fmt: skip
        with self._watch.step("cards of the strategies") as progress:
            found = self._store.memo(
                "atlas/cards", 0, (key, outcomes, units, seed),
                lambda: measure_cards(classifier, chosen, images, explainer, old, units=units, seed=seed,
                                      progress=progress),
            )  # fmt: skip
        moved = {}
        for name, one in old.items():
            with self._watch.step(f"where {name} moves them") as progress:
                moved[name] = self._store.memo(
                    f"atlas/flows/{name}", 0, (key, outcomes[name], "moved"),
                    lambda one=one, progress=progress: measure_flows(classifier, images, one, explainer, method,  # type: ignore[misc]
                                                                     progress=progress),
                )  # fmt: skip
        with self._watch.step("distance to the border") as progress:
            border = self._store.memo(
                "atlas/border", 0, (key, outcomes, seed, places.arrays["clean_plane"], places.arrays["signatures"]),
                lambda: measure_border(places, old, seed=seed, progress=progress),
            )  # fmt: skip
        return {"atlas": summarised_atlas(images, found, moved, border, method=table.method,
                                          explainer=recipe.explainer.method)}  # fmt: skip

    def artefact(self) -> dict[str, Any]:
        """Where the maps of a biased and an unbiased model lie on images with a planted artefact; {} if not asked."""
        recipe, table = self.recipe, self.recipe.artefact
        if table is None:
            return {}

        def drawn(count: int, part: str, carriers: Carriers, told: str) -> Planted:
            with self._watch.step(f"images {told}") as progress:
                return draw_planted(
                    count, part, kind=table.kind, carriers=carriers, size=recipe.data.size, seed=recipe.seed,
                    progress=progress,
                )  # fmt: skip

        models = []
        for name, carriers in artefact.CARRIERS.items():
            seen = drawn(table.train, "artefact_training", carriers, f"for the {name} model").batch
            fresh = load(recipe.architecture, classes=("cats", "dogs"), size=recipe.data.size, seed=recipe.seed)
            models.append(self._taught(fresh.named(name).to(self.device), seen))
        held_out = drawn(table.test, "artefact_test", "all", f"with the {table.kind}")
        plain = drawn(table.test, "artefact_test", "none", f"without the {table.kind}").batch.pixels
        explainer = recipe.explainer.make()
        key = (VERSION, [m.digest for m in models], explainer, table.margin, recipe.examples,
               *held_out.batch.identity, plain)  # fmt: skip
        with self._watch.step("where the maps look") as progress:
            part = self._store.memo(
                "artefact", 0, key,
                lambda: artefact.measured(models, held_out, plain, explainer, margin=table.margin,
                                          pictures=2 * recipe.examples, progress=progress),
            )  # fmt: skip
        return {"artefact": artefact.summarised(part, kind=table.kind, margin=table.margin, seed=recipe.seed)}

    def _checkpoint(self, name: str) -> Path:
        return self._store.root / "models" / name / UNFINISHED

    def _model(self, name: str, key: str, make: Callable[[Progress], Trained]) -> Classifier:
        """A trained model from the run folder, or trained now; it counts when its mark carries the key."""
        folder = self._store.root / "models" / name
        with self._watch.step(f"training {name}") as progress:
            if not _holds(folder, key):
                trained, history = make(progress)
                if self._world.leads:
                    save(trained, folder, notes={"key": key, "history": [e.told() for e in history]})
            if self._world.leads:
                discard(self._checkpoint(name))
            self._world.wait()
            return load(folder, name=name).to(self.device)


def device(wanted: str) -> torch.device:
    """Where to compute: on a GPU where one is wanted or, for ``"auto"``, seen; else on the CPU."""
    if wanted == "cuda" and not torch.cuda.is_available():
        log.warning("torch sees no GPU here: computing on the CPU")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _holds(folder: Path, key: str) -> bool:
    try:
        card = read_mark(folder / CARD)
        return bool(card["notes"]["key"] == key and card["weights"] == file_digest(folder / WEIGHTS))
    except (OSError, StoreError, KeyError, TypeError):
        return False  # missing, torn or altered: train again
