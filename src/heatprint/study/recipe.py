"""Recipes: everything a study is, in one TOML file; a mistake is answered with its line and what is valid."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from heatprint.attacks import ATTACKS
from heatprint.attacks.ledger import Budget
from heatprint.core.errors import HeatprintError, InvalidInput, UnknownName
from heatprint.core.goals import Criterion
from heatprint.core.limits import in_bytes
from heatprint.core.protocols import Attack, Defence, Embedder, Explainer, Signer
from heatprint.core.reading import MOST_RECIPE, parse_toml, read_regular
from heatprint.core.registry import validated
from heatprint.defences import DEFENCES
from heatprint.defences.retrain import FINE_TUNE
from heatprint.explainers import EXPLAINERS
from heatprint.models import zoo
from heatprint.models.train import Training
from heatprint.signatures import CLUSTERERS, EMBEDDERS, SIGNERS, Clusterer
from heatprint.study.atlas import Exploring
from heatprint.study.candidates import CONTROL, RESERVED
from heatprint.study.lines import line_of

RECIPES = "heatprint.study.recipes"
MISTAKES = 20  # that are told of one file
OTHER_MODELS = (*RESERVED, CONTROL)
"""Models of a study that are no defence of the recipe; and there are those called ``ATTACK_immune``."""


class _Table(BaseModel):
    """A table of the recipe; unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _training(value: object) -> object:
    return validated("training", Training, value) if isinstance(value, dict) else value


TrainingTable = Annotated[Training, BeforeValidator(_training)]


class DataTable(_Table):
    """Which images."""

    source: str = "menagerie"
    size: int = Field(112, ge=32, le=512)
    train: int | None = Field(None, ge=8, le=10**9)
    test: int | None = Field(None, ge=8, le=10**9)


class MethodTable(_Table):
    """A method by name with its settings."""

    method: str
    settings: dict[str, Any] = {}


class AttackTable(MethodTable):
    """An attack, the images it is run on, what counts as a success, and whether a defence is trained from it."""

    name: str
    title: str = ""
    test: int | None = Field(None, ge=1, le=10**9)
    train: int = Field(0, ge=0, le=10**9)
    retrain: bool = False
    every_target: bool = False
    margin: float = Field(0.0, ge=0)
    probability: float = Field(0.0, ge=0, lt=1)
    forwards: int | None = Field(None, ge=1)
    backwards: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _valid(self) -> AttackTable:
        if self.make().taxonomy.specificity == "untargeted" and self.every_target:
            raise ValueError(f"{self.name}: {self.method} cannot aim at a class; leave every_target out")
        if self.retrain and not self.train:
            raise ValueError(f"{self.name}: retrain = true needs train = how many training images to attack")
        return self

    def make(self) -> Attack:
        """The attack."""
        return ATTACKS.make(self.method, **self.settings)

    @property
    def rules(self) -> tuple[Criterion, Budget]:
        """When an attack counts as a success, and the most it may ask about an image."""
        return (
            Criterion(margin=self.margin, probability=self.probability),
            Budget(forwards=self.forwards, backwards=self.backwards),
        )


class DefenceTable(MethodTable):
    """A defence that becomes an arm of the study beside the immune models, under a name of its own."""

    name: str

    @model_validator(mode="after")
    def _valid(self) -> DefenceTable:
        self.make()
        return self

    def make(self) -> Defence:
        """The defence."""
        return DEFENCES.make(self.method, **self.settings)


class ExplainerTable(MethodTable):
    """The explainer of the heat maps."""

    method: str = "lrp.sequential_preset_a_flat"

    @model_validator(mode="after")
    def _valid(self) -> ExplainerTable:
        self.make()
        return self

    def make(self) -> Explainer:
        """The explainer."""
        return EXPLAINERS.make(self.method, **self.settings)


class MapTable(_Table):
    """The map of signatures."""

    images: int | None = Field(20_000, ge=12)
    signature: dict[str, Any] = {"layer": "last"}
    umap: dict[str, Any] = {}

    @model_validator(mode="after")
    def _valid(self) -> MapTable:
        self.signer(), self.embedders(0)
        return self

    def signer(self) -> Signer:
        """The signature."""
        return SIGNERS.make("lrp", **self.signature)

    def embedders(self, seed: int) -> dict[str, Embedder]:
        """UMAP and PCA."""
        return {"umap": EMBEDDERS.make("umap", **{"seed": seed % 2**32, **self.umap}), "pca": EMBEDDERS.make("pca")}


