"""Engines of vLLM, one after the other: what tests ask of them, from standard input to standard output.

Run by the Python that has vLLM, whose import takes longer than an engine's start: each engine is a fork of a process
that has imported it. Input: `[{"model", "options", "steps"}]`; a step is `{"call", "argument"}` (a method of the worker
extension), `{"forget"}` (the prefix cache), or `{"ask": prompts, "adapter"}`, greedily, with logprobs.
"""

import json
import os
import sys
from importlib import import_module
from multiprocessing import get_context
from typing import Any

SETTINGS = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_AOT_COMPILE": "0",
}


def done(engine: Any, step: dict[str, Any]) -> Any:
    """What a step gives: the worker's answer, whether the cache is empty, or the texts with their logprobs."""
    vllm, requests = import_module("vllm"), import_module("vllm.lora.request")
    if "call" in step:
        (answer,) = engine.collective_rpc(step["call"], args=(json.dumps(step["argument"]),))
        return json.loads(answer)
    if "forget" in step:
        return engine.reset_prefix_cache()
    adapter = requests.LoRARequest("adapter", 1, step["adapter"]) if step.get("adapter") else None
    asked = vllm.SamplingParams(temperature=0, max_tokens=8, logprobs=2)
    outputs = engine.generate(step["ask"], asked, lora_request=adapter, use_tqdm=False)
    return [
        [output.outputs[0].text, [max(entry.values(), key=lambda found: found.logprob).logprob for entry in tokens]]
        for output in outputs
        if (tokens := output.outputs[0].logprobs) is not None
    ]


def answers(one: dict[str, Any]) -> list[Any]:
    """What one engine answers to its steps."""
    engine = import_module("vllm").LLM(
        one["model"],
        dtype="float32",
        enforce_eager=True,
        generation_config="vllm",
        worker_extension_cls="evomerge.backends.vllm.extension.Extension",
        **one["options"],
    )
    return [done(engine, step) for step in one["steps"]]


def main() -> None:
    os.environ |= SETTINGS
    asked = json.load(sys.stdin)
    told = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    import_module("vllm.v1.engine.llm_engine")
    forking = get_context("fork")
    results: list[list[Any]] = []
    for one in asked:
        ours, theirs = forking.Pipe(duplex=False)
        process = forking.Process(target=lambda one=one, to=theirs: to.send(answers(one)))
        process.start()
        theirs.close()
        results.append(ours.recv())  # EOFError where the engine failed
        process.join()
    with os.fdopen(told, "w") as out:
        json.dump(results, out)


if __name__ == "__main__":
    main()
