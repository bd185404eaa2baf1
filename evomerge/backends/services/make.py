"""From a job's settings to the backend of a merging service, and from its word to a recipe's fingerprints."""

from collections.abc import Mapping
from pathlib import Path

from evomerge.backends.api.client import Pace
from evomerge.backends.services.backend import ServiceBackend
from evomerge.backends.services.dialect import Dialect
from evomerge.backends.services.leftovers import Leftovers
from evomerge.backends.services.line import Line
from evomerge.backends.services.llama_cpp import NO_LIKELIHOODS, LlamaCpp
from evomerge.backends.services.lorax import Lorax
from evomerge.backends.services.settings import ServiceSettings
from evomerge.backends.services.vllm import Vllm
from evomerge.errors import ConfigError


def service_backend(
    settings: ServiceSettings,
    *,
    root: Path,
    folder: Path,
    environment: Mapping[str, str],
    pace: Pace | None = None,
) -> ServiceBackend:
    """Return the backend of a service. Nothing is asked yet.

    `root` is the job's folder, `folder` the study's, where it is noted what has to be taken back. Raises ConfigError
    where the key is not in the environment.
    """
    shared = None if settings.folder is None else (root / Path(settings.folder).expanduser()).absolute()

    def speaking(line: Line) -> Dialect:
        match settings.dialect:
            case "lorax":
                return Lorax(line, settings.source)
            case "llama.cpp":
                return LlamaCpp(line)
            case "vllm":
                return Vllm(line, settings.url, shared, Leftovers(folder))

    return ServiceBackend(settings, _key(settings, environment), speaking, pace)


def no_likelihoods(settings: ServiceSettings) -> str | None:
    """Return why a service tells no likelihoods of given texts, None where it does."""
    return NO_LIKELIHOODS if settings.dialect == "llama.cpp" else None


def _key(settings: ServiceSettings, environment: Mapping[str, str]) -> str | None:
    variable = settings.api_key_env
    if variable is None:
        return None
    key = environment.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"backend.api_key_env: the environment variable {variable} is not set; put the server's key in it"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"backend.api_key_env: {variable} holds characters that no key has; look at it")
    return key