class AtlasTable(_Table):
    """The strategies in the heat maps of the test images; see `study.atlas`."""

    images: int | None = Field(2000, ge=12)
    side: int = Field(28, ge=4, le=112)
    method: str = "spray"
    settings: dict[str, Any] = {}
    strategies: int = Field(0, ge=0, le=50)
    shown: int = Field(3, ge=1, le=20)

    @model_validator(mode="after")
    def _valid(self) -> AtlasTable:
        self.clusterer(0)
        return self

    def clusterer(self, seed: int) -> Clusterer:
        """The clustering, which shows some strategies even where the maps propose one."""
        known = {f.name for f in fields(CLUSTERERS.load(self.method))}  # type: ignore[arg-type]
        seeded = {"seed": seed} if "seed" in known else {}
        method = CLUSTERERS.make(self.method, **{**seeded, **self.settings})
        return Exploring(method=method, wanted=self.strategies, shown=self.shown)


class RetrainingTable(_Table):
    """The defences trained from the attacks, and their control."""

    training: TrainingTable = FINE_TUNE
    control: bool = True


class ArtefactTable(_Table):
    """Two models on drawn animals with a planted artefact, trained as the recipe's own; see `study.artefact`."""

    kind: Literal["caption", "bars"] = "caption"
    train: int = Field(3000, ge=32)
    test: int = Field(400, ge=8)
    margin: int = Field(1, ge=0, le=16)


class ResourcesTable(_Table):
    """What one worker may take of its machine; see `heatprint.study.parts.Workshop`."""

    threads: int = Field(1, ge=1)
    memory: str = "auto"
    gpus: float = Field(0.0, ge=0)

    @field_validator("memory")
    @classmethod
    def _size(cls, memory: str) -> str:
        if memory != "auto":
            in_bytes(memory)
        return memory


class Recipe(_Table):
    """A whole study."""

    name: str
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataTable = DataTable()
    architecture: str = "vgg-slim"
    training: TrainingTable = Training()
    attacks: tuple[AttackTable, ...]
    strong: AttackTable
    explainer: ExplainerTable = ExplainerTable()
    map: MapTable = MapTable()
    retraining: RetrainingTable = RetrainingTable()
    defences: tuple[DefenceTable, ...] = ()
    examples: int = Field(3, ge=1, le=20)
    pairs: int = Field(50, ge=0)
    atlas: AtlasTable = AtlasTable()
    artefact: ArtefactTable | None = None
    resources: ResourcesTable = ResourcesTable()

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        zoo.check(name)
        return name

    @model_validator(mode="after")
    def _valid(self) -> Recipe:
        names = [a.name for a in (*self.attacks, self.strong)]
        if "clean" in names:
            raise ValueError("'clean' is what the unattacked images are called; give the attack another name")
        if len(set(names)) != len(names):
            raise ValueError(f"attack names must differ, got {', '.join(names)}")
        if not all(map(_names_folder, names)):
            raise ValueError(
                f"attack names become folder names: at most 100 letters, digits, - and _; got {', '.join(names)}"
            )
        return self

    @model_validator(mode="after")
    def _valid_defences(self) -> Recipe:
        """Each defence has a name that no other arm has, and what it learns from is there."""
        learnable = {a.name for a in self.attacks if a.train}
        for number, table in enumerate(self.defences):
            unknown = [a for a in getattr(table.make(), "attacks", ()) if a not in learnable]
            if table.name in OTHER_MODELS or table.name.endswith("_immune"):
                told = f"{table.name!r} is what another model of a study is called; give the defence another name"
            elif table.name in [other.name for other in self.defences[:number]]:
                told = f"another defence is called {table.name!r}; names must differ"
            elif not _names_folder(table.name):
                told = f"the name {table.name!r} becomes a folder's: at most 100 letters, digits, - and _"
            elif unknown:
                told = (
                    f"{table.name} learns from {', '.join(unknown)}, which is no attack with train = how many training "
                    f"images to attack; those are {', '.join(sorted(learnable)) or 'none'}"
                )
            else:
                continue
            raise _mistake(told, ("defences", number))
        return self


