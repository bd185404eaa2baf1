"""Drafting a job: from models and data files to a commented YAML file that runs."""

from evomerge.study.draft.ensembles import draft_ensemble, is_endpoint
from evomerge.study.draft.merges import draft_merge
from evomerge.study.draft.words import Draft

__all__ = ["Draft", "draft_ensemble", "draft_merge", "is_endpoint"]
