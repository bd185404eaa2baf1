"""What evomerge adds to a worker of vLLM: `--worker-extension-cls evomerge.backends.vllm.extension.Extension`.

Its methods take one JSON string and return one; vLLM calls them in every worker (`/collective_rpc`). They never raise,
as that would end the engine: what went wrong is in the answer, `{"error": sentence, "kind": ...}`. What it trusts: who
may call it names folders that it reads and modules that it imports.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

from evomerge.errors import CandidateError, ConfigError, EvomergeError

log = logging.getLogger(__name__)


class Extension:
    """Mixed into the worker's class by vLLM; keeps all that it knows in one attribute."""

    def evomerge_open(self, argument: str) -> str:
        """Open the models of `{"recipe": wire, "experts": place}` and hold them where the place says.

        Answers `{"ok": true, "plan": {"place", "device", "models": {name: bytes}, "work": bytes}}`.
        """
        return _answer(lambda told: _keeper(self).open(told["recipe"], told.get("experts", "auto")), argument)

    def evomerge_hold(self, argument: str) -> str:
        """Swap in the weights of `{"recipe": wire, "id": recipe_id}`; who calls empties the prefix cache then.

        Answers `{"ok": true, "seconds": {"open", "check", "merge", "load"}}`. Where it fails before a tensor was
        touched, the model is what it was; later, it is torn until the next swap, as `evomerge_state` says.
        """
        return _answer(lambda told: _keeper(self).hold(told["recipe"], told["id"]), argument)

    def evomerge_state(self, argument: str) -> str:
        """Answer `{"ok": true, "holds": id or null, "torn": bool, "model", "device", "place", "versions"}`."""
        return _answer(lambda _: _keeper(self).state(), argument)


def _keeper(worker: Any) -> Any:
    """Return what does a worker's work; made when it is first needed, since it imports torch and vLLM."""
    from evomerge.backends.vllm.keeper import Keeper

    if not hasattr(worker, "_evomerge"):
        worker._evomerge = Keeper(worker)
    return worker._evomerge


def _answer(work: Callable[[Mapping[str, Any]], Mapping[str, Any]], argument: str) -> str:
    try:
        told: Any = json.loads(argument)
        if not isinstance(told, dict):
            raise ConfigError("the worker extension takes one JSON object")
        return json.dumps({"ok": True, **work(cast("dict[str, Any]", told))})
    except (SystemExit, KeyboardInterrupt):  # the process is to end
        raise
    except EvomergeError as error:
        kinds = {"candidate": CandidateError, "config": ConfigError}
        kind = next((name for name, raised in kinds.items() if isinstance(error, raised)), "backend")
        return json.dumps({"error": str(error), "kind": kind})
    except BaseException as error:
        log.exception("evomerge's extension of the worker failed")
        said = (str(error).strip() or "no reason is given").splitlines()[0]
        return json.dumps({"error": f"the worker failed ({type(error).__name__}: {said})", "kind": "backend"})
