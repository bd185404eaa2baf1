"""The merge methods and the combiners, from what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.strategies.ensemble.registry import combiners
from evomerge.strategies.merge.protocol import Method, Parameter
from evomerge.strategies.merge.registry import methods
from generator.markdown import anchor, code, one_line, table

EVIDENCE = {
    "V": "the formula was compared with the authors' or the common code",
    "V3": "the formula was compared with a third party's code only",
    "A": "the formula comes from a text without all details",
    "R": "a detail that the text leaves open is our reconstruction",
    "D": "the formula was derived and checked numerically",
}


def method_sections() -> Iterator[str]:
    """The table of all methods, and a section for each."""
    found = methods().values()
    rows = [
        (f"[{item.name}](#{anchor(item.name)})", item.title, item.needs.base, models_in_words(item), on_adapters(item))
        for item in found
    ]
    yield (
        "# Merge methods\n\nWhat `method:` of a recipe may be. A method sees one tensor at a time, of every model, in "
        "float32; the result is stored in the base's dtype. `base` says whether it uses the model that the others were "
        "fine-tuned from: *counted* means that it is one of the models to be merged where it is there."
    )
    yield table(("method", "what it does", "base", "models", "adapters"), rows)
    yield from map(method_section, found)


def combiner_sections() -> Iterator[str]:
    """The combiners of answers, a section for each."""
    yield (
        "# Combiners\n\nWhat `combine:` of an ensemble may be. A combiner sees what every member answered to one item; "
        "answers that mean the same to the task's scorer are one answer."
    )
    for combiner in combiners().values():
        rows = [
            (
                code(parameter.name),
                "the ensemble" if parameter.of == "ensemble" else "each member",
                code(plain(parameter.default)),
                span(parameter),
                one_line(parameter.doc),
            )
            for parameter in combiner.parameters
        ]
        told = table(("parameter", "of", "default", "a good range to search", "what it does"), rows)
        rule = one_line(combiner.combine.__doc__)
        parameters = told if rows else "It has no parameters."
        yield f"## {combiner.name}\n\n{rule}\n\n{parameters}\n\nSource: {combiner.source}."


def models_in_words(method: Method) -> str:
    """How many models a method takes."""
    least, most = method.needs.inputs
    return f"{least} or more" if most is None else str(least) if least == most else f"{least} to {most}"


def on_adapters(method: Method) -> str:
    """What a method makes of adapters."""
    if method.coefficients is not None:
        return "exact: stays an adapter"
    return "becomes a checkpoint, or an adapter with `refactor: {rank: R}`"


def method_section(method: Method) -> str:
    """A section for one method."""
    rows = [
        (
            code(parameter.name),
            "the merge" if parameter.of == "merge" else "each model",
            code(plain(parameter.default)),
            span(parameter),
            one_line(parameter.doc),
        )
        for parameter in method.parameters
    ]
    formula = one_line(method.apply.__doc__).replace(" * ", " · ")
    told = "".join(f"{sentence}\n\n" for sentence in preparation(method))
    if not rows:
        return f"## {method.name}\n\n{formula}\n\n{told}It has no parameters.\n\n{origin(method)}"
    return (
        f"## {method.name}\n\n{formula}\n\n{told}"
        + table(("parameter", "of", "default", "a good range to search", "what it does"), rows)
        + f"\n\n{origin(method)}"
    )


def preparation(method: Method) -> Iterator[str]:
    """What is found out before the first candidate, in a sentence each."""
    if method.mixture is not None:
        yield (
            "It is a weighted sum whose weights follow from the inner products of the models. These do not depend on "
            "the parameters, so a search computes them once, and a candidate costs what a weighted sum costs."
        )
    if method.stages is not None:
        yield (
            "It may need to know the whole model before the first tensor is merged. What that is does not depend on "
            "the numbers a search changes, so it is found out once."
        )


def origin(method: Method) -> str:
    """Where a method comes from, and how surely."""
    return f"Source: {method.source}; {EVIDENCE[method.evidence]}."


def span(parameter: Parameter) -> str:
    """The values that a search should try."""
    if parameter.low is None or parameter.high is None:
        return ", ".join(code(plain(choice)) for choice in parameter.choices)
    return f"{parameter.low:g} to {parameter.high:g}" + (", `log: true`" if parameter.log else "")


def plain(value: object) -> str:
    """A value as YAML writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
