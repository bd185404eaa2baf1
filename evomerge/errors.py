"""Everything evomerge raises on purpose.

Each class carries the exit code the command line ends with; its message is one sentence for a person, naming the file,
the key and the fix where there is one. A library user catches the class, a command-line user reads the sentence.

    EvomergeError
    ├── ConfigError        a job, recipe, task or option is wrong                      78
    │   └── SourceError    a model folder, adapter or data file is missing or broken   78
    ├── StudyLocked        another process works on the study                          73
    ├── StudyChanged       the job is no longer the one the study was started with     78
    ├── StudyBroken        the journal cannot be read or replayed                      70
    ├── CandidateError     this recipe cannot be; the strategy is told                 70
    ├── BackendError       the backend failed; the trial is asked again                70
    ├── EndpointPaused     an endpoint must be waited for, or a person must act        75
    └── BudgetSpent        the budget in money or tokens covers no further request     75
"""

from typing import Literal


class EvomergeError(Exception):
    """Base of all errors a user can meet."""

    exit_code = 70


class ConfigError(EvomergeError):
    """What a person wrote cannot be used as it stands."""

    exit_code = 78


class SourceError(ConfigError):
    """A model, adapter or data file is missing, broken or does not fit the others."""


class StudyLocked(EvomergeError):
    """Another process holds the study's lock."""

    exit_code = 73


class StudyChanged(ConfigError):
    """The job differs from the one the study was started with, in something that may not change."""


class StudyBroken(EvomergeError):
    """The journal cannot be read, or its replay does not give what it holds."""


class CandidateError(EvomergeError):
    """One recipe cannot be built or held; the search goes on without it."""


class BackendError(EvomergeError):
    """The backend failed through no fault of the recipe; the same trial is to be asked again."""


class EndpointPaused(EvomergeError):
    """An endpoint asks to be left alone for a while, or a person must act."""

    exit_code = 75


class BudgetSpent(EvomergeError):
    """A request would pass the study's budget; `reason` says which part of it: usd or tokens.

    Nothing was sent. A study whose budget is raised goes on from there.
    """

    exit_code = 75

    def __init__(self, sentence: str, reason: Literal["usd", "tokens"] = "usd") -> None:
        super().__init__(sentence)
        self.reason: Literal["usd", "tokens"] = reason
