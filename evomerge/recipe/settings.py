"""The base of every typed setting that a job can hold.

Each room defines the settings it reads, as `Settings` models beside the code that reads them; the JSON schema, the
reference and the messages about wrong input come from their fields, so a field has a description. Values are strict: a
string is never taken for a number, nor "no" for false.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of settings. Unknown keys are errors."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
