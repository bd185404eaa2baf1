"""The registry knows our methods and other people's, without torch, and survives a broken plugin."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.errors import ConfigError
from evomerge.strategies.merge import registry
from evomerge.strategies.merge.protocol import Needs
from evomerge.strategies.merge.registry import get, method, methods

OURS = [
    "arcee_fusion",
    "breadcrumbs",
    "breadcrumbs_ties",
    "consensus",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "emr",
    "karcher",
    "layer_swap",
    "linear",
    "lines",
    "magmax",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "pcb",
    "ram",
    "ram_plus",
    "sce",
    "slerp",
    "task_arithmetic",
    "ties",
    "widen",
]

PLUGIN = """
from evomerge.strategies.merge.protocol import Needs
from evomerge.strategies.merge.registry import method

@method("{name}", title="First", needs=Needs("unused", (1, None)), parameters=(), source="nobody", evidence="R")
def {name}(ctx, base, inputs, params):
    return inputs[0].clone()
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path for distributions with entry points; the registry forgets them afterwards."""
    methods()
    before = dict(registry._declared)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._load.cache_clear()
    yield tmp_path
    registry._load.cache_clear()
    registry._declared.clear()
    registry._declared.update(before)


def install(folder: Path, module: str, source: str, point: str) -> None:
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[evomerge.methods]\n{module} = {point}\n")


def test_methods_come_in_alphabetical_order() -> None:
    known = list(methods())
    assert known == sorted(known)
    assert set(OURS) <= set(known)


def test_every_method_says_where_it_comes_from() -> None:
    for known in methods().values():
        assert known.title
        assert known.source
        assert known.evidence in ("V", "V3", "A", "R", "D")


def test_weighted_sums_alone_have_coefficients() -> None:
    assert [name for name in OURS if get(name).coefficients] == ["layer_swap", "linear", "lines", "task_arithmetic"]


def test_mixtures_are_what_follows_from_inner_products() -> None:
    known = ["karcher", "model_stock", "multislerp", "nuslerp", "slerp", "widen"]
    assert [name for name in OURS if get(name).mixture] == known


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no merge method 'tie'; did you mean 'ties'"):
        get("tie")


def test_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(ConfigError, match=f"no merge method 'zzzz'; known are {', '.join(methods())}"):
        get("zzzz")


def test_listing_and_checking_need_neither_torch_nor_numpy() -> None:
    program = (
        "import sys\n"
        "from evomerge.strategies.merge import registry, resolve\n"
        "from evomerge.recipe.tree import Input, Merge, Source\n"
        "registry.methods()\n"
        "resolve.check(Merge('ties', (Input(Source('a'), {'weight': 0.5}),), base=Source('b')))\n"
        "print(sorted({'torch', 'numpy'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_method_of_another_package_is_found(plugins: Path) -> None:
    install(plugins, "first_plugin", PLUGIN.format(name="first"), "first_plugin:first")
    assert get("first").title == "First"
    assert set(OURS) <= set(methods())


def test_module_is_enough_of_an_entry_point(plugins: Path) -> None:
    install(plugins, "second_plugin", PLUGIN.format(name="second"), "second_plugin")
    assert get("second").source == "nobody"


@pytest.mark.parametrize(
    ("source", "point", "reason"),
    [
        ("raise RuntimeError('no such library')", "broken_plugin", "RuntimeError: no such library"),
        (PLUGIN.format(name="half") + "\nimport a_library_nobody_has", "broken_plugin", "ModuleNotFoundError"),
        (PLUGIN.format(name="half"), "broken_plugin:missing", "AttributeError"),
        (PLUGIN.format(name="ties"), "broken_plugin", "ValueError: the merge method 'ties' is declared twice"),
    ],
    ids=["raises", "half", "misnamed", "taken"],
)
def test_broken_plugin_is_left_out_with_a_warning(plugins: Path, source: str, point: str, reason: str) -> None:
    sys.modules.pop("broken_plugin", None)
    install(plugins, "broken_plugin", source, point)
    with pytest.warns(RuntimeWarning, match=rf"entry point 'broken_plugin'.* left out: {reason}"):
        known = methods()
    assert "half" not in known
    assert known["ties"].apply.__module__ == "evomerge.strategies.merge.ties"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(methods()) == set(known)


def test_name_that_is_taken_is_refused() -> None:
    declare = method("ties", title="Mine", needs=Needs("unused", (1, None)), parameters=(), source="me", evidence="R")
    with pytest.raises(ValueError, match=r"'ties' is declared twice: by evomerge\.strategies\.merge\.ties\.ties and"):
        declare(get("linear").apply)
    assert get("ties").title != "Mine"
