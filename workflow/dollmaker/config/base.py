"""What the sections of the configuration are made of: a frozen model, and types of values."""

import json
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

#: A configuration, or a part of one, as YAML and JSON have it.
Tree = dict[str, Any]

T = TypeVar("T")
K = TypeVar("K")


class Section(BaseModel):
    """A part of the configuration: closed, strict about types, and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, regex_engine="python-re")

    #: Keys without a default, which :meth:`dump` leaves out where they are not given, or null.
    may_lack: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _keep_the_order(cls, value: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Keys in the order in which they are given, then the others: so headers are the same."""
        made = check(value)
        if isinstance(value, dict):
            values = vars(made)
            first = {key: values[key] for key in value if key in values}
            object.__setattr__(made, "__dict__", {**first, **values})
        return made

    def replace(self, **changes: Any) -> Self:
        """The same section with other values, which are not checked."""
        return self.model_copy(update=changes)

    def dump(self) -> Tree:
        """The section as a dictionary, as JSON and headers of files hold it."""
        values = {**dict(self), **(self.model_extra or {})}
        return {
            key: _plain(value)
            for key, value in values.items()
            if value is not None or key not in self.may_lack
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.dump()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def lacks(key: str) -> PydanticCustomError:
    """The complaint that a section lacks a key that its others ask for."""
    return PydanticCustomError("lacks", "lacks the key {key}; add it", {"key": repr(key)})


def needs(key: str, value: str, needed: str) -> dict[str, Any]:
    """The same for the JSON schema: where ``key`` is ``value``, ``needed`` must be given."""
    condition = {"properties": {key: {"const": value}}, "required": [key]}
    return {"if": condition, "then": {"required": [needed]}}


def _as_given(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """A number as it was written: 1 stays 1, and JSON of it the same bytes."""
    read = check(value)
    return value if isinstance(value, int) else read


def _distinct(values: list[T]) -> list[T]:
    texts = [json.dumps(value) for value in values]
    for place, text in enumerate(texts):
        if text in texts[:place]:
            raise PydanticCustomError("twice", "it has {value} twice", {"value": text})
    return values


_DISTINCT = Field(json_schema_extra={"uniqueItems": True})

Number = Annotated[float, WrapValidator(_as_given)]
Rate = Annotated[Number, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**53)]  # a thousand times that is one for torch, too
Text = Annotated[str, Field(min_length=1)]

#: Lists: without an item twice, with an item, with both, of two items; names with what they mean.
Distinct = Annotated[list[T], AfterValidator(_distinct), _DISTINCT]
Filled = Annotated[list[T], Field(min_length=1)]
Some = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct), _DISTINCT]
Pair = Annotated[list[T], Field(min_length=2, max_length=2)]
Named = Annotated[dict[K, T], Field(min_length=1)]

Split = Literal["train", "valid", "test"]
Augment = Literal["none", "geometric", "flip"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Tuned = Literal["full", "head", "decoder", "adapter", "lora", "bias"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$(?!\n)"
_STUDY_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$(?!\n)"
_TUNING_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+]*$(?!\n)"
_VERSION = r"^[0-9]+\.[0-9]+\.[0-9]+$(?!\n)"
_RUN = r"^(random|imagenet|classifier|doll)/(full|head|decoder|adapter|lora|bias)$(?!\n)"

#: Pattern of a text -> what it allows, for messages.
SPELLINGS = {
    _NAME: "letters, digits, '_', '.' and '-', the first a letter or digit",
    _STUDY_NAME: "letters, digits, '_', '.', '+' and '-', the first a letter or digit",
    _TUNING_NAME: "letters, digits, '_', '.' and '+', the first a letter or digit",
    _VERSION: "three numbers, such as 1.0.0",
    _RUN: (
        "init/tuning: random, imagenet, classifier or doll; full, head, decoder, adapter, lora "
        "or bias"
    ),
}

Name = Annotated[str, Field(pattern=_NAME)]
StudyName = Annotated[str, Field(pattern=_STUDY_NAME)]
TuningName = Annotated[str, Field(pattern=_TUNING_NAME)]
Version = Annotated[str, Field(pattern=_VERSION)]
Run = Annotated[str, Field(pattern=_RUN)]
