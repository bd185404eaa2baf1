"""Lets `python -m evomerge` do what `evomerge` does."""

from evomerge.cli.main import main

main()
