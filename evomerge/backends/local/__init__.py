"""The embedded default: transformers and torch in this process, one model in memory, one recipe held at a time.

`backend` is the asynchronous door; behind it one thread does all the work: `engine` holds the recipe, `resident` the
model's weights, `lowrank` adapters, `text` the tokenizer, `generating` and `judging` answer. torch is imported by the
first recipe, not by importing this.
"""

from evomerge.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
