"""The model card of an exported merge: what it was made of, how, and how to load it.

Only names that a person wrote stand in it, no paths of the machine that made it.
"""

import yaml

from evomerge.backends.weights.loss import Loss
from evomerge.recipe.tree import Source, WeightRecipe, sources


def model_card(
    recipe: WeightRecipe,
    *,
    title: str,
    base: Source | None,
    loss: Loss | None,
    mergekit: str,
    recipe_yaml: str,
    extra: str,
) -> str:
    """Return README.md of a merge.

    `recipe` has its sources as written; `base` is that of a merge that became an adapter, and `loss` what it lacks;
    `mergekit` is a sentence about mergekit's YAML; `extra` is Markdown that follows.
    """
    models = list(dict.fromkeys(source.model for source in sources(recipe)))
    header = {
        "base_model": models,
        "library_name": "transformers" if base is None else "peft",
        "tags": ["merge", "evomerge"] if base is None else ["merge", "evomerge", "lora"],
    }
    kind = "merge of language models" if base is None else f"merged LoRA adapter for {_code(base.model)}"
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        f"A {kind}, made with evomerge from:",
        "\n".join(f"- {_code(_named(source))}" for source in dict.fromkeys(sources(recipe))),
        "## Recipe",
        f"````yaml\n{recipe_yaml}````",
        mergekit,
        *(() if loss is None else ("## What the rank leaves out", loss.sentences(), _errors(loss))),
        "## Loading",
        f"````python\n{_loading(base)}````",
    ]
    return "\n\n".join([*parts, *([extra.strip()] if extra.strip() else [])]) + "\n"


def _errors(loss: Loss) -> str:
    rows = [f"| {_code(name)} | {error:.2%} |" for name, error in loss.modules.items()]
    return "\\n".join(["| module | relative error |", "|---|---:|", *rows])


def _named(source: Source) -> str:
    return source.model if source.revision is None else f"{source.model}@{source.revision}"


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _loading(base: Source | None) -> str:
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if base is None:
        lines += ['model = AutoModelForCausalLM.from_pretrained(".")']
    else:
        lines[:1] = ["from peft import PeftModel", lines[0]]
        lines += [
            f"base = AutoModelForCausalLM.from_pretrained({base.model!r})",
            'model = PeftModel.from_pretrained(base, ".")',
        ]
    return "\n".join([*lines, 'tokenizer = AutoTokenizer.from_pretrained(".")']) + "\n"
