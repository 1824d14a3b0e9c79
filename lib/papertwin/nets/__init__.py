"""Networks in plain torch, what they cost, the recipes by which we train them, and our trained weights.

    >>> from papertwin.nets import lenet, mlp, stored              # take images in [0, 1], no normalisation layer
    >>> from papertwin.nets import cifar_nin, count                # small or full-size convolutional networks
    >>> from papertwin.nets import build, published, rebuilt       # those of three papers, by name, and their counts

Every network gives logits. Names are imported on first use.
"""

from papertwin.lazy import names_from

# public name → the module that defines it
_HOMES = {
    "Composite": ".layers",
    "Counts": ".counting",
    "LayerCount": ".counting",
    "Rebuilt": ".rebuilding",
    "Recipe": ".recipes",
    "alexnet": ".classic",
    "build": ".catalogue",
    "cifar_nin": ".nin_family",
    "convolution": ".layers",
    "count": ".counting",
    "googlenet": ".inception",
    "imagenet_nin": ".nin_family",
    "input_shape": ".catalogue",
    "lenet": ".classic",
    "low_rank_layer": ".vgg_family",
    "mlp": ".classic",
    "nin": ".classic",
    "nin64": ".nin_family",
    "nin_c3": ".nin_family",
    "nin_groups": ".nin_family",
    "published": ".literature",
    "rebuilt": ".rebuilding",
    "rebuilt_table": ".rebuilding",
    "resnet": ".residual",
    "resnet101": ".residual",
    "resnet152": ".residual",
    "resnet200": ".residual",
    "resnet50": ".residual",
    "root_module": ".layers",
    "separable": ".layers",
    "stored": ".recipes",
    "train": ".recipes",
    "untrained": ".recipes",
    "vgg": ".vgg_family",
}
__all__ = sorted(_HOMES)
__getattr__ = names_from(__name__, _HOMES)
