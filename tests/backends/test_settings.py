"""The settings of backends refuse what no backend can do."""

import pytest
from pydantic import ValidationError

from evomerge.backends.settings import LocalSettings


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:3", "mps"])
def test_devices_are_torchs_names_or_auto(device: str) -> None:
    assert LocalSettings(device=device).device == device


@pytest.mark.parametrize(
    "wrong",
    [{"device": "gpu"}, {"device": "cuda:"}, {"batch_size": 0}, {"threads": 0}, {"dtype": "int8"}, {"speed": 1}],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LocalSettings.model_validate(wrong)
