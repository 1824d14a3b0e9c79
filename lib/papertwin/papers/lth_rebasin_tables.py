"""Tables and curves of the lottery tickets' notebook, ours beside published numbers.

Part of `papertwin.papers.lth_rebasin`, whose trainings come in here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from papertwin.nets import resnet50
from papertwin.papers.lth_rebasin import (
    EVERY,
    HIGH,
    LOW,
    METHODS,
    NARROW,
    PERMUTED,
    PROTOCOL_AT,
    PROTOCOL_NEURONS,
    WIDE,
    Params,
)
from papertwin.sparse import protocol
from papertwin.sparse.densities import whole_part
from papertwin.sparse.pruning import prunable_layers

DENSE = "dense B"
SHARED = {"LTH": "LTH", "naive": "LTH naive", "permuted": "LTH permuted"}  # names in the table that papers share
RANGE = ["mean", "min", "max"]


def usual(table: pd.DataFrame, network: str) -> pd.DataFrame:
    """Rows of a network that all but ensembles use."""
    return table[(table["network"] == network) & (table["member"] == 0)]


def curves(rows: pd.DataFrame, by: str, column: str = "test accuracy") -> dict[str, pd.DataFrame]:
    """Mean, lowest and highest of a column over seeds: method → table with index `by`; dense B has one row."""
    rows = rows[rows["matched"] == 0]
    found = {name: rows[rows["method"] == name].groupby(by)[column].agg(RANGE) for name in (*METHODS, DENSE)}
    return {name: each for name, each in found.items() if len(each)}


def at(rows: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Rows with some values; those of dense networks have no sparsity and no rewind point, and count as they are."""
    for name, value in wanted.items():
        free = (rows["method"] == DENSE) & (name in ("sparsity", "rewind"))
        rows = rows[(rows[name] == value) | free]
    return rows


def span(rows: pd.DataFrame) -> tuple[float, float]:
    """Limits of an axis: from the lowest to the highest test accuracy of the paper's methods and of dense B, with room.

    More of it above, for published accuracies.
    """
    kept = rows[rows["method"].isin((*METHODS, DENSE)) & (rows["matched"] == 0)]["test accuracy"]
    return kept.min() - 0.5, kept.max() + 3


def published_at(printed: Mapping[str, Any], sparsity: float) -> dict[int, dict[str, float]]:
    """Published accuracies at a sparsity whose rewind point is known: rewind point → {method: accuracy}."""
    return {int(rewind): {**each} for rewind, each in printed.get(f"{sparsity:g}", {}).items() if rewind}


def beside_published(rows: pd.DataFrame, printed: Mapping[str, Any]) -> pd.DataFrame:
    """Tables 5 to 14: ours beside published accuracies, per cent.

    Args:
        rows: of the table of trainings, one network and width; empty where nothing was trained.
        printed: sparsity → rewind point, "" where it is not known → method → accuracy.

    Returns:
        Index (whose, sparsity, rewind, method): `mean`, `lowest`, `highest`; a published number has a mean only.
    """
    ours = rows[rows["method"].isin(METHODS) & (rows["matched"] == 0)]
    found = ours.groupby(["sparsity", "rewind", "method"])["test accuracy"].agg(RANGE).reset_index()
    lines = [("here", s, f"{k:g}", name, *rest) for s, k, name, *rest in found.itertuples(index=False)]
    for sparsity, each in printed.items():
        for rewind, values in each.items():
            lines += [("published", float(sparsity), rewind, *item, np.nan, np.nan) for item in values.items()]
    names = ["whose", "sparsity", "rewind", "method"]
    order = {name: place for place, name in enumerate(METHODS)}
    lines.sort(key=lambda line: (line[0], line[1], float(line[2] or -1), order[line[3]]))
    return pd.DataFrame(lines, columns=[*names, "mean", "lowest", "highest"]).set_index(names)


def resnet50_table(printed: Mapping[str, Any]) -> pd.DataFrame:
    """Table 10: published accuracies of ResNet50, and the weights that are left, counted on the network."""
    import torch

    with torch.device("meta"):
        layers = prunable_layers(resnet50(seed=0), ("projection",)).values()
    total = sum(layer.weight.numel() for layer in layers)
    table = beside_published(
        pd.DataFrame(columns=["method", "sparsity", "rewind", "matched", "test accuracy"]), printed
    )
    left = [total - whole_part(sparsity * total) for sparsity in table.index.get_level_values("sparsity")]
    return table[["mean"]].assign(weights=left)


