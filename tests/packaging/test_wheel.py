"""The wheel, as a user gets it: built through the sdist, installed in an environment of its own, used from elsewhere.

Installing takes the pinned core dependencies from the package index pip is set up for; the heavy extras are left out,
so this is also the test that the core works without torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from evomerge.version import __version__

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command that has to succeed; its errors are shown otherwise."""
    # without the variables that would let the checkout, or the environment of the tests, be found from elsewhere
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "COV"))
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Built:
    """The two archives of one build."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("dist")
    # without --sdist or --wheel, `build` makes the wheel from the sdist and not from the checkout
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, REPOSITORY, cwd=out)
    return Built(sdist=next(out.glob("*.tar.gz")), wheel=next(out.glob("*.whl")))


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that holds the wheel and its core dependencies."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
    options = ["--no-input", "--disable-pip-version-check", "--no-compile"]
    run(
        *pip, "install", *options, "--constraint", REPOSITORY / "requirements" / "dev.txt", built.wheel, cwd=environment
    )
    return environment / "bin"


def files_of_the_package() -> set[str]:
    """What git knows of evomerge/, or would add."""
    listed = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "evomerge", cwd=REPOSITORY
    )
    return {name for name in listed.split("\0") if name and (REPOSITORY / name).exists()}


def files_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_every_room_of_evomerge_and_nothing_else(built: Built) -> None:
    held = files_in(built.wheel)
    metadata = {name for name in held if name.startswith(f"evomerge-{__version__}.dist-info/")}
    assert held - metadata == files_of_the_package()
    assert f"evomerge-{__version__}.dist-info/licenses/LICENSE" in metadata


def test_the_sdist_holds_the_package_once_and_what_building_needs(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        held = {str(PurePosixPath(*PurePosixPath(member.name).parts[1:])) for member in archive if not member.isdir()}
    around = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO", ".gitignore"}
    assert held - around == files_of_the_package()
    assert {"pyproject.toml", "README.md", "LICENSE"} <= held


def test_the_installed_package_is_found_from_elsewhere_and_brings_no_torch(installed: Path, tmp_path: Path) -> None:
    code = "import evomerge; from importlib.util import find_spec as find; print(evomerge.__file__, find('torch'))"
    file, torch = run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.parent)
    assert torch == "None"


def test_the_installed_command_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert __version__ in run(installed / "evomerge", "--version", cwd=tmp_path)


def test_the_installed_command_shows_its_help_without_the_extras(installed: Path, tmp_path: Path) -> None:
    assert "run" in run(installed / "evomerge", "--help", cwd=tmp_path)
