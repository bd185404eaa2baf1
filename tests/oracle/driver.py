"""Runs merges with mergekit, in mergekit's own environment: one process for all, since starting it takes seconds.

Takes a folder: every NAME.yaml in it becomes the folder NAME beside it, or NAME.error with the reason why it did not;
`methods` lists the methods that there are.
This file is run by another Python; nothing of ours imports it.
"""

import sys
import traceback
from pathlib import Path

import torch
import yaml
from mergekit.config import MergeConfiguration  # pyright: ignore[reportMissingImports]
from mergekit.merge import run_merge  # pyright: ignore[reportMissingImports]
from mergekit.merge_methods.registry import registered_methods  # pyright: ignore[reportMissingImports]
from mergekit.options import MergeOptions  # pyright: ignore[reportMissingImports]

torch.set_num_threads(1)
folder = Path(sys.argv[1])
(folder / "methods").write_text("\n".join(method.spec.name for method in registered_methods()), encoding="utf-8")
for file in sorted(folder.glob("*.yaml")):
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, random_seed=1)
    try:
        config = MergeConfiguration.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        run_merge(config, str(file.with_suffix("")), options)
    except Exception:  # whatever goes wrong is the test's to judge
        file.with_suffix(".error").write_text(traceback.format_exc(), encoding="utf-8")
