"""Which tensors belong together: groups by role, by depth, or each tensor alone.

No architecture is assumed: roles such as attention and mlp are sets of name patterns that fit the usual families, a
recipe may name its own, and all are checked against the tensors that are really there.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

from evomerge.recipe.tree import Merge, Per

REST = "rest"

KNOWN_GROUPS: Mapping[str, tuple[str, ...]] = {
    "norms": (
        "*layernorm*",
        "*layer_norm*",
        "*LayerNorm*",
        "*.norm.*",
        "norm.*",
        "*.norm?.*",
        "*.ln_?.*",
        "*.ln_f.*",
        "*_norm.*",
    ),
    "attention": ("*.self_attn.*", "*.attn.*", "*.attention.*", "*.self_attention.*", "*.mixer.*", "*.linear_attn.*"),
    "mlp": ("*.mlp.*", "*.feed_forward.*", "*.ffn.*", "*.block_sparse_moe.*", "*.experts.*", "*.fc1.*", "*.fc2.*"),
    "embeddings": ("*embed*", "*.wte.*", "*.wpe.*", "wte.*", "wpe.*"),
    "head": ("lm_head.*", "*.lm_head.*", "embed_out.*", "score.*"),
}
"""Groups that a recipe may name without saying what they are. The first that matches takes a tensor, in this order."""

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)(?:\.|$)")


def layer_of(tensor: str) -> int | None:
    """Return the number of the layer a tensor's name speaks of, or None for embeddings, head and the like."""
    found = _LAYER.search(tensor)
    return int(found.group(1)) if found else None


@dataclass(frozen=True)
class Layout:
    """The names of the tensors that a recipe touches, and what follows from them.

    `parts` has the layouts of the recipes that it is made of, by their keys, where they touch other tensors: those of
    a stack's slices do, whose merges group and measure depth within the slice.
    """

    tensors: tuple[str, ...]
    parts: "Mapping[str, Layout]" = field(default_factory=dict[str, "Layout"])

    def part(self, *key: str | int) -> "Layout":
        """Return the layout of one of the recipes that the recipe is made of, by its keys (models.0.model)."""
        return self.parts.get(".".join(map(str, key)), self)

    @cached_property
    def layers(self) -> int:
        """Number of layers: one more than the highest that a name speaks of."""
        return max((layer + 1 for name in self.tensors if (layer := layer_of(name)) is not None), default=0)

    def depth(self, tensor: str) -> float:
        """Return where a tensor stands: 0 for the first layer and all before it, 1 for the last and all after it."""
        layer = layer_of(tensor)
        if layer is None:
            return 0.0 if _matches(tensor, KNOWN_GROUPS["embeddings"]) else 1.0
        return layer / (self.layers - 1) if self.layers > 1 else 1.0


class GroupError(ValueError):
    """The groups of a merge do not fit its tensors; the message says which and what would."""


@dataclass(frozen=True)
class Grouping:
    """How one merge's tensors are grouped; `names` are the groups in their order."""

    per: Per
    own: Mapping[str, tuple[str, ...]]
    layout: Layout

    @classmethod
    def of(cls, merge: Merge, layout: Layout) -> "Grouping":
        """Return the grouping that a merge asks for."""
        return cls(merge.per, merge.groups, layout)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The groups that genes are made for.

        Raises GroupError for an unknown or empty group, or a tensor left over.
        """
        if self.per.trivial:
            return ()
        if self.per.tensor:
            return self.layout.tensors
        roles = self._checked_roles()
        if self.per.layers is None:
            return roles
        if self.per.layers > max(self.layout.layers, 1):
            raise GroupError(
                f"per: {self.per.layers} groups of layers are more than the {self.layout.layers} layers there are"
            )
        taken = {self.group(name) for name in self.layout.tensors}
        wanted = [self._joined(role, part) for role in (roles or ("",)) for part in range(self.per.layers)]
        return tuple(name for name in wanted if name in taken)

    def group(self, tensor: str) -> str | None:
        """Return a tensor's group, or None where all tensors are one group. Raises GroupError for one left over."""
        if self.per.trivial:
            return None
        if self.per.tensor:
            return tensor
        role = self._role(tensor) if self.per.groups else ""
        if role is None:
            raise GroupError(
                f"per: the tensor {tensor} belongs to none of {', '.join(self.per.groups)}; "
                f"add '{REST}' for what is left over"
            )
        if self.per.layers is None:
            return role
        return self._joined(role, self._part(tensor))

    def _joined(self, role: str, part: int) -> str:
        depth = f"layers_{part + 1}_of_{self.per.layers}"
        return f"{role}.{depth}" if role else depth

    def _part(self, tensor: str) -> int:
        """Return which part of the depth a tensor belongs to; what stands outside the layers joins the nearest."""
        parts, layers = self.per.layers or 1, max(self.layout.layers, 1)
        layer = layer_of(tensor)
        if layer is None:
            return 0 if self.layout.depth(tensor) == 0.0 else parts - 1
        return layer * parts // layers

    def _patterns(self, group: str) -> tuple[str, ...]:
        return self.own[group] if group in self.own else KNOWN_GROUPS[group]

    def _role(self, tensor: str) -> str | None:
        """Return the first group that takes the tensor: the recipe's own first, then the known ones in their order."""
        listed = [name for name in self.own if name in self.per.groups]
        listed += [name for name in KNOWN_GROUPS if name in self.per.groups and name not in self.own]
        for name in listed:
            if _matches(tensor, self._patterns(name)):
                return name
        return REST if REST in self.per.groups else None

    def _checked_roles(self) -> tuple[str, ...]:
        known = {*KNOWN_GROUPS, *self.own, REST}
        for name in self.per.groups:
            if name not in known:
                raise GroupError(
                    f"per: unknown group '{name}'; known are {', '.join(sorted(known))}, or define it under groups:"
                )
        found = {self._role(tensor) for tensor in self.layout.tensors}
        for name in self.per.groups:
            if name not in found and name != REST:
                raise GroupError(
                    f"per: the group '{name}' matches no tensor of these models; "
                    "remove it or set its patterns under groups:"
                )
        if None in found:
            self.group(next(tensor for tensor in self.layout.tensors if self._role(tensor) is None))
        return tuple(name for name in self.per.groups if name in found)


def _matches(tensor: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(tensor, pattern) for pattern in patterns)
