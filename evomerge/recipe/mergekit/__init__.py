"""mergekit's YAML read as a recipe; how a recipe is written as mergekit's YAML is decided where tensors are known."""
