"""One LoRA adapter as PEFT writes it: the change s·B·A of some weights of a base.

Rank comes from the tensors, alpha and rsLoRA from adapter_config.json. Whatever is not plain LoRA is refused by name:
leaving a part of an adapter out would make another model of it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evomerge.backends.weights.headers import Stored
from evomerge.backends.weights.raw import Raw
from evomerge.backends.weights.tensors import TensorFiles, no_tensors, read_json
from evomerge.errors import SourceError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."

_NOT_PLAIN = (
    "use_dora",
    "modules_to_save",
    "fan_in_fan_out",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "megatron_config",
)
_BASE_CHANGED = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<factor>[AB])\.weight$")


@dataclass(frozen=True, slots=True)
class Module:
    """What an adapter does to the weight of one module: s·B·A, B of out x rank, A of rank x in."""

    name_a: str
    name_b: str
    rank: int
    scale: float
    shape: tuple[int, int]


class Adapter:
    """A folder with adapter_config.json and adapter_model.safetensors.

    Raises SourceError for a broken folder, and for whatever is not plain LoRA.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = read_json(folder / CONFIG)
        self._refuse_other_kinds()
        weights = folder / WEIGHTS
        if not weights.is_file():
            raise SourceError(no_tensors(folder, WEIGHTS))
        self._files = TensorFiles([weights])
        self.modules: Mapping[str, Module] = self._modules(weights)

    @property
    def files(self) -> tuple[Path, ...]:
        """The safetensors file, as a tuple of one."""
        return self._files.files

    @property
    def base_name(self) -> str | None:
        """The base as the adapter's own configuration names it."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    @property
    def stored(self) -> Mapping[str, Stored]:
        """The stored tensors by name."""
        return self._files.stored

    def raw(self, name: str) -> Raw:
        """Return a stored tensor as a view of the file."""
        return self._files.raw(name)

    def factors(self, module: str) -> "tuple[Tensor, Tensor]":
        """Return float32 (a, b) of a module, its scale within b."""
        entry = self.modules[module]
        return self._files.float32(entry.name_a), self._files.float32(entry.name_b) * entry.scale

    def _refuse_other_kinds(self) -> None:
        config = self.folder / CONFIG
        kind = self.config.get("peft_type")
        if kind != "LORA":
            raise SourceError(f"{config}: peft_type is {kind!r}, and only LORA adapters are supported")
        for key in _NOT_PLAIN:
            if self.config.get(key):
                raise SourceError(
                    f"{config}: {key} is set, which is not supported; only plain LoRA adapters can be merged"
                )
        if self.config.get("bias", "none") != "none":
            raise SourceError(f"{config}: bias is {self.config['bias']!r}, which is not supported; only 'none' is")
        start = self.config.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_BASE_CHANGED):
            raise SourceError(
                f"{config}: init_lora_weights {start!r} changes the base itself, which is not supported; "
                "save the adapter with path_initial_model_for_weight_conversion"
            )

    def _modules(self, weights: Path) -> dict[str, Module]:
        names: dict[str, dict[str, str]] = {}
        for name in self._files.stored:
            found = _FACTOR.match(name)
            if found is None:
                raise SourceError(f"{weights}: the tensor {name} is not a factor of plain LoRA, which is not supported")
            names.setdefault(found["module"].removeprefix(PREFIX), {})[found["factor"]] = name
        if not names:
            raise SourceError(f"{weights} holds no tensors; train or save the adapter again")
        return {module: self._module(weights, module, pair) for module, pair in sorted(names.items())}

    def _module(self, weights: Path, module: str, pair: Mapping[str, str]) -> Module:
        if len(pair) != 2:
            missing = "B" if "A" in pair else "A"
            raise SourceError(f"{weights}: {module} has no lora_{missing}; copy or download the adapter again")
        stored_a, stored_b = (self._files.stored[pair[factor]] for factor in "AB")
        for stored, name in ((stored_a, pair["A"]), (stored_b, pair["B"])):
            if len(stored.shape) != 2 or not stored.is_float:
                raise SourceError(
                    f"{weights}: {name} is {stored.dtype} of shape {list(stored.shape)}, and a matrix of floats is "
                    "needed; only adapters of linear layers are supported"
                )
        rank = stored_a.shape[0]
        if stored_b.shape[1] != rank:
            raise SourceError(
                f"{weights}: {module} has lora_A of shape {list(stored_a.shape)} and lora_B of shape "
                f"{list(stored_b.shape)}, whose ranks differ; copy or download the adapter again"
            )
        said = self._number("rank_pattern", module, "r")
        if said != rank:
            raise SourceError(
                f"{weights}: {module} has rank {rank}, and {CONFIG} says {said:g}; save the adapter again"
            )
        alpha = self._number("alpha_pattern", module, "lora_alpha")
        scale = alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        return Module(pair["A"], pair["B"], rank, scale, (stored_b.shape[0], stored_a.shape[1]))

    def _number(self, pattern: str, module: str, default: str) -> float:
        """Return a module's own rank or alpha where a pattern (a regular expression, as in PEFT) names it."""
        patterns: Any = self.config.get(pattern) or {}
        value: Any = self.config.get(default)
        if isinstance(patterns, dict):
            for key, own in cast(dict[str, Any], patterns).items():
                if self._fits(pattern, key, module):
                    value = own
                    break
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SourceError(f"{self.folder / CONFIG}: {default} of {module} is {value!r}, and a number is needed")
        return float(value)

    def _fits(self, pattern: str, key: str, module: str) -> bool:
        try:
            return re.match(rf"(.*\.)?({key})$", module) is not None
        except re.error:
            raise SourceError(f"{self.folder / CONFIG}: {pattern} has the key {key!r}, which is no pattern") from None
