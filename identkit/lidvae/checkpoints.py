"""Weights and facts in a folder: tensors as safetensors, the rest as JSON, replaced so that no reader finds half of it.

Nothing in them is ever executed: no pickles.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def write(folder: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write ``name.json``, which names the file of its tensors; the older pair stays until the new one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    before = _named(folder, name)
    number = 1 + (int(before.stem.rpartition("-")[2]) if before else 0)
    target = folder / f"{name}-{number}.safetensors"
    held = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    passing = target.with_suffix(".partial")
    save_file(held, passing)
    os.replace(passing, target)
    write_json(folder / f"{name}.json", {**facts, "tensors": target.name})
    if before is not None:
        before.unlink(missing_ok=True)


def read(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the facts.

    Raises:
        ValueError: nothing of that name, or a file that is not what was written.
    """
    facts = read_json(folder / f"{name}.json")
    path = folder / str(facts.get("tensors"))
    try:
        return load_file(path), facts
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} should hold the tensors that {name}.json speaks of: {error}") from None


def exists(folder: Path, name: str) -> bool:
    """Whether `read` will find something."""
    return (folder / f"{name}.json").exists()


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write strict JSON in one stroke; numbers that are not finite become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = path.with_name(path.name + ".partial")
    passing.write_text(
        json.dumps(plain(facts), indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    os.replace(passing, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: no such file, or no JSON object in it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{path} should be a file that identkit wrote, and cannot be read") from None
    except ValueError as error:
        raise ValueError(f"{path} should hold JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} should hold a JSON object, got {type(found).__name__}")
    return found


def plain(value: Any) -> Any:
    """Values as strict JSON has them: lists, objects, numbers, words."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, torch.device | Path):
        return str(value)
    return value


def _named(folder: Path, name: str) -> Path | None:
    """The file of tensors that ``name.json`` names."""
    path = folder / f"{name}.json"
    return folder / str(read_json(path)["tensors"]) if path.exists() else None
