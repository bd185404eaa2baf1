"""Checkpoints and adapters on disk: opening, checking, merging tensor by tensor, exporting."""
