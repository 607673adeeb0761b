"""Points of the unit cube that depend only on a seed and an index."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine


def stable_seed(seed: int, index: int) -> int:
    """Return a 56-bit seed for one trial of a search, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {index}".encode(), digest_size=7).digest())


@contextmanager
def local_rng(seed: int, index: int) -> Iterator[None]:
    """Seed torch's CPU generator for the body of a `with` statement, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stable_seed(seed, index))
        yield


def identity(d: int) -> Float[Tensor, "d"]:
    """Return the centre of the cube, where every angle is zero."""
    return torch.full((d,), 0.5, dtype=torch.float64)


def uniform(d: int, seed: int, index: int) -> Float[Tensor, "d"]:
    """Draw a point uniformly from the cube."""
    generator = torch.Generator().manual_seed(stable_seed(seed, index))
    return torch.rand(d, generator=generator, dtype=torch.float64)


def sobol(d: int, seed: int, index: int) -> Float[Tensor, "d"]:
    """Return point `index` of the scrambled Sobol sequence; a uniform draw beyond the sequence's 21,201 dimensions."""
    if d > SobolEngine.MAXDIM:
        return uniform(d, seed, index)
    engine = SobolEngine(d, scramble=True, seed=stable_seed(seed, 0))
    return engine.fast_forward(index).draw(1, dtype=torch.float64)[0]
