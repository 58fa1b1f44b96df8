"""The section `corpus` of the parameters: where stories come from, and which ones are dropped.

To add a source NAME, add a section here, under the same name in `Corpus`, and a module or package
corpus/NAME with a function `source(corpus) -> Source`, which reads the section from `corpus.NAME`.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from squentropy.study.kinds import PositiveInt, Section, Seed, Text


class Grammar(Section):
    seed: Seed
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt


class Hub(Section):
    dataset: Text
    revision: Text
    config: Text | None
    text: Text
    licence: Text
    train: Text
    validation: Text | None
    test: Text
    validation_stories: PositiveInt
    seed: Seed


class Files(Section):
    train: list[Text]
    validation: list[Text]
    test: list[Text]
    text: Text
    separator: Text
    licence: Text
    validation_stories: PositiveInt
    test_stories: PositiveInt
    seed: Seed


class Teacher(Section):
    run: Text
    tokens: Text | None
    licence: Text
    train: PositiveInt
    validation: PositiveInt
    test: PositiveInt
    max_tokens: Annotated[int, Field(ge=2, le=1_000_000)]
    seed: Seed


def _known_source(name: str) -> str:
    if name not in sources():
        raise ValueError(f"is not a source of stories; there are: {', '.join(sources())}")
    return name


class Corpus(Section):
    source: Annotated[str, AfterValidator(_known_source)]
    near_duplicates: Literal["count", "drop"]
    empty: Literal["drop", "error"]
    max_bytes: PositiveInt
    overlong: Literal["drop", "error"]
    mojibake: Literal["keep", "drop"]
    grammar: Grammar
    hub: Hub
    files: Files
    model: Teacher

    def relevant(self) -> dict:
        """The keys that the chosen source depends on."""
        return self.model_dump(exclude=set(sources()) - {self.source})

    @model_validator(mode="after")
    def _files_named(self) -> "Corpus":
        if self.source == "files" and not self.files.train:
            raise ValueError(
                "source is 'files' but corpus.files.train is empty; name the files of your stories"
            )
        return self


def sources() -> list[str]:
    """The names of all sources: the sections of `Corpus`."""
    fields = Corpus.model_fields.items()
    return [
        name
        for name, f in fields
        if isinstance(f.annotation, type) and issubclass(f.annotation, Section)
    ]
