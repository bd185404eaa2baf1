"""The embedded default: transformers and torch in this process, one model in memory, one recipe held at a time.

`backend` is the asynchronous door, `work` its one thread. There `engine` holds the recipe: `resident` writes weights,
`lowrank` puts adapters on, `text` is the tokenizer, `generating` (with `sampling`) and `judging` answer. torch is
imported by the first recipe, not by importing this.
"""

from evomerge.backends.local.backend import LocalBackend

__all__ = ["LocalBackend"]
