"""Marks and ticks do what they say."""

import matplotlib.pyplot as plt

from papertwin.figures import direct_label, plain_ticks, published, stamp


def test_plain_ticks_are_just_those_and_readable():
    figure, axes = plt.subplots()
    axes.loglog([1e3, 1e6], [0.1, 2])
    plain_ticks(axes, x=(1000, 430_000), y=(0.5, 1))
    figure.canvas.draw()
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1000", "430k"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0.5", "1"]
    assert len(axes.xaxis.get_minorticklocs()) == 0


def test_a_stamp_is_on_the_figure_and_published_points_lie_behind_ours():
    figure, axes = plt.subplots()
    axes.plot([1], [1], zorder=2)
    published(axes, [1, 2], [1, 2])
    stamp(figure, "simulated data")
    assert figure.get_supxlabel() == "simulated data"
    ours, theirs = axes.lines
    assert theirs.get_zorder() < ours.get_zorder()
    assert theirs.get_markerfacecolor() == "none"


def test_a_direct_label_stands_at_its_point():
    _, axes = plt.subplots()
    direct_label(axes, 2.0, 3.0, "ours", color="C1")
    (text,) = axes.texts
    assert text.xy == (2.0, 3.0)
    assert text.get_text() == "ours"
