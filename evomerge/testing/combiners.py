"""What every combiner must keep, whatever its rule.

`check_combiner` runs a combiner with its default parameters over small ballots. It says nothing about whether the rule
is a good one, and a combiner may prefer any member.
"""

from itertools import product

from evomerge.strategies.ensemble.protocol import Combiner, CombinerParameters, Reply

_MEMBERS = 3


def check_combiner(combiner: Combiner) -> None:
    """Check a combiner against the contract. Raises AssertionError saying what does not hold.

    Checked: what it declares about its parameters; that nobody's reply is no reply; that a member alone, and members
    who all say the same, are believed; that whoever is missing, a reply is a `Reply` or None; that a repeated call
    gives the same, and leaves what came in as it was.
    """
    for parameter in combiner.parameters:
        _require(
            parameter.of in ("ensemble", "member"), combiner, f"{parameter.name} is of neither ensemble nor member"
        )
        _require(bool(parameter.doc), combiner, f"{parameter.name} says nothing about itself")
        fits = not parameter.choices or parameter.default in parameter.choices
        _require(fits, combiner, f"the default of {parameter.name} is none of its choices")
    nobody = [None] * _MEMBERS
    _require(combiner.combine(nobody, _defaults(combiner, _MEMBERS)) is None, combiner, "answers where nobody does")
    alone = Reply("only one", "one")
    _require(combiner.combine([alone], _defaults(combiner, 1)) == alone, combiner, "does not believe a member alone")
    texts = [Reply(f"the answer is {number}", "same") for number in range(_MEMBERS)]
    agreed = combiner.combine(texts, _defaults(combiner, _MEMBERS))
    _require(agreed is not None and agreed.key == "same", combiner, "does not believe members who agree")
    for replies in product((None, Reply("Yes", "yes"), Reply("no", "no")), repeat=_MEMBERS):
        ballot = list(replies)
        found = combiner.combine(ballot, _defaults(combiner, _MEMBERS))
        _require(found is None or isinstance(found, Reply), combiner, f"gives {found!r}, which is no reply")  # pyright: ignore[reportUnnecessaryIsInstance]  # what is tested may break its types
        _require(ballot == list(replies), combiner, "changes the replies that come in")
        again = combiner.combine(ballot, _defaults(combiner, _MEMBERS))
        _require(found == again, combiner, "gives two results for the same replies")


def _defaults(combiner: Combiner, members: int) -> CombinerParameters:
    def of(owner: str) -> dict[str, float | int | str | bool]:
        return {parameter.name: parameter.default for parameter in combiner.parameters if parameter.of == owner}

    return CombinerParameters(of("ensemble"), tuple(of("member") for _ in range(members)))


def _require(holds: bool, combiner: Combiner, sentence: str) -> None:
    if not holds:
        raise AssertionError(f"{combiner.name}: {sentence}")
