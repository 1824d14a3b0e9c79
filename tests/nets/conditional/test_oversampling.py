"""Views of an image: the image first, zeros where nothing comes in, and the mean of their probabilities."""

import numpy as np
import pytest
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets.conditional import oversampled_probabilities, oversampled_views


def moved(image, down, right):
    """What a window sees that lies `down` and `right` of the image: pixel by pixel."""
    _, height, width = image.shape
    found = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            if 0 <= i + down < height and 0 <= j + right < width:
                found[:, i, j] = image[:, i + down, j + right]
    return found


PLACES = [(0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1), (-1, 0), (1, 0), (0, -1), (0, 1)]


@pytest.mark.parametrize("shift", [1, 2])
@pytest.mark.parametrize(("views", "mirror"), [(1, True), (2, True), (5, True), (10, True), (18, True), (9, False)])
def test_views_come_in_their_order(device, views, mirror, shift):
    images = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    due = []
    for down, right in PLACES:
        view = np.stack([moved(image, down * shift, right * shift) for image in images.numpy()])
        due += [view, view[..., ::-1]] if mirror else [view]
    found = list(oversampled_views(images.to(device), views, shift=shift, mirror=mirror))
    assert len(found) == views
    for view, wanted in zip(found, due):
        np.testing.assert_array_equal(view.cpu(), wanted)


def test_ten_views_are_centre_and_corners_and_their_mirror_images():
    images = torch.rand(1, 1, 6, 6)
    views = list(oversampled_views(images, 10))
    assert torch.equal(views[0], images)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 10
    for view, mirrored in zip(views[::2], views[1::2]):
        assert torch.equal(mirrored, view.flip(3))


class Net(nn.Module):
    """A network with dropout, so that eval mode shows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(16, 3))

    def forward(self, images):
        return self.inner(images) * 3


@pytest.mark.parametrize("views", [1, 3, 10])
def test_probabilities_are_the_mean_over_views_in_any_batches(device, views):
    net, images = Net().train().to(device), torch.rand(7, 1, 4, 4)
    found = oversampled_probabilities(net, images, views, shift=1, batch=3)
    assert net.training
    assert net.inner[1].training
    net.eval()
    with torch.no_grad():
        each = [net(view).softmax(dim=1) for view in oversampled_views(images.to(device), views, shift=1)]
    np.testing.assert_allclose(found, torch.stack(each).mean(dim=0).cpu(), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        oversampled_probabilities(net, images.double().numpy(), views, shift=1), found, atol=1e-6
    )
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    "call",
    [
        lambda: oversampled_views(torch.rand(2, 4, 4)),
        lambda: oversampled_views(torch.rand(1, 1, 4, 4), 0),
        lambda: oversampled_views(torch.rand(1, 1, 4, 4), 19),
        lambda: oversampled_views(torch.rand(1, 1, 4, 4), 10, mirror=False),
        lambda: oversampled_views(torch.rand(1, 1, 4, 4), 2, shift=0),
        lambda: oversampled_views(torch.rand(1, 1, 4, 4), 2, shift=4),
        lambda: oversampled_probabilities(Net(), torch.rand(0, 1, 4, 4)),
        lambda: oversampled_probabilities(Net(), torch.rand(2, 16)),
    ],
)
def test_arguments_that_cannot_be_used(call):
    with pytest.raises(InputError, match="got"):
        call()


def test_it_runs_with_one_thread_whatever_is_set():
    net, seen, before = Net(), set(), torch.get_num_threads()
    net.register_forward_hook(lambda *_: seen.add((torch.get_num_threads(), torch.backends.cudnn.deterministic)))
    torch.set_num_threads(3)
    try:
        oversampled_probabilities(net, torch.rand(4, 1, 4, 4), 2, shift=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == {(1, True)}
