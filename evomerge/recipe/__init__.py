"""Recipes, holes and spaces: how models are combined, and what a search may change. Pure but for YAML files."""
