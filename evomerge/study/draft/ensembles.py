"""Drafting an ensemble: endpoints are named by address and model, and each gets a weight that may be negative."""

import re
from collections.abc import Sequence
from pathlib import Path

from evomerge.errors import ConfigError
from evomerge.study.draft.tasks import draft_tasks, lines_for_endpoints
from evomerge.study.draft.words import Draft, count, drafted, quoted


def is_endpoint(name: str) -> bool:
    """Return whether a name is an address, not a folder or hub id."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) is not None


def draft_ensemble(
    endpoints: Sequence[str],
    data: Sequence[Path],
    *,
    keys: Sequence[str],
    question: str | None,
    answer: str | None,
    trials: int,
    folder: Path,
) -> Draft:
    """Return a job that will stand in `folder`, over endpoints written as `https://host/v1#model`.

    `keys` are the environment variables that hold the keys: none, one for all, or one for each endpoint. Raises
    ConfigError for an endpoint that cannot be, and where a data file's fields are not recognised.
    """
    if len(set(endpoints)) < 2:
        raise ConfigError(f"{endpoints[0]}: one endpoint alone leaves nothing to combine; name another")
    twice = next((name for name in endpoints if endpoints.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice}: this endpoint is named twice; name it once")
    if len(keys) not in (0, 1, len(endpoints)):
        raise ConfigError(
            f"--api-key-env: {count(len(keys), 'variable')} for {len(endpoints)} endpoints; name one for all, or one "
            "for each in their order"
        )
    lines = [
        "# A search for the best vote of these models; every {low, high} is a hole that the search fills.",
        "# Check it with `evomerge check`, run it with `evomerge run`; the reference lists every key.",
        "recipe:",
        "  combine: vote    # the answer that most weight speaks for",
        "  members:    # a weight below 0 speaks against what its member says",
    ]
    written: dict[str, list[str]] = {}
    for index, endpoint in enumerate(endpoints):
        address, model = _parts(endpoint)
        variable = keys[index % len(keys)] if keys else None
        name = _name(model, list(written))
        lines.append(f"    - {{endpoint: {quoted(name)}, weight: {{low: -1, high: 1, start: 0.5}}}}")
        written[name] = [
            f"  {quoted(name)}:",
            f"    url: {quoted(address)}",
            f"    model: {quoted(model)}",
            "    # api_key_env: MY_KEY    # the environment variable that holds the key"
            if variable is None
            else f"    api_key_env: {variable}    # the environment variable that holds the key",
            "    # usd_per_mtok: [0.1, 0.4]    # of tokens read and written: `evomerge check` tells the highest cost",
        ]
    lines += ["endpoints:", *(line for part in written.values() for line in part)]
    lines += [
        *lines_for_endpoints(draft_tasks(data, folder, question, answer)),
        "search:",
        "  strategy: cma",
        f"  trials: {trials}    # they cost nothing: every endpoint is asked every item once",
        "  seed: 0",
        "# The result is the ensemble's recipe in studies/, with a report.",
    ]
    chosen = f"{count(len(endpoints), 'gene')} for {count(len(endpoints), 'endpoint')}"
    return drafted(lines, folder, [chosen])


def _parts(endpoint: str) -> tuple[str, str]:
    """Return address and model."""
    address, _, model = endpoint.partition("#")
    if not model:
        raise ConfigError(f"{endpoint}: which model? Add its name, as in {address}#model")
    return address, model


def _name(model: str, taken: Sequence[str]) -> str:
    """Return a name for an endpoint that fits a job and that no other has."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rpartition("/")[2]).strip("-._") or "model"
    number = 1
    while (found := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return found
