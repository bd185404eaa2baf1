"""Serving: a recipe without holes as an OpenAI-compatible endpoint of its own."""
