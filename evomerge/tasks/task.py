"""A task, loaded: its items in three disjoint splits, what is asked about each, and what the answers are worth.

Loading finds every mistake that can be found without a model. A loaded task is a pure value: the same settings, items
and seed give the same requests in the same order. Which of them share a batch is decided by whoever asks.
"""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evomerge.errors import ConfigError, SourceError
from evomerge.exchange import Answer, Failure, Generate, Judge, Request, Sampling
from evomerge.tasks.items import Item, read_items, short_hash
from evomerge.tasks.scorers import Question, Scorer
from evomerge.tasks.scorers.protocol import Unit
from evomerge.tasks.settings import SPLITS, Split, SplitSizes, TaskSettings
from evomerge.tasks.splits import Deal, Pool, deal
from evomerge.tasks.templates import DEFAULT_REFERENCE, Questioner, asked


@dataclass(frozen=True, slots=True)
class Score:
    """What an answer is worth, in the unit of the split's scorer; None, with the failure, where there is no answer."""

    value: float | None
    failure: Failure | None = None


@dataclass(frozen=True)
class Task:
    """Questions in three splits, each with its scorer. Made by `load_task`.

    `fingerprint` (16 hexadecimal digits) is equal for two tasks that ask the same, in the same order, and score it in
    the same way; `notes` are sentences that a person should read before anything is spent.
    """

    name: str
    weight: float
    fingerprint: str
    notes: tuple[str, ...]
    sampling: Sampling = field(repr=False)
    constrain: bool = field(repr=False)
    """Whether generated answers are to be among the question's choices."""
    seed: int = field(repr=False)
    scorers: Mapping[Split, Scorer] = field(repr=False)
    questions: Mapping[Split, Mapping[str, Question]] = field(repr=False)
    """By split and item id, in the order in which a split's items stand."""

    def items(self, split: Split) -> tuple[Item, ...]:
        """Return the items of a split in their fixed order, which is as good as a random one."""
        return tuple(question.item for question in self.questions[split].values())

    def question(self, item: Item, split: Split) -> Question:
        """Return what is asked about an item of a split, with the accepted answers. Raises KeyError for others."""
        return self.questions[split][item.id]

    def request(self, item: Item, split: Split) -> Request:
        """Return what a model is asked about an item of a split: a text, or how likely its continuations are."""
        question = self.question(item, split)
        continuations = self.scorers[split].continuations(question)
        if continuations:
            return Judge(question.prompt, continuations)
        return Generate(question.prompt, self._sampling(question))

    def judges(self, split: Split) -> bool:
        """Return whether likelihoods are asked for on a split, of some item or all."""
        return any(self.scorers[split].continuations(question) for question in self.questions[split].values())

    def score(self, item: Item, split: Split, answer: Answer) -> Score:
        """Return what an answer is worth; a missing one has no score, an empty or cut one is scored as it is.

        Raises ConfigError where a scorer that is not ours fails, BackendError for an answer to something else than was
        asked, CandidateError for an answer that only a broken model gives.
        """
        if answer.failure is not None:
            return Score(None, answer.failure)
        scorer = self.scorers[split]
        value = float(scorer.score(self.question(item, split), answer))
        if not math.isfinite(value) or (scorer.unit == "share" and not 0 <= value <= 1):
            raise ConfigError(f"task {self.name!r}: the scorer gives {value} at {item.where}; a score is from 0 to 1")
        return Score(value)

    def key(self, split: Split, text: str) -> str:
        """Return what stands for a text when answers are counted: equal for texts that are the same to the scorer."""
        return self.scorers[split].key(text)

    def unit(self, split: Split) -> Unit:
        """Return what the scores of a split are measured in."""
        return self.scorers[split].unit

    def _sampling(self, question: Question) -> Sampling:
        """Return the sampling, with a seed of the item's own where answers are drawn."""
        sampling = replace(self.sampling, choices=question.choices) if self.constrain else self.sampling
        if sampling.temperature == 0:
            return sampling
        digest = hashlib.sha256(f"{self.seed}/{question.item.id}".encode()).digest()
        return replace(sampling, seed=int.from_bytes(digest[:4], "big") >> 1)


