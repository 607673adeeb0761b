"""What every test runs under: no network, one thread, fixed examples, and annotations checked at run time."""

import os

# Read when the libraries are imported, which the lines below do.
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

import hypothesis
import psutil
import pytest
from jaxtyping import install_import_hook

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
        "tarot.search.space",
        "tarot.search",
        "tarot.edit.adapter",
        "tarot.edit.composition",
        "tarot.edit.export",
        "tarot.analysis",
    ],
    "beartype.beartype",
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


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Sums in one order, and room for the other workers of a parallel run."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def no_gradients() -> Iterator[None]:
    """Compute without gradients, unless a test enables them."""
    import torch

    with torch.no_grad():
        yield
