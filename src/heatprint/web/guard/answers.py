"""What the service answers, as it is written in JSON and read by the client."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat


class Told(BaseModel):
    """A part of an answer; also made from any object with these attributes."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Attack(Told):
    """What was probably done to the image."""

    family: str = Field(description="The most probable family of attacks.")
    family_probability: FiniteFloat
    name: str = Field(description="The most probable algorithm.")
    probability: FiniteFloat
    unknown: bool = Field(description="It is unlike every attack learned from; the names say what it is most like.")


class Restored(Told):
    """The answer after the most suspicious pixel was repaired, where that changes it."""

    prediction: str
    row: int = Field(description="Of the pixel, from the top, in the image as the classifier sees it.")
    column: int


class Remedy(Told):
    """Which defence to ask about this image."""

    name: str
    probability: FiniteFloat = Field(description="Of its being right about this image.")


class Answer(Told):
    """What is said of one image."""

    prediction: str = Field(description="The class the guarded classifier answers.")
    probability: FiniteFloat
    verdict: Literal["attacked", "passed", "unchecked"] = Field(
        description="passed: no sign of an attack. unchecked: the guard failed and lets answers through."
    )
    score: FiniteFloat | None = None
    threshold: FiniteFloat | None = Field(default=None, description="Score above which an image is flagged.")
    attack: Attack | None = None
    restored: Restored | None = None
    remedy: Remedy | None = None
    file: str = Field(default="", description="Name of the file, where one was sent.")
    heat: str = Field(default="", description="Path of the heat map; forgotten after some more images.")


class Answers(Told):
    """Answers in the order of the images."""

    images: list[Answer]


class Problem(Told):
    """Why there is no answer."""

    detail: str
