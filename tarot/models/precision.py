"""Matrix products that are about half again to twice as fast, where a search need not know the last digits."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tarot.edit.patch import restoring


@contextmanager
def fast_products(enabled: bool = True) -> Iterator[None]:
    """Multiply float32 matrices in fewer digits inside the context, and add the products in float32.

    A processor with bfloat16 instructions (AVX-512, AMX) rounds the factors to bfloat16, and tensor cores of a GPU to
    TF32. Elsewhere nothing changes. The setting is PyTorch's own, `torch.set_float32_matmul_precision("medium")`, so
    it holds for the whole process until the exit.

    Args:
        enabled: False changes nothing.

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
        torch.set_float32_matmul_precision("medium" if enabled else before)
        yield
