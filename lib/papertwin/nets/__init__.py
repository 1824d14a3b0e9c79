"""Networks in plain torch, what they cost, the recipes by which we train them, and our trained weights.

    >>> from papertwin.nets import lenet, mlp, stored              # take images in [0, 1], no normalisation layer
    >>> from papertwin.nets import cifar_nin, count                # small or full-size convolutional networks
    >>> from papertwin.nets import build, published, rebuilt       # those of three papers, by name, and their counts
    >>> from papertwin.nets import init_, layer_variances          # first weights, and the gradients that they keep
    >>> from papertwin.nets import layer_covariances, fastest      # how layers covary; groups computed faster on a CPU

Every network gives logits. Names are imported on first use.
"""

from papertwin.lazy import names_from

# public name → the module that defines it
_HOMES = {
    "BlockDiagonal": ".block_diagonal",
    "Comoments": ".comoments",
    "Composite": ".layers",
    "Counts": ".counting",
    "LayerCount": ".counting",
    "LayerCovariance": ".covariance",
    "Rebuilt": ".rebuilding",
    "Recipe": ".recipes",
    "alexnet": ".classic",
    "build": ".catalogue",
    "cifar_nin": ".nin_family",
    "cifar_resnet": ".cifar_residual",
    "consecutive_pairs": ".covariance",
    "convolution": ".layers",
    "count": ".counting",
    "deep_net": ".deep",
    "fastest": ".execution",
    "forward_times": ".timing",
    "googlenet": ".inception",
    "imagenet_nin": ".nin_family",
    "init_": ".initialising",
    "input_shape": ".catalogue",
    "joined_kernels": ".equivalent",
    "layer_covariances": ".covariance",
    "layer_gains": ".initialising",
    "layer_times": ".timing",
    "layer_variances": ".variances",
    "lenet": ".classic",
    "low_rank_layer": ".vgg_family",
    "mlp": ".classic",
    "mobilenet": ".mobile",
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
    "sample_images": ".catalogue",
    "seen_inputs": ".equivalent",
    "separable": ".layers",
    "set_variances": ".variances",
    "stored": ".recipes",
    "train": ".recipes",
    "untrained": ".recipes",
    "vgg": ".vgg_family",
    "vit": ".transformer",
    "whitening": ".comoments",
    "wide_resnet": ".cifar_residual",
}
__all__ = sorted(_HOMES)
__getattr__ = names_from(__name__, _HOMES)