def ensemble_table(groups: pd.DataFrame, printed: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Table 1: means over ensembles beside the published numbers, as far as there are any; disagreement in per cent."""
    table = groups.drop(columns="seed").groupby("method").mean().reindex([*METHODS, "IMP"])
    for name, scale in (("single", 1), ("ensemble", 1), ("disagreement", 100)):
        table[f"published {name}"] = [scale * printed.get(method, {}).get(name, np.nan) for method in table.index]
    return table


def settings_table(params: Params, network: str, printed: Mapping[str, str]) -> pd.DataFrame:
    """Tables 2 to 4: the paper's settings beside ours.

    Args:
        params: of the run.
        network: grid, vgg, or another where nothing was trained.
        printed: setting → the paper's.
    """
    rates = params.rates_of(network) if network in ("grid", "vgg") else ()
    here = {}
    if rates and (network == "grid" or params.vgg_width):
        here = {
            "optimiser": "SGD, momentum 0.9",
            "weight decay": f"{params.settings['weight_decay'] * 1e4:g}e-4 (none in pruning)",
            "batch": str(params.settings["batch"]),
            "passes": str(params.passes_of(network)),
            "rate, dense": f"{rates[0]:g}, cosine",
            "rate, sparse": f"{rates[1]:g}, cosine",
            "passes a round of pruning": str(params.prune_epochs),
            "rate of pruning": f"{rates[2]:g}, cosine (momentum 0.9, no decay)",
            "pruned a round": f"{100 * params.share:g} % of what remains, all layers together",
            "runs": f"{params.few_seeds} or {params.seeds}" if network == "grid" else str(params.few_seeds),
        }
    names = list(dict.fromkeys([*printed, *here]))
    rows = {name: {"paper": printed.get(name, "not known"), "here": here.get(name, "–")} for name in names}
    return pd.DataFrame(rows).T.rename_axis("setting")


def early_table(table: pd.DataFrame, params: Params, printed: Mapping[str, float]) -> pd.DataFrame:
    """Table 15: accuracy by the pass of B that A is matched with, width 1, 90 %, beside the published ones.

    Returns:
        Index the share of B's training that is done: `passes`, `mean`, `lowest`, `highest`, and `published`.
    """
    rows = usual(table, "grid")
    wanted = (rows["width"] == NARROW) & (rows["sparsity"] == LOW) & (rows["rewind"] == params.near)
    rows = rows[wanted & (rows["method"] == PERMUTED)]
    found = rows.groupby("matched")["test accuracy"].agg(RANGE).set_axis(["mean", "lowest", "highest"], axis=1)
    found.index = [each or params.epochs for each in found.index]
    shares = {100 * passes / params.epochs: row for passes, row in found.assign(passes=found.index).iterrows()}
    ours = pd.DataFrame(shares).T.astype({"passes": "Int64"})  # whole, also where the paper's pass has none of ours
    theirs = pd.Series({100 * int(passes) / 200: value for passes, value in printed.items()}, name="published")
    return ours.join(theirs, how="outer").sort_index().rename_axis("per cent of B's passes")


def matching_table(barriers: pd.DataFrame) -> pd.DataFrame:
    """Barrier and lowest accuracy on each line between A and B: means over seeds, by network and width."""
    order = list(dict.fromkeys(barriers["line"]))
    found = barriers.groupby(["network", "width", "line"])[["barrier", "lowest"]].mean()
    return found.reindex([(*key, line) for key in dict.fromkeys(k[:2] for k in found.index) for line in order])


def trainers(table: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The trainings by the shared protocol, as the report joins them: see `papertwin.sparse.protocol.trainer_table`.

    It is the widest perceptron of quick, rewound to the nearer point, so that all passes together are as many as of the
    other trainers. Where the network of the grid is another, its rows have other words and are joined with none.
    """
    rows = usual(table, "grid")
    rows = rows[(rows["width"] == WIDE) & (rows["rewind"] == params.near) & (rows["matched"] == 0)]
    rows = rows[rows["method"].isin(SHARED) & rows["sparsity"].isin(PROTOCOL_AT)]
    neurons = round(WIDE * params.neurons)
    words = protocol.in_words(neurons, params.sizes, params.epochs, EVERY)
    if params.network != "mlp" or neurons != PROTOCOL_NEURONS:
        words = f"{words} (but for the network: {params.network}, {params.neurons} neurons, width {WIDE:g})"
    names = [SHARED[each] for each in rows["method"]]
    return protocol.trainer_table(zip(names, rows["sparsity"], rows["seed"], rows["test accuracy"]), words)


def gaps_at(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """What the claims rest on: mean accuracies at 90 and 97 % by width, rewind point and method."""
    kept = rows[rows["method"].isin(METHODS) & (rows["matched"] == 0) & rows["sparsity"].isin((LOW, HIGH))]
    found = kept.groupby(["width", "sparsity", "rewind", "method"])["test accuracy"].mean().unstack()
    return found[list(METHODS)].assign(**{"permuted − naive": found["permuted"] - found["naive"]})
