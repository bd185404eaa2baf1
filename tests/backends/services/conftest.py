"""What the tests of services share."""

from pathlib import Path

import pytest

from tests.backends.services.support import write_adapters


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three adapters on a disk."""
    return write_adapters(tmp_path_factory.mktemp("served"))
