"""Times of the networks of Deep Roots at full size, on one core of this machine, beside the published ones.

Part of `papertwin.papers.deep_roots`. Ratios depend on the machine, on its memory as well: by default the system may
hand out each large map anew, which costs plain torch (maps in the order (B, C, H, W)) more than `channels_last`.
"""

from collections.abc import Callable

import pandas as pd
import torch
from torch import nn

from papertwin.errors import InputError
from papertwin.nets import build, count, input_shape, published, sample_images
from papertwin.nets.timing import layer_times, prepared
from papertwin.papers.deep_roots import CARD, STANDARD, Params, results
from papertwin.training.clock import interleaved

# what is timed at full size in other ways than plain torch
EVERY_WAY = ("NiN Orig.", "NiN root-8", "ResNet-50 Orig.", "ResNet-50 root-64", "GoogLeNet Orig.", "GoogLeNet root-8")
WAYS = ("eager", "channels_last", "fastest")
SEARCHED = EVERY_WAY[:4]  # GoogLeNet has too many layers for a search of two minutes: `papertwin bench roots` has it
SEARCH = 3  # rounds in which the fastest way is looked for


def timed_names() -> dict[str, list[str]]:
    """Networks of each family that are timed at full size: the standard one and its root forms."""
    tables = {family: results(family) for family in ("NiN", "ResNet-50", "GoogLeNet")}
    kinds = [STANDARD, "root"]
    return {
        family: [f"{family} {name}" for name in table.index[table["kind"].isin(kinds)]]
        for family, table in tables.items()
    }


def measured_times(params: Params) -> pd.DataFrame:
    """Time the paper's networks on one core of this machine; those of a family take turns.

    Returns:
        A row for each round, and columns (network, batch, way): milliseconds an image. Ways: eager is plain torch,
        channels_last keeps maps in the order (B, H, W, C), fastest computes each layer in the way that
        measured best here.
    """
    found = []
    for names in timed_names().values():
        models = {name: build(CARD, name, device="cpu").eval() for name in names}
        for batch in params.batches:
            calls = {}
            for name, model in models.items():
                calls |= {(name, batch, way): call for way, call in _ways(name, model, batch).items()}
            with torch.inference_mode():
                seconds = interleaved(calls, rounds=params.rounds)
            found.append(1e3 * seconds / batch)
    table = pd.concat(found, axis=1)
    table.columns = pd.MultiIndex.from_tuples(table.columns, names=["network", "batch", "way"])
    return table


def _ways(name: str, model: nn.Module, batch: int) -> dict[str, Callable[[], torch.Tensor]]:
    """Every way in which a network is timed; to be called in inference mode."""
    wanted = WAYS if name in SEARCHED else WAYS[:2] if name in EVERY_WAY else WAYS[:1]
    images = sample_images(CARD, name, batch)
    return {way: prepared(model, images, way, search=SEARCH)[0] for way in wanted}


def time_table(times: pd.DataFrame) -> pd.DataFrame:
    """Table 7: median milliseconds and how many times as fast as the standard network, beside what was published.

    Args:
        times: of `measured_times`; the standard network of each family is compared in the same way and batch.

    Returns:
        A row for each network, batch and way: `ms`, `faster`, `MACs` (times fewer, of the network as it is timed: no
        auxiliary heads), `published CPU`, `published GPU` (times as fast).

    Raises:
        InputError: a network was timed in a way, or with a batch, in which its standard network was not.
    """
    printed = published(CARD).set_index("network")
    macs = {
        name: count(build(CARD, name).eval(), input_shape(CARD, name)).macs for name in set(times.columns.levels[0])
    }
    rows = []
    for (name, batch, way), ms in times.median().items():
        base = f"{name.partition(' ')[0]} Orig."
        if (base, batch, way) not in times:
            raise InputError(f"{name} was timed in the way {way}, batch {batch}; expected times of {base} in the same.")
        standard = times[base, batch, way].median()
        ratios = {"published CPU": "cpu_ms_per_image", "published GPU": "gpu_ms_per_image"}
        row = {"network": name, "batch": batch, "way": way, "ms": ms, "faster": standard / ms}
        row["MACs"] = macs[base] / macs[name]
        rows.append(
            row | {key: printed.loc[base, column] / printed.loc[name, column] for key, column in ratios.items()}
        )
    return pd.DataFrame(rows)


def layer_seconds(names: list[str], params: Params) -> dict[str, pd.DataFrame]:
    """Milliseconds of each layer of published networks, one image, one core."""
    found = {}
    for name in names:
        network = build(CARD, name, device="cpu").eval()
        found[name] = layer_times(network, sample_images(CARD, name), rounds=params.rounds)
    return found
