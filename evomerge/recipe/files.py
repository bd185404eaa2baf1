"""Reading a file that a person named: its bytes, or one sentence that says why there are none.

What the bytes mean, and whether they are text at all, is for whoever asked.
"""

from pathlib import Path

from evomerge.errors import ConfigError


def read_file(
    path: Path, name: str, *, wanted: str, relative: str = "", error: type[ConfigError] = ConfigError
) -> bytes:
    """Return the bytes of a file. Raises `error` for one that is missing, a folder, or not to be read.

    The sentence calls the file `name` and says that it is to be `wanted`; `relative` is added where the file is
    missing, to say what its path counts from.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise error(f"{name}: there is no such file; check the path{relative}") from None
    except IsADirectoryError:
        raise error(f"{name}: this is a folder; name the {wanted} in it") from None
    except OSError as problem:
        raise error(f"{name}: the file cannot be read ({problem.strerror}); check its permissions") from None
