"""Points of the unit cube that follow from a seed and an index alone."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine


def stable_seed(seed: int, index: int) -> int:
    """A 56-bit number from both, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {index}".encode(), digest_size=7).digest())


@contextmanager
def local_rng(seed: int, index: int) -> Iterator[None]:
    """Torch's CPU generator seeded for the body and put back after it; no other device is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stable_seed(seed, index))
        yield


def identity(d: int) -> Float[Tensor, "d"]:
    """The centre of the cube."""
    return torch.full((d,), 0.5, dtype=torch.float64)


def uniform(d: int, seed: int, index: int) -> Float[Tensor, "d"]:
    """A uniform draw of the cube."""
    generator = torch.Generator().manual_seed(stable_seed(seed, index))
    return torch.rand(d, generator=generator, dtype=torch.float64)


def sobol(d: int, seed: int, index: int) -> Float[Tensor, "d"]:
    """Point `index` of the scrambled Sobol sequence; uniform where it is not defined for so many dimensions."""
    if d > SobolEngine.MAXDIM:
        return uniform(d, seed, index)
    engine = SobolEngine(d, scramble=True, seed=stable_seed(seed, 0))
    return engine.fast_forward(index).draw(1, dtype=torch.float64)[0]