def load_task(settings: TaskSettings, root: Path, seed: int, default_sizes: SplitSizes | None = None) -> Task:
    """Read a task's data and return it, ready to be asked.

    `root` is the job's folder, to which paths and a person's own code are relative; `seed` is the job's, and decides
    the splits; `default_sizes` are those that the job gives for all tasks. Raises ConfigError (SourceError for what is
    wrong with a file) with a sentence naming task, file and line.
    """
    scorers: dict[Split, Scorer] = {split: _scorer(settings, split, root) for split in SPLITS}
    dealt = _deal(settings, root, seed, default_sizes)
    for split in SPLITS:
        for question in dealt.splits[split]:
            _check(settings, scorers[split], settings.scorer(split).name, question)
    return Task(
        name=settings.name,
        weight=settings.weight,
        fingerprint=_fingerprint(settings, scorers, dealt),
        notes=dealt.notes,
        sampling=settings.sampling,
        constrain=settings.constrain,
        seed=seed,
        scorers=scorers,
        questions={split: {question.item.id: question for question in dealt.splits[split]} for split in SPLITS},
    )


def _scorer(settings: TaskSettings, split: Split, root: Path) -> Scorer:
    named = settings.scorer(split)
    try:
        scorer = named.make(root)
    except ConfigError as error:
        raise ConfigError(f"task {settings.name!r}: {error}") from error
    if scorer.needs_choices and settings.choices is None:
        raise ConfigError(
            f"task {settings.name!r}: the scorer {named.name} needs choices; "
            "give the name of a field that holds a list, or a list of templates"
        )
    return scorer


def _deal(settings: TaskSettings, root: Path, seed: int, default_sizes: SplitSizes | None) -> Deal:
    questioner = Questioner(settings)
    by_path: dict[Path, list[Split]] = {}
    for split in SPLITS:
        by_path.setdefault(Path(os.path.normpath(root / settings.data.of(split))), []).append(split)
    pools: list[Pool] = []
    for path, splits in by_path.items():
        name = settings.data.of(splits[0])
        pools.append(Pool(name, tuple(splits), [questioner.question(item) for item in _read(settings, path, name)]))
    return deal(pools, settings.splits.over(default_sizes), seed=seed, task=settings.name)


def _read(settings: TaskSettings, path: Path, name: str) -> Sequence[Item]:
    try:
        return read_items(path, name)
    except SourceError as error:
        raise SourceError(f"task {settings.name!r}: {error}") from error


def _check(settings: TaskSettings, scorer: Scorer, scorer_name: str, question: Question) -> None:
    item = question.item
    if scorer.needs_reference and not question.references:
        raise SourceError(
            f"task {settings.name!r}: reference: there is no field {DEFAULT_REFERENCE!r} at {item.where}; "
            f"name the field that holds the right answer (the fields there are {item.field_names})"
        )
    problem = scorer.problem(question)
    if problem is not None:
        raise SourceError(f"task {settings.name!r}: {item.where} cannot be scored by {scorer_name}: {problem}")


def _fingerprint(settings: TaskSettings, scorers: Mapping[Split, Scorer], dealt: Deal) -> str:
    """Hash all that scores depend on: not the files' names, nor a setting that changes neither questions nor scores."""
    splits = [
        {
            "scorer": settings.scorer(split).name,
            "options": settings.scorer(split).parsed().model_dump(mode="json"),
            "code": scorers[split].code,
            "questions": [
                [question.item.id, asked(question), list(question.references)] for question in dealt.splits[split]
            ],
        }
        for split in SPLITS
    ]
    constrained = ["constrain"] if settings.constrain else []
    sampling = [settings.max_tokens, float(settings.temperature), list(settings.stop), *constrained]
    return short_hash([settings.name, float(settings.weight), sampling, splits])
