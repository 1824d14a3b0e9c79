"""Weights of a network as an npz of float32 arrays: readable without torch, the same bytes for the same weights."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from papertwin import files
from papertwin.errors import DataError, InputError

SHOWN = 4  # names in an error message


def save_weights(model: nn.Module, path: Path | str) -> None:
    """Write the parameters and buffers of a network to an npz file, atomically and not compressed.

    Args:
        model: all of it must be float32.
        path: file to write; its name must end in .npz.

    Raises:
        InputError: another suffix, or a tensor that is not float32.
        RunError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InputError(f"Weights go into a file that ends in .npz, got {path.name!r}.")
    state = model.state_dict()
    if other := [f"{name} ({tensor.dtype})" for name, tensor in state.items() if tensor.dtype != torch.float32]:
        raise InputError(f"Only float32 weights can be saved, got {_some(other)}. Convert with model.float().")
    with files.replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, tensor in state.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # always dated 1980, so that bytes depend on the weights only
            entry.create_system = 3
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, tensor.detach().cpu().contiguous().numpy(), allow_pickle=False)


def load_weights(model: nn.Module, path: Path | str) -> nn.Module:
    """Fill a network with the weights of an npz file; nothing is changed unless all of them fit.

    Args:
        model: the network that they were saved from, or one of the same layers.
        path: file that `save_weights` wrote.

    Returns:
        `model`, on the device and in the precision it has.

    Raises:
        DataError: missing, damaged, or names, shapes or types differ; the message names them.
    """
    path = Path(path)
    arrays = _read(path)
    state = model.state_dict()
    if missing := [name for name in state if name not in arrays]:
        raise DataError(f"{path} lacks {_some(missing)}: it holds the weights of another network.")
    if unknown := [name for name in arrays if name not in state]:
        raise DataError(f"{path} holds {_some(unknown)}, unknown to this network: it is of another one.")
    for name, tensor in state.items():
        array = arrays[name]
        if array.shape != tuple(tensor.shape) or array.dtype != np.float32:
            raise DataError(
                f"{path}: {name} is {array.dtype} of shape {array.shape}, expected float32 of {tuple(tensor.shape)}."
            )
        if not np.isfinite(array).all():
            raise DataError(f"{path}: {name} holds NaN or infinite values; the training that wrote it had diverged.")
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: expected an npz file of weights.") from error
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an npz file of weights: {error}. Get or make it again.") from error


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
