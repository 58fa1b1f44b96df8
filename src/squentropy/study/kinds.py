"""The types of parameter values."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from squentropy.study.catalogue import loss_info


def known_loss(name: str) -> str:
    """A loss's canonical name. Raises ValueError if there is no such loss."""
    return loss_info(name).name


def distinct(values: list) -> list:
    if len(set(values)) != len(values):
        raise ValueError("contains a value twice; write each once")
    return values


T = TypeVar("T")
PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Threads = Annotated[int, Field(ge=1, le=1024)]
NaturalInt = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Dropout = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Loss = Annotated[str, AfterValidator(known_loss)]
Text = Annotated[str, StringConstraints(min_length=1)]
Values = Annotated[list[T], Field(min_length=1), AfterValidator(distinct)]
"""One or more distinct values."""


class Section(BaseModel):
    """A group of keys; unknown keys and values of the wrong type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
