"""Vision transformer: square patches of an image as a sequence, blocks of self-attention and a perceptron.

A. Dosovitskiy et al.: An image is worth 16×16 words. ICLR 2021, arXiv 2010.11929, equations 1 to 4 and appendix A.
With width D, N patches, h heads and d = D / h, a block makes of tokens z, (B, N + 1, D):

    z ← z + proj(heads(qkv(norm1(z))))         heads: softmax(q kᵀ / √d) v for each head, side by side (Eq. 2, 5 to 8)
    z ← z + fc2(gelu(fc1(norm2(z))))           4D values between (Eq. 3)

Weights are in plain `nn.Linear` layers, `block{b}.attention.qkv` and `proj`, `block{b}.mlp.fc1` and `fc2`, that can be
masked. The logits are read from the class token alone. No dropout.

Deviations: first weights, also of patches, class token, positions and head, are normal of deviation 0.02, cut off at
two deviations; biases are zero. (The paper's code draws each kind by another rule, its head is zero at first.)
"""

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from papertwin.errors import InputError
from papertwin.nets.initial import seeded
from papertwin.nets.layers import Named, chain
from papertwin.nets.sizes import whole

SPREAD, CUT = 0.02, 2.0  # deviation of first weights, and how many deviations from 0 they lie at most
EPSILON = 1e-6  # added to variances in layer normalisation
RATIO = 4  # values between the layers of the perceptron, over those of a token


class Patches(nn.Conv2d):
    """Linear map of each patch of an image (Eq. 1): (B, C, S, S) → (B, D, S / P, S / P)."""

    def __init__(self, channels: int, width: int, *, side: int, patch: int):
        """Build the layer.

        Args:
            channels: of an image, C.
            width: D.
            side: pixels of an image, S.
            patch: pixels of a patch, P, a divisor of S.
        """
        super().__init__(channels, width, patch, stride=patch)
        self.side = side

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, S, S) → (B, D, S / P, S / P); InputError for other images."""
        expected = (self.in_channels, self.side, self.side)
        if images.shape[1:] != expected:
            raise InputError(
                f"images must be (B, {', '.join(map(str, expected))}), got {tuple(images.shape)}: positions are "
                "learned for one number of patches. Resize the images, or build the network for this side."
            )
        return super().forward(images)


class Tokens(nn.Module):
    """The sequence: class token, then patches row by row, positions added (Eq. 1). (B, D, H, W) → (B, H·W + 1, D).

    Attributes:
        first: class token, (1, 1, D).
        positions: (1, H·W + 1, D).
    """

    def __init__(self, patches: int, width: int):
        """Build it for H·W `patches` of `width` D."""
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, patches + 1, width))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, D, H, W) → (B, H·W + 1, D)."""
        patches = maps.flatten(2).transpose(1, 2)
        return torch.cat([self.first.expand(len(maps), -1, -1), patches], dim=1) + self.positions


class Heads(nn.Module):
    """Attention without its weights: softmax(q kᵀ / √d) v for each head, side by side (Eq. 6 to 8).

    (B, n, 3D) → (B, n, D). Of the 3D values the first D are q, then k, then v, each head after head.
    """

    def __init__(self, heads: int):
        """Set the number of `heads`, a divisor of D."""
        super().__init__()
        self.heads = heads

    def forward(self, joint: torch.Tensor) -> torch.Tensor:
        """(B, n, 3D) → (B, n, D)."""
        query, key, value = joint.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Self-attention and a perceptron, each behind layer normalisation and added to its input (Eq. 2, 3).

    (B, n, D) → (B, n, D).

    Attributes:
        attention: chain of `qkv`, `heads` and `proj`.
        mlp: chain of `fc1`, `gelu` and `fc2`.
    """

    def __init__(self, width: int, heads: int):
        """Build a block of tokens of `width` D with so many `heads`."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        joint, out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.attention = chain([("qkv", joint), ("heads", Heads(heads)), ("proj", out)])
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        wide, narrow = nn.Linear(width, RATIO * width), nn.Linear(RATIO * width, width)
        self.mlp = chain([("fc1", wide), ("gelu", nn.GELU()), ("fc2", narrow)])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, n, D) → (B, n, D)."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ClassToken(nn.Module):
    """The first token: (B, n, D) → (B, D)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, n, D) → (B, D)."""
        return tokens[:, 0]


def vit(
    classes: int = 1000,
    *,
    side: int = 224,
    patch: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    in_channels: int = 3,
    seed: int,
) -> nn.Sequential:
    """Build a vision transformer, ViT-B/16 by default.

    Args:
        classes: number of classes.
        side: pixels of an image.
        patch: pixels of a patch, a divisor of `side`.
        width: values of a token, D. A number, no factor as in the other families.
        depth: blocks.
        heads: of attention, a divisor of `width`.
        in_channels: channels of an image.
        seed: of the weights.

    Returns:
        (B, in_channels, side, side) → (B, classes) logits; a chain of `patches`, `tokens`, `block1`, …, `norm`, `first`
        and `head` with 86,567,656 parameters by default, 38,400 of layer normalisation among them.

    Raises:
        InputError: `patch` or `heads` do not divide what they are to divide, or another argument is out of range.
    """
    given = {"classes": classes, "side": side, "patch": patch, "width": width, "depth": depth, "heads": heads}
    given = {name: whole(name, value) for name, value in (given | {"in_channels": in_channels}).items()}
    for part, of in (("patch", "side"), ("heads", "width")):
        if given[of] % given[part]:
            raise InputError(f"{part} must divide {of}, got {part} {given[part]} and {of} {given[of]}.")

    def layers() -> Iterator[Named]:
        yield "patches", Patches(in_channels, width, side=side, patch=patch)
        yield "tokens", Tokens((side // patch) ** 2, width)
        for place in range(1, depth + 1):
            yield f"block{place}", Block(width, heads)
        yield from (("norm", nn.LayerNorm(width, eps=EPSILON)), ("first", ClassToken()))
        yield "head", nn.Linear(width, classes)

    with seeded(seed):
        model = chain(layers())
    with seeded(seed):  # anew: whether torch's own draws of a layer came from this generator depends on the device
        _draw(model)
    return model


def _draw(model: nn.Module) -> None:
    """Draw the weights, but not those of normalisation, on the CPU; biases become zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            owner = model.get_submodule(name.rpartition(".")[0])
            if parameter.is_meta or isinstance(owner, nn.LayerNorm):
                continue
            if name.endswith(".bias"):
                parameter.zero_()
                continue
            share = math.erf(CUT / math.sqrt(2))  # of a normal distribution within the cut; inverted, as that is fast
            uniform = torch.empty(parameter.shape, device="cpu").uniform_(-share, share)
            parameter.copy_(uniform.erfinv_() * (math.sqrt(2) * SPREAD))
