"""Faster products of float32 matrices, where a search need not know the last digits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tarot.edit.patch import restoring


@contextmanager
def fast_products() -> Iterator[None]:
    """Let PyTorch multiply float32 matrices with fewer digits inside the context; the products are added in float32.

    What that does depends on the hardware. On a processor PyTorch takes oneDNN's code, which may round the factors to
    bfloat16. On AMD's with AVX-512 it rounds nothing, and yet is faster than the code that PyTorch takes by default. A
    GPU rounds the factors to TF32. The setting is PyTorch's own, `torch.set_float32_matmul_precision("medium")`, so it
    holds for the whole process until the exit.

    Example:
        >>> import torch
        >>> from tarot.models.precision import fast_products
        >>> with fast_products():
        ...     torch.get_float32_matmul_precision()
        'medium'
        >>> torch.get_float32_matmul_precision()
        'highest'
    """
    before = torch.get_float32_matmul_precision()
    with restoring(lambda: torch.set_float32_matmul_precision(before)):
        torch.set_float32_matmul_precision("medium")
        yield
