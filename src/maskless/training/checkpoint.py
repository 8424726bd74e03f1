"""The state of a training in one file: written whole, read without executing anything.

The file is safetensors; its header holds the rest as JSON: the step, the history, what was being
trained, and a digest of the tensors. A file that is cut, altered, foreign or belongs to another
training is told in one line and not used: training then starts again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maskless.progress import log
from maskless.storage import atomic_path

Record = dict[str, float]  # step, loss, learning_rate

_KEY = "maskless"
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on.

    Attributes
    ----------
    steps_done
        Steps finished.
    history
        One record for each of them.
    tensors
        Encoder, head and optimiser, by name.
    """

    steps_done: int
    history: list[Record]
    tensors: dict[str, Tensor]


def save_checkpoint(path: Path, identity: Mapping[str, Any], state: Checkpoint) -> None:
    """Write a checkpoint; the one before stays until the new one is whole.

    Parameters
    ----------
    path
        File to write.
    identity
        What is being trained (JSON values); a later training must say the same to use it.
    state
        What to keep.
    """
    content = {
        "format": _FORMAT,
        "identity": dict(identity),
        "steps_done": state.steps_done,
        "history": state.history,
        "digest": _digest(state.tensors),
    }
    with atomic_path(path) as temporary:
        save_file(
            {name: tensor.contiguous() for name, tensor in state.tensors.items()},
            temporary,
            {_KEY: json.dumps(content, allow_nan=False)},
        )


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read a checkpoint if it is whole and belongs to this training; say why if it does not.

    Parameters
    ----------
    path
        File, which need not exist.
    identity
        What is being trained.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        whole = content["format"] == _FORMAT and content["digest"] == _digest(tensors)
        state = Checkpoint(int(content["steps_done"]), list(content["history"]), tensors)
        before = dict(content["identity"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        log(f"{path} is not a whole checkpoint ({error}); training starts again")
        return None
    if not whole:
        log(f"{path} is a damaged checkpoint; training starts again")
        return None
    now = json.loads(json.dumps(identity))
    if before != now:
        log(f"{path} is of another training: {_difference(before, now)}; training starts again")
        return None
    return state


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first setting that differs, with both values."""
    for key in (*now, *before):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            return f"{key}.{_difference(old, new)}"
        if isinstance(old, list) and isinstance(new, list) and key == "markers":
            gone = [name for name in old if name not in new]
            come = [name for name in new if name not in old]
            return f"markers without {gone or 'none'}, with {come or 'none'} (or in another order)"
        return f"{key} was {old!r}, is {new!r}"
    return "nothing"
