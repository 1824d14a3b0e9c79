"""The rules by which publications counted do what they say, on networks small enough to sum by hand."""

import torch
from torch import nn

from papertwin.nets import count, googlenet, rules


def toy():
    """Two convolutions without biases and a classifier, on images of 6×6."""
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(8, 6, 1, stride=2, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


def test_filters_counted_twice():
    counts = count(toy(), (4, 6, 6))
    first, second = 8 * 2 * 9, 6 * 8
    assert rules.convolution_params(counts) == first + second + 6 + 5
    assert rules.doubled_output_macs(counts) == 36 * 8 * first + 9 * 6 * second + 6 + 5
    assert counts.params == first + second + 6 * 5 + 5


def test_a_quarter():
    counts = count(toy(), (4, 6, 6))
    assert rules.QUARTER.macs(counts) == counts.macs // 4
    assert rules.QUARTER.params(counts) == counts.params


def test_the_trunk_leaves_out_heads_and_classifier():
    with torch.device("meta"):
        model = googlenet(seed=0)
    counts = count(model, (3, 224, 224))
    classifier = 1024 * 1000 + 1000
    heads = 512 * 128 + 128 + 528 * 128 + 128 + 2 * (2048 * 1024 + 1024 + classifier)
    assert counts.params - rules.trunk_params(counts) == classifier + heads
    assert rules.TRUNK.macs(counts) == counts.macs


def test_every_rule_explains_itself():
    for rule in vars(rules).values():
        if isinstance(rule, rules.Rule):
            assert rule.name
            assert rule.explanation.endswith(".")
