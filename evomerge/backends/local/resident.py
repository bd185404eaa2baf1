"""The one model in memory: built once from a folder's configuration, then every candidate's tensors are copied into it.

The first candidate goes through transformers' own loader, which also decides which weights are tied; later ones are
written in place, cast from what they are stored in to what the model computes in. Where a checkpoint's names are not
the model's own (architectures whose weights are converted on loading), each candidate goes through the loader. A
candidate that fails half-way leaves a model that is known to be torn, and the next one is written whole.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from logging import CRITICAL
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, GenerationConfig
from transformers.utils import logging

from evomerge.errors import CandidateError, SourceError

Tensors = Callable[[], Iterator[tuple[str, Tensor]]]
"""Begins to yield the names and tensors of a candidate; called again where it has to be read from the start."""


class Architecture:
    """What a folder's configuration, or another in its place, says a model is, without its weights."""

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None, behaviour: Path | None = None) -> None:
        """Read the configuration, and the generation configuration of `behaviour`, another folder where there is one.

        Raises SourceError where transformers has no causal language model for it.
        """
        try:
            self.config = _configuration(folder, config)
        except (OSError, ValueError, KeyError) as error:
            raise SourceError(f"{folder}: its configuration cannot be used ({_first_line(error)})") from None
        known = cast("dict[type, Any]", MODEL_FOR_CAUSAL_LM_MAPPING)
        kind = cast(str, self.config.model_type)
        if type(self.config) not in known:
            raise SourceError(f"{folder}: transformers has no causal language model for the type {kind}")
        self.model_class = known[type(self.config)]
        self.accepts = frozenset(signature(self.model_class.forward).parameters)
        if "past_key_values" not in self.accepts:
            raise SourceError(f"{folder}: models of the type {kind} have no key-value cache to generate with")
        self.ends = _ends(behaviour or folder, self.config)

    @property
    def identity(self) -> str:
        """What two folders share when the same model can hold the weights of both."""
        plain = cast("dict[str, Any]", self.config.to_dict())
        for key in ("_name_or_path", "dtype", "transformers_version", "architectures"):
            plain.pop(key, None)
        return repr(sorted(plain.items(), key=lambda item: item[0]))

    @property
    def stored_dtype(self) -> torch.dtype:
        """What the configuration says the weights are stored in; float32 where it says nothing."""
        return cast("torch.dtype | None", getattr(self.config, "dtype", None)) or torch.float32

    @property
    def positions(self) -> int | None:
        """How many tokens a sequence may have; None where there is no limit."""
        return cast("int | None", getattr(self.config.get_text_config(), "max_position_embeddings", None))

    def parameters(self) -> int:
        """Return how many parameters the model has, tied ones once. No memory is taken for them."""
        with torch.device("meta"):
            model = self.model_class(self.config)
        return sum(cast(Tensor, parameter).numel() for parameter in model.parameters())


@dataclass(frozen=True, slots=True)
class Causal:
    """A transformers model that can be asked for logits."""

    model: Any
    accepts: frozenset[str]

    @property
    def device(self) -> torch.device:
        """Where its inputs belong."""
        return cast(torch.device, self.model.device)

    @property
    def vocabulary(self) -> int:
        """How many logits each position has."""
        return cast(int, self.model.config.get_text_config().vocab_size)

    def logits(self, given: Mapping[str, Any]) -> Tensor:
        """Run the model on what it takes of `given`; return its logits, of shape (rows, positions, vocabulary).

        Families differ in whether they take `position_ids` and `logits_to_keep`; without the latter all positions
        come back.
        """
        taken = {name: value for name, value in given.items() if name in self.accepts}
        return cast(Tensor, self.model(**taken).logits)


class Resident:
    """A model of one architecture, and which candidate's weights are in it."""

    def __init__(self, architecture: Architecture, dtype: torch.dtype, device: torch.device) -> None:
        self.architecture = architecture
        self._dtype, self._device = dtype, device
        self._model: Any = None
        self._places: dict[str, Tensor] = {}
        self._ignored: frozenset[str] = frozenset()
        self._holds: str | None = None

    def put(self, key: str, tensors: Tensors) -> Causal:
        """Return the model with the candidate that `key` names in it; nothing is written where it is in it already.

        Raises CandidateError where tensors are missing or do not fit.
        """
        if self._holds != key:
            self._holds = None
            if not (self._places and self._written(tensors())):
                self._load(tensors())
            self._holds = key
        return Causal(self._model, self.architecture.accepts)

    def _written(self, tensors: Iterator[tuple[str, Tensor]]) -> bool:
        """Copy the tensors into the model; false where they are not, one for one, those of the model."""
        left = dict(self._places)
        for name, tensor in tensors:
            if name in self._ignored:
                continue
            place = left.pop(name, None)
            if place is None or place.shape != tensor.shape:
                return False
            place.copy_(tensor)
        return not left

    def _load(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        """Let transformers make a new model of the tensors, and learn where each of them went."""
        self._model, self._places = None, {}
        stored = {name: tensor.clone() for name, tensor in tensors}  # the model keeps them, and is written to
        names = frozenset(stored)
        with _quiet():
            try:
                model, told = self.architecture.model_class.from_pretrained(
                    None,
                    config=self.architecture.config,
                    state_dict=stored,
                    dtype=self._dtype,
                    output_loading_info=True,
                )
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError) as error:
                raise CandidateError(f"transformers cannot load the model ({_first_line(error)})") from None
        if missing := cast("set[str]", told["missing_keys"]):
            raise CandidateError(f"the model lacks the tensor {min(missing)}; check the checkpoint it comes from")
        self._model = model.requires_grad_(False).eval().to(self._device)
        head = self._model.get_output_embeddings()
        if isinstance(head, torch.nn.Module):
            head.register_forward_pre_hook(_contiguous)
        self._ignored = frozenset(told["unexpected_keys"])
        self._places = _places(model, names - self._ignored)


def _configuration(folder: Path, config: Mapping[str, Any] | None) -> Any:
    if config is None:
        return cast(Any, AutoConfig.from_pretrained(str(folder), local_files_only=True))
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise ValueError("it has no model_type")
    return cast(Any, AutoConfig.for_model(**dict(config)))


def _contiguous(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Hand the output layer a contiguous input.

    The last positions of a batch are a view with gaps, for which torch's bfloat16 product on a CPU would copy the whole
    output layer once for every row.
    """
    return (args[0].contiguous(), *args[1:])


def _places(model: Any, names: frozenset[str]) -> dict[str, Tensor]:
    """Return where each tensor of a checkpoint lies in the model; empty where that is not one place for each name."""
    state = cast("dict[str, Tensor]", model.state_dict(keep_vars=True))
    if not names <= state.keys():
        return {}
    places = {name: state[name] for name in names}
    taken = {tensor.data_ptr() for tensor in places.values()}
    everything = {tensor.data_ptr() for tensor in state.values()}
    return places if len(taken) == len(places) and taken == everything else {}


def _ends(folder: Path, config: Any) -> frozenset[int]:
    """Return the tokens that end an answer, as the generation configuration or else the configuration has them."""
    try:
        found = cast(Any, GenerationConfig.from_pretrained(str(folder), local_files_only=True)).eos_token_id
    except OSError:
        found = None
    if found is None:
        found = getattr(config.get_text_config(), "eos_token_id", None)
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else cast("list[int]", found))


@contextmanager
def _quiet() -> Generator[None]:
    """Keep transformers from drawing progress bars and reports: what matters of them becomes an error of ours."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
