"""Where numbers are computed: the processor or a GPU, and whether Triton's kernels run there."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib.util import find_spec

import torch

from maskless.errors import SettingsError
from maskless.progress import log

_OLDEST_GPU = (8, 0)  # Ampere: the first with matrix units for bfloat16
_OLDEST_TRITON = (3, 6)  # that the kernels were compiled with


def choose_device(name: str = "auto") -> torch.device:
    """Give the device of a name.

    Parameters
    ----------
    name
        ``"auto"`` (a GPU if torch sees one, the processor otherwise), ``"cpu"``, ``"cuda"`` or
        ``"cuda:1"``. Where torchrun started this process, "auto" and "cuda" mean its own GPU.

    Raises
    ------
    SettingsError
        If there is no such device.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    number = name.removeprefix("cuda:")
    if name not in ("auto", "cuda") and not (name.startswith("cuda:") and number.isdecimal()):
        raise SettingsError(f'device is "{name}"; expected "auto", "cpu", "cuda" or "cuda:1"')
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there <= (int(number) if number.isdecimal() else 0):
        raise SettingsError(
            f'device is "{name}", but torch {torch.__version__} sees {there} GPUs. '
            'Take "auto" or "cpu", or install a CUDA build of torch'
        )
    return torch.device("cuda", int(number) if number.isdecimal() else torch.cuda.current_device())


@lru_cache
def why_no_kernels(device: torch.device) -> str:
    """Give the reason why Triton's kernels do not run on a device and what to do, "" if they do.

    Parameters
    ----------
    device
        A GPU; or a CPU, where they run in Triton's interpreter only (for tests).
    """
    if find_spec("triton") is None:
        return "Triton is not installed (pip install triton, or a CUDA build of torch for Linux)"
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < _OLDEST_TRITON:
        return f"Triton {triton.__version__} is older than 3.6; a newer torch brings a newer one"
    if device.type == "cpu":
        return "" if interpreting() else "kernels for GPUs do not run on a CPU"
    if device.type != "cuda" or torch.version.hip is not None:
        return "the GPU is not NVIDIA's"
    if torch.cuda.get_device_capability(device) < _OLDEST_GPU:
        return "the GPU is older than NVIDIA's Ampere"
    return ""


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter, slowly and without a GPU.

    The environment variable TRITON_INTERPRET=1 asks for it. It must be set before the kernels are
    imported.
    """
    return os.environ.get("TRITON_INTERPRET") == "1"


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one: kernels start there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@lru_cache
def tell_once(message: str) -> None:
    """Write a line the first time that it is to be said."""
    log(message)
