"""Stand-ins for services that hold adapters, on loopback, as their documentation has them with their quirks.

Each serves a real small model: what it answers is computed from the base and the adapters that a request names, in the
way of that service, so that weights decide answers. They share the plumbing and the arithmetic below, and nothing of
what is tested. Requests come over sockets from this process or others; what was asked is kept.
"""

import json
import math
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.endpoint import Reply

Factors = dict[str, tuple[Tensor, Tensor]]
"""A and B of each module of an adapter, as they are stored."""
S = TypeVar("S", bound="StandIn")


@dataclass(frozen=True)
class Lora:
    """An adapter as it was read: its factors, its rank, and what its change is multiplied with."""

    factors: Factors
    rank: int
    scale: float

    @classmethod
    def read(cls, folder: Path) -> "Lora":
        config = json.loads((folder / "adapter_config.json").read_text())
        stored = load_file(folder / "adapter_model.safetensors")
        prefix, factors = "base_model.model.", Factors()
        for name, a in stored.items():
            if ".lora_A." in name:
                module = name.removeprefix(prefix).partition(".lora_A.")[0]
                factors[module] = (a.float(), stored[name.replace(".lora_A.", ".lora_B.")].float())
        rank, alpha = config["r"], config["lora_alpha"]
        return cls(factors, rank, alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def product(factors: Factors, scale: float) -> dict[str, Tensor]:
    """Return what an adapter adds to each weight."""
    return {module: scale * (b @ a) for module, (a, b) in factors.items()}


class Tiny:
    """A small model that answers with changed weights, one text at a time."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._weights = dict(self._model.named_parameters())
        self.positions: int = self._model.config.max_position_embeddings
        self._lock = threading.Lock()

    def tokens(self, prompt: str) -> list[int]:
        return self._tokenizer.encode(prompt)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        return self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)

    def changed(self, *deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = dict(self._weights)
        for delta in deltas:
            for module, change in delta.items():
                weights[f"{module}.weight"] = weights[f"{module}.weight"] + change
        return weights

    def generate(
        self, weights: Mapping[str, Tensor], ids: Sequence[int], most: int, stops: Sequence[str] = ()
    ) -> tuple[str, str, int]:
        """Return the greedy text (with the stop string that ended it), why it ended (eos, stop, length), its tokens."""
        written: list[int] = []
        while len(written) < most and len(ids) + len(written) < self.positions:
            token = int(self._logits(weights, [*ids, *written])[-1].argmax())
            written.append(token)
            if token == self._tokenizer.eos_token_id:
                return self._text(written), "eos", len(written)
            if any(stop in self._text(written) for stop in stops):
                return self._text(written), "stop", len(written)
        return self._text(written), "length", len(written)

    def logprobs(self, weights: Mapping[str, Tensor], ids: Sequence[int]) -> list[float | None]:
        """Return the log-probability of each token, None for the first."""
        found = torch.log_softmax(self._logits(weights, ids).double(), -1)
        return [None, *(float(found[at, token]) for at, token in enumerate(ids[1:]))]

    def _logits(self, weights: Mapping[str, Tensor], ids: Sequence[int]) -> Tensor:
        with self._lock, torch.no_grad():
            return functional_call(self._model, dict(weights), (torch.tensor([list(ids)]),)).logits[0]

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


class StandIn:
    """A running server. `asked` are the bodies of all requests for answers, `refused` counts what it would not do."""

    ANSWERS: tuple[str, ...] = ()

    def __init__(self, base: Path, *, key: str | None = None) -> None:
        self.tiny = Tiny(base)
        self.base = base
        self.key = key
        self.asked: list[dict[str, Any]] = []
        self.seen: list[str] = []
        self.most_at_once = 0
        self.refused = 0
        self.fails: list[Reply] = []
        self._at_once = 0
        self._left: int | None = None
        self._change = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.stand_in = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def hold_after(self, answers: int | None) -> None:
        """Answer so many more requests and let all others wait; None answers everything again."""
        with self._change:
            self._left = answers
            self._change.notify_all()

    def wait_until_holding(self) -> None:
        with self._change:
            assert self._change.wait_for(lambda: self._left == 0 and self._at_once > 0, timeout=60)

    def close(self) -> None:
        self.hold_after(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, method: str, path: str, body: Any, key: str | None) -> Reply:
        with self._change:
            self.seen.append(f"{method} {path}")
        if self.key is not None and key != f"Bearer {self.key}":
            return Reply(401, {"error": {"message": f"Invalid API Key {key}"}})
        if path not in self.ANSWERS:
            return self.tell(method, path, body)
        with self._change:
            self.asked.append(body)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._change.notify_all()
            self._change.wait_for(lambda: self._left is None or self._left > 0)
            if self._left is not None:
                self._left -= 1
            failing = self.fails.pop(0) if self.fails else None
        try:
            reply = failing or self.answer(path, body)
            self.refused += reply.status != 200
            return reply
        finally:
            with self._change:
                self._at_once -= 1
                self._change.notify_all()

    def tell(self, method: str, path: str, body: Any) -> Reply:
        """Answer whatever is no request for an answer."""
        raise NotImplementedError

    def answer(self, path: str, body: Any) -> Reply:
        """Answer a request for an answer."""
        raise NotImplementedError


class LlamaCppServer(StandIn):
    """llama.cpp's server, started with adapters: `--lora` for each, at scale 1 for everybody.

    Quirks: what a request leaves out keeps the scale for everybody, an empty list changes nothing, and an answer to a
    prompt that may be cached begins with what the scales before it computed.
    """

    ANSWERS = ("/completion", "/v1/chat/completions")

    def __init__(self, base: Path, adapters: Mapping[str, Path], *, key: str | None = None) -> None:
        self.adapters = {name: Lora.read(folder) for name, folder in adapters.items()}
        self.files = [f"/models/{name}.gguf" for name in adapters]
        self.scales = [1.0] * len(adapters)
        self.sets_at_once = 0
        self._sets: list[tuple[float, ...]] = []
        self._before: tuple[float, ...] | None = None
        super().__init__(base, key=key)

    def tell(self, method: str, path: str, body: Any) -> Reply:
        match method, path:
            case "GET", "/props":
                return Reply(body={"model_path": "/models/base.gguf", "build_info": "b1-stand-in", "total_slots": 4})
            case "GET", "/v1/models":
                meta = {"n_params": 1, "size": 2, "n_vocab": 3}
                return Reply(body={"object": "list", "data": [{"id": "base.gguf", "object": "model", "meta": meta}]})
            case "GET", "/lora-adapters":
                loaded = zip(self.files, self.scales, strict=True)
                return Reply(body=[{"id": at, "path": file, "scale": s} for at, (file, s) in enumerate(loaded)])
            case _:
                return Reply(404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}})

    def answer(self, path: str, body: Any) -> Reply:
        scales = list(self.scales)
        for one in body.get("lora") or []:
            if not 0 <= one["id"] < len(scales):
                return Reply(400, {"error": {"code": 400, "message": "invalid adapter id", "type": "invalid_request"}})
            scales[one["id"]] = one["scale"]
        with self._change:
            self._sets.append(tuple(scales))
            self.sets_at_once = max(self.sets_at_once, len(set(self._sets)))
        try:
            return self._generated(path, body, tuple(scales))
        finally:
            with self._change:
                self._sets.remove(tuple(scales))

    def _generated(self, path: str, body: Any, scales: tuple[float, ...]) -> Reply:
        before, self._before = self._before, scales
        used = before if body.get("cache_prompt", True) and before is not None else scales
        deltas = [product(one.factors, s * one.scale) for one, s in zip(self.adapters.values(), used, strict=True)]
        chat = path != "/completion"
        prompt = self.tiny.chat(body["messages"]) if chat else body["prompt"]
        ids = self.tiny.tokens(prompt)[1 if chat else 0 :]  # the template writes <bos> itself
        most = body.get("max_tokens" if chat else "n_predict", -1)
        text, why, written = self.tiny.generate(
            self.tiny.changed(*deltas), ids, most if most >= 0 else 10_000, body.get("stop") or []
        )
        for stop in body.get("stop") or []:
            text = text.partition(stop)[0]
        if chat:
            finish = "length" if why == "length" else "stop"
            usage = {"prompt_tokens": len(ids), "completion_tokens": written}
            message = {"role": "assistant", "content": text}
            return Reply(body={"choices": [{"message": message, "finish_reason": finish}], "usage": usage})
        stop_type = {"length": "limit", "eos": "eos", "stop": "word"}[why]
        counts = {"tokens_evaluated": len(ids), "tokens_predicted": written, "truncated": False}
        return Reply(body={"content": text, "stop_type": stop_type, "stop": True, **counts})


class LoraxServer(StandIn):
    """LoRAX: adapters in folders, merged by their factors when a request first names such a merge.

    Quirks: a merge of one adapter ignores its weight; ranks must be equal; the scale of the first holds for all; DARE
    draws its masks anew at each load and scales nothing up; an answer holds the stop string that ended it.
    """

    ANSWERS = ("/generate",)

    def __init__(self, base: Path, adapters: Mapping[str, Path], *, key: str | None = None, cached: int = 4) -> None:
        self.adapters = dict(adapters)
        self.loads = 0
        self.cached = cached
        self._merges: dict[str, dict[str, Tensor]] = {}
        self._dice = torch.Generator().manual_seed(0)
        super().__init__(base, key=key)

    def tell(self, method: str, path: str, body: Any) -> Reply:
        if (method, path) == ("GET", "/info"):
            return Reply(body={"model_id": "tiny/base", "model_sha": "abc", "model_dtype": "torch.float32"})
        return Reply(404)

    def answer(self, path: str, body: Any) -> Reply:
        parameters = body.get("parameters") or {}
        inputs, most = body["inputs"], parameters.get("max_new_tokens")
        if parameters.get("apply_chat_template"):
            inputs = self.tiny.chat(json.loads(inputs))
        ids = self.tiny.tokens(inputs)[1 if parameters.get("apply_chat_template") else 0 :]
        complaint = self._invalid(inputs, ids, parameters)
        if complaint is not None:
            return Reply(422, {"error": f"Input validation error: {complaint}", "error_type": "validation"})
        try:
            with self._change:
                weights = self._loaded(parameters)
        except ValueError as error:
            return Reply(424, {"error": f"Request failed during generation: {error}", "error_type": "generation"})
        stops = parameters.get("stop") or []
        text, why, written = self.tiny.generate(weights, ids, most, stops)
        finish = {"length": "length", "eos": "eos_token", "stop": "stop_sequence"}[why]
        details = {"finish_reason": finish, "prompt_tokens": len(ids), "generated_tokens": written, "prefill": []}
        if parameters.get("decoder_input_details"):
            told = zip(ids, self.tiny.logprobs(weights, ids), strict=True)
            details["prefill"] = [{"id": one, "text": "?", "logprob": logprob} for one, logprob in told]
        return Reply(body={"generated_text": text, "details": details})

    def _invalid(self, inputs: str, ids: Sequence[int], parameters: Mapping[str, Any]) -> str | None:
        most, merged = parameters.get("max_new_tokens", 0), parameters.get("merged_adapters")
        checks = {
            "`inputs` cannot be empty": not inputs,
            "`max_new_tokens` must be strictly positive": most <= 0,
            "`temperature` must be strictly positive": parameters.get("temperature", 1.0) <= 0,
            "`top_p` must be > 0.0 and < 1.0": not 0 < parameters.get("top_p", 0.5) < 1,
            "`stop` supports up to 4 stop sequences": len(parameters.get("stop") or []) > 4,
            "`inputs` tokens + `max_new_tokens` must be <= the model's": len(ids) + most > self.tiny.positions + 1,
            "at most one of `adapter_id` or `adapters` may be provided": bool(merged and parameters.get("adapter_id")),
            "number of adapter IDs must match number of adapter weights": bool(
                merged and len(merged["ids"]) != len(merged["weights"])
            ),
        }
        return next((words for words, wrong in checks.items() if wrong), None)

    def _loaded(self, parameters: Mapping[str, Any]) -> dict[str, Tensor]:
        merged = parameters.get("merged_adapters")
        ids = [parameters["adapter_id"]] if parameters.get("adapter_id") else (merged or {"ids": []})["ids"]
        if not ids:
            return self.tiny.changed()
        key = json.dumps([ids, merged if len(ids) > 1 else None])
        if key not in self._merges:
            self.loads += 1
            self._merges[key] = self.tiny.changed(self._merged([self._read(one) for one in ids], merged or {}))
            while len(self._merges) > self.cached:
                del self._merges[next(iter(self._merges))]
        return self._merges[key]

    def _read(self, adapter: str) -> Lora:
        if adapter not in self.adapters:
            raise ValueError(f"Repository Not Found for {adapter}")
        return Lora.read(self.adapters[adapter])

    def _merged(self, loras: Sequence[Lora], merged: Mapping[str, Any]) -> dict[str, Tensor]:
        if len(loras) == 1:
            return product(loras[0].factors, loras[0].scale)
        ranks = {one.rank for one in loras}
        if len(ranks) > 1:
            raise ValueError(f"unable to merge adapters, lora configs have different ranks: {ranks}")
        method, density = merged.get("merge_strategy", "linear"), merged.get("density", 0.0)
        sign = merged.get("majority_sign_method", "total")
        factors = Factors()
        for module in dict.fromkeys(name for one in loras for name in one.factors):
            there = [(one.factors[module], w) for one, w in zip(loras, merged["weights"], strict=True)
                     if module in one.factors]  # fmt: skip
            weights = torch.tensor([w for _, w in there])
            a, b = (
                self._combined(torch.stack([of[at] for of, _ in there]), weights, method, density, sign)
                for at in (0, 1)
            )
            factors[module] = (a, b)
        return product(factors, loras[0].scale)

    def _combined(self, stacked: Tensor, weights: Tensor, method: str, density: float, sign: str) -> Tensor:
        if method == "ties" and density < 1:
            stacked = torch.stack([_largest(one, density) for one in stacked])
        if method.startswith("dare") and density < 1:
            stacked = stacked * torch.bernoulli(torch.full_like(stacked, density), generator=self._dice)
        weighted = stacked * weights.view(-1, *[1] * (stacked.dim() - 1))
        if not method.endswith("ties"):
            return weighted.sum(0)
        votes = stacked.sum(0) if sign == "total" else stacked.sign().sum(0)
        agree = stacked.sign() == torch.where(votes >= 0, 1, -1)
        return (weighted * agree).sum(0) / agree.sum(0).clamp(min=1)


class VllmServer(StandIn):
    """vLLM with adapters: `--enable-lora`, some served from the start and others loaded while it runs.

    Quirks: a name is loaded once, a rank above the highest is an error of the server's own, and a name that is not
    there is not found.
    """

    ANSWERS = ("/v1/completions", "/v1/chat/completions", "/tokenize")

    def __init__(
        self, base: Path, adapters: Mapping[str, Path], *, key: str | None = None, widest: int = 64, loads: bool = True
    ) -> None:
        self.served = {name: (folder, Lora.read(folder)) for name, folder in adapters.items()}
        self.widest, self.may_load = widest, loads
        self.loaded: list[str] = []
        super().__init__(base, key=key)

    def tell(self, method: str, path: str, body: Any) -> Reply:
        match method, path:
            case "GET", "/v1/models":
                base = {"id": "base", "root": str(self.base), "parent": None, "max_model_len": self.tiny.positions}
                served = [{"id": n, "root": str(f), "parent": "base"} for n, (f, _) in self.served.items()]
                return Reply(body={"data": [base, *served]})
            case "POST", "/v1/load_lora_adapter" if self.may_load:
                return self._load(body)
            case "POST", "/v1/unload_lora_adapter" if self.may_load:
                if self.served.pop(body["lora_name"], None) is None:
                    return _error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
                return Reply(body=f"Success: LoRA adapter '{body['lora_name']}' removed successfully.")
            case _:
                return Reply(404, {"detail": "Not Found"})

    def _load(self, body: Any) -> Reply:
        if not body.get("lora_name") or not body.get("lora_path"):
            return _error(400, "Both 'lora_name' and 'lora_path' must be provided.")
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self.served:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if not folder.is_dir():
            return _error(404, f"Loading lora {name} failed: No adapter found for {folder}")
        lora = Lora.read(folder)
        if lora.rank > self.widest:
            return _error(500, f"LoRA rank {lora.rank} is greater than max_lora_rank {self.widest}.")
        self.served[name] = (folder, lora)
        self.loaded.append(name)
        return Reply(body=f"Success: LoRA adapter '{name}' added successfully.")

    def answer(self, path: str, body: Any) -> Reply:
        if path == "/tokenize":
            return Reply(body={"tokens": self.tiny.tokens(body["prompt"]), "count": 0})
        name = body["model"]
        if name != "base" and name not in self.served:
            return _error(404, f"The model `{name}` does not exist.")
        lora = None if name == "base" else self.served[name][1]
        weights = self.tiny.changed() if lora is None else self.tiny.changed(product(lora.factors, lora.scale))
        prompt = body.get("prompt")
        if path == "/v1/chat/completions":
            ids = self.tiny.tokens(self.tiny.chat(body["messages"]))[1:]
        else:
            ids = cast("list[int]", prompt) if isinstance(prompt, list) else self.tiny.tokens(str(prompt))
        stops = body.get("stop") or []
        text, why, written = self.tiny.generate(weights, ids, body["max_tokens"], stops)
        for stop in stops:
            text = text.partition(stop)[0]
        choice: dict[str, Any] = {"finish_reason": "length" if why == "length" else "stop"}
        choice |= {"text": text} if prompt is not None else {"message": {"role": "assistant", "content": text}}
        if "prompt_logprobs" in body:
            told = zip(ids, self.tiny.logprobs(weights, ids), strict=True)
            choice["prompt_logprobs"] = [None if p is None else {str(one): {"logprob": p}} for one, p in told]
        usage = {"prompt_tokens": len(ids), "completion_tokens": written}
        return Reply(body={"choices": [choice], "usage": usage})


def _largest(tensor: Tensor, density: float) -> Tensor:
    mask = torch.zeros(tensor.numel())
    mask[tensor.abs().flatten().topk(int(density * tensor.numel())).indices] = 1
    return tensor * mask.view_as(tensor)


def _error(status: int, message: str) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "Error", "code": status}})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stand_in: StandIn

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed or give up are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        self._reply("GET", None)

    def do_POST(self) -> None:
        self._reply("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _reply(self, method: str, body: Any) -> None:
        stand_in = cast(_Server, self.server).stand_in
        reply = stand_in.serve(method, self.path, body, self.headers.get("Authorization"))
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        try:
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read what the program prints, not what the server would."""


@contextmanager
def running(server: S) -> Generator[S]:
    """Run a stand-in while inside."""
    try:
        yield server
    finally:
        server.close()
