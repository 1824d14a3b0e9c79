"""Rebuild data/nn_robustness_nets: a LeNet and three perceptrons, trained on the vendored MNIST.

What:     lenet.npz and mlp-{0,1,2}.npz, one float32 array for each weight and bias.
From:     our own training, by the recipes in lib/papertwin/nets/recipes.py; nothing is downloaded.
Licence:  MIT, as the rest of the repository; data/nn_robustness_nets/LICENSE, written by hand.
Run:      python data/prepare/nn_robustness_nets.py [NAME …]        (needs papertwin installed; about five minutes)

One thread and fixed seeds give the same bytes on the same kind of processor with the same torch; elsewhere the last
bits of a sum may differ, and with them the weights.
"""

import argparse
from pathlib import Path

from common import DATA, register

ABOUT = {
    "title": "Trained networks for MNIST: LeNet, and perceptrons from three seeds",
    "kind": "vendored",
    "licence": "MIT",
    "notice": "nn_robustness_nets/LICENSE",
    "origin": "trained for this repository on data/mnist by the recipes in lib/papertwin/nets/recipes.py",
    "prepare": "prepare/nn_robustness_nets.py",
    "note": "LeNet as in Caffe's MNIST example, and perceptrons 784-100-50-10. They take pixels in [0, 1].",
}


def build(name: str, folder: Path) -> None:
    """Train one network, say how well it does on the test images, and write its weights."""
    from papertwin.data.images import load_images
    from papertwin.nets.recipes import train
    from papertwin.training.checkpoints import save_weights
    from papertwin.training.loop import accuracy

    model = train(name, progress=lambda epoch, loss: print(f"{name}, epoch {epoch}: loss {loss:.4f}", flush=True))
    test = load_images("mnist", "test")
    print(f"{name}: {accuracy(model, test.scaled(), test.labels):.2%} of the test images", flush=True)
    save_weights(model, folder / f"{name}.npz")


def main() -> None:
    """Train the networks named, or all; register every file."""
    from papertwin.nets.recipes import STORE, STORED

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"networks to train: {', '.join(STORED)}")
    names = parser.parse_args().names
    if unknown := set(names) - set(STORED):
        raise SystemExit(f"Unknown networks {', '.join(sorted(unknown))}: expected some of {', '.join(STORED)}.")
    folder = DATA / STORE
    folder.mkdir(exist_ok=True)
    for name in names or STORED:
        build(name, folder)
    register(STORE, ABOUT, [folder / f"{name}.npz" for name in STORED])


if __name__ == "__main__":
    main()
