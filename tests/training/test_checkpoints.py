"""Weights come back bit for bit, files that do not fit are refused whole, the last good file survives."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.errors import DataError, InputError, RunError
from papertwin.training.checkpoints import load_weights, save_weights


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(8, 3)
    )


def equal(one, other):
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first | second)


def arrays_of(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def test_weights_come_back_bit_for_bit(tmp_path, device):
    model = net().to(device)
    with torch.no_grad():
        model[0].bias[:] = torch.tensor([1e-42, -0.0])
    save_weights(model, tmp_path / "deep/model.npz")
    other = net(1).to(device)
    assert load_weights(other, str(tmp_path / "deep/model.npz")) is other
    assert equal(other, model)
    assert torch.signbit(other[0].bias[1])
    assert next(other.parameters()).device.type == device
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["model.npz"]


def test_the_file_is_plain_numpy_and_its_bytes_depend_on_the_weights_only(tmp_path, monkeypatch):
    model = net()
    save_weights(model, tmp_path / "a.npz")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    save_weights(model.train(), tmp_path / "b.npz")
    save_weights(net(1), tmp_path / "c.npz")
    first, second, third = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert first == second
    assert first != third
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert stored.files == list(model.state_dict())
        assert {stored[name].dtype for name in stored.files} == {np.dtype("float32")}
        np.testing.assert_array_equal(stored["3.weight"], model[3].weight.detach())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_transposed_weights_are_stored_in_their_own_order(tmp_path):
    model = nn.Linear(2, 3)
    model.weight.data = torch.arange(6.0).reshape(2, 3).T
    save_weights(model, tmp_path / "t.npz")
    assert torch.equal(load_weights(nn.Linear(2, 3), tmp_path / "t.npz").weight, model.weight)


def test_a_failed_write_leaves_the_last_good_file(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    save_weights(net(), path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    written = []

    def full_disk(stream, array, **_):
        if written:
            raise OSError(28, "No space left on device")
        written.append(stream.write(b"half"))

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(RunError, match="No space left"):
        save_weights(net(1), path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert list(tmp_path.iterdir()) == [path]


def test_only_float32_and_npz(tmp_path):
    with pytest.raises(InputError, match=r"0\.weight \(torch\.float64\).* and 2 more"):
        save_weights(net().double(), tmp_path / "model.npz")
    with pytest.raises(InputError, match=r"num_batches_tracked \(torch\.int64\)"):
        save_weights(nn.BatchNorm2d(2), tmp_path / "model.npz")
    with pytest.raises(InputError, match=r"ends in \.npz"):
        save_weights(net(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"3.bias": None}, r"lacks 3\.bias: it holds the weights of another network"),
        ({"4.bias": np.zeros(3, np.float32)}, r"holds 4\.bias, unknown to this network"),
        ({"3.bias": np.zeros(4, np.float32)}, r"3\.bias is float32 of shape \(4,\), expected float32 of \(3,\)"),
        ({"3.bias": np.zeros((3, 1), np.float32)}, r"shape \(3, 1\)"),
        ({"3.bias": np.zeros(3)}, r"3\.bias is float64"),
        ({"3.bias": np.array([1, np.nan, 2], np.float32)}, r"3\.bias holds NaN"),
        ({"3.bias": np.array([1, None, 2], object)}, "cannot be read"),
    ],
)
def test_weights_of_another_network_change_nothing(tmp_path, change, words):
    arrays = {name: array for name, array in (arrays_of(net(1)) | change).items() if array is not None}
    np.savez(tmp_path / "other.npz", **arrays)
    model = net()
    with pytest.raises(DataError, match=words):
        load_weights(model, tmp_path / "other.npz")
    assert equal(model, net())


def test_damaged_files(tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(DataError, match="does not exist"):
        load_weights(net(), path)
    with pytest.raises(DataError, match="cannot be read"):
        load_weights(net(), tmp_path)
    save_weights(net(), path)
    content = path.read_bytes()
    array = io.BytesIO()
    np.save(array, np.zeros(3, np.float32))
    flipped = bytearray(content)
    flipped[content.index(net()[3].weight.detach().numpy().tobytes()) + 5] ^= 1
    for broken in (b"", b"text", array.getvalue(), bytes(flipped), *(content[:n] for n in range(4, len(content), 97))):
        path.write_bytes(broken)
        model = net(1)
        with pytest.raises(DataError, match="cannot be read as an npz file"):
            load_weights(model, path)
        assert equal(model, net(1))