def _names_folder(name: str) -> bool:
    return len(name) <= 100 and name.replace("-", "").replace("_", "").isalnum()


def _mistake(told: str, place: tuple[str | int, ...]) -> ValidationError:
    """An error at a place inside the recipe, which a validator of the whole cannot name otherwise."""
    error = InitErrorDetails(type=PydanticCustomError("recipe", "{told}", {"told": told}), loc=place, input={})
    return ValidationError.from_exception_data("Recipe", [error])


def recipe_names() -> list[str]:
    """The built-in recipes."""
    return sorted(p.name.removesuffix(".toml") for p in resources.files(RECIPES).iterdir() if p.name.endswith(".toml"))


def load_recipe(
    source: str | Path, *, data: str | None = None, seed: int | None = None, device: str | None = None
) -> Recipe:
    """A built-in recipe by name, or a TOML file.

    Args:
        source: ``"quick"``, ``"paper-slim"``, ``"paper"``, ..., or a path.
        data: Takes the place of ``data.source``.
        seed: Takes the place of ``seed``.
        device: Takes the place of ``device``.

    Raises:
        UnknownName: No such recipe or file.
        InvalidInput: A mistake in it, with line, field and what is valid.
    """
    text, origin = _text(source)
    try:
        table = parse_toml(text)
    except ValueError as error:
        raise InvalidInput(f"{origin}: not valid TOML: {error}.") from error
    for key, value in (("seed", seed), ("device", device)):
        if value is not None:
            table[key] = value
    if data is not None and isinstance(table.setdefault("data", {}), dict):
        table["data"]["source"] = data
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        told = [_told(dict(e), text, origin) for e in error.errors()[:MISTAKES]]
        told += [f"  and {error.error_count() - MISTAKES} more"] * (error.error_count() > MISTAKES)
        raise InvalidInput("The recipe has mistakes:\n" + "\n".join(told)) from error
    except HeatprintError as error:  # raised by a method while its settings were checked
        raise InvalidInput(f"{origin}: {error}") from error


def _text(source: str | Path) -> tuple[str, str]:
    path = Path(source)
    if path.suffix == ".toml":
        try:
            return read_regular(path, MOST_RECIPE).decode(), str(path)
        except FileNotFoundError as error:
            known = ", ".join(recipe_names())
            raise InvalidInput(f"load_recipe: there is no file {path}. Built-in recipes: {known}.") from error
        except UnicodeDecodeError as error:
            raise InvalidInput(f"load_recipe: {path} is not UTF-8 text.") from error
        except (OSError, ValueError) as error:
            raise InvalidInput(f"load_recipe: {str(path)!r} cannot be read ({error}). Give a TOML file.") from error
    if str(source) not in recipe_names():
        raise UnknownName("load_recipe: the recipe", str(source), [*recipe_names(), "FILE.toml"])
    return (resources.files(RECIPES) / f"{source}.toml").read_text(encoding="utf-8"), f"recipe {source}"


def _told(error: dict[str, Any], text: str, origin: str) -> str:
    """One mistake as a sentence: where, which field, what came, what is valid."""
    loc, line = error["loc"], line_of(text, error["loc"])
    field = ".".join(map(str, loc)) or "recipe"
    where = f"  {origin}, line {line}: {field}" if line else f"  {origin}: {field}"
    if error["type"] == "extra_forbidden":
        return f"{where}: {UnknownName('the field', str(loc[-1]), _fields(loc[:-1]))}"
    came = "" if error["type"] == "missing" or isinstance(error["input"], dict) else f", got {error['input']!r}"
    return f"{where}: {error['msg'].removeprefix('Value error, ').removesuffix('.')}{came}."


def _fields(loc: tuple[Any, ...]) -> list[str]:
    """The valid fields of the table at a place in the recipe."""
    table: type[_Table] = Recipe
    places: dict[Any, type[_Table]] = {
        "data": DataTable,
        "attacks": AttackTable,
        "strong": AttackTable,
        "defences": DefenceTable,
        "explainer": ExplainerTable,
        "map": MapTable,
        "retraining": RetrainingTable,
        "artefact": ArtefactTable,
        "atlas": AtlasTable,
        "resources": ResourcesTable,
    }
    for step in loc:
        table = places.get(step, table)
    return list(table.model_fields)
