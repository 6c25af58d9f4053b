"""What engines ask of a card, as far as a machine without one can show it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from errors import EngineFailed  # noqa: E402
from inference.engines import card  # noqa: E402


def test_a_card_that_is_too_old_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(EngineFailed) as caught:
        card.refuse_older("Tesla T4", (7, 5), (8, 0), "knows no bfloat16")
    said = "Tesla T4 has compute capability 7.5 and knows no bfloat16; a GPU with at least 8.0 is needed"
    assert caught.value.message == said
    card.refuse_older("NVIDIA A100", (8, 0), (8, 0), "knows no bfloat16")
    card.refuse_older("NVIDIA GeForce RTX 5090", (12, 0), (8, 0), "knows no bfloat16")


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("CUDA error: out of memory", True),
        ("Triton Error [CUDA]: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("FIND was unable to find an engine to execute this computation", True),
        ("GET was unable to find an engine to execute this computation", True),
        ("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", True),
        ('NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":1407', True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("The size of tensor a (3) must match the size of tensor b (4)", False),
    ],
)
def test_a_full_card_is_told_from_other_faults_whichever_library_says_it(said: str, full: bool) -> None:
    assert card.is_full(RuntimeError(said)) is full
    assert card.is_full(torch.OutOfMemoryError(said))


def test_a_machine_without_so_much_memory_is_full_too() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert card.is_full(caught.value)
    assert card.is_full(MemoryError())


def test_without_a_card_none_is_lost() -> None:
    card.let_go()
    assert not card.is_lost()
