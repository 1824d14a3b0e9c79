"""Tables of SRigL's notebook, and what its figures read off masks and logs.

Part of `papertwin.papers.srigl`, whose trials come in here.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from papertwin.nets import vit
from papertwin.papers.srigl import BOXED, METHODS, Job, Params
from papertwin.sparse import protocol
from papertwin.sparse.densities import budgets
from papertwin.sparse.masks import fan_ins, has_constant_fan_in, sparse_layers
from papertwin.sparse.trials import UPDATERS, SparseTrial

Trials = Mapping[Job, SparseTrial]


def usual_trials(trials: Trials, network: str, method: str, sparsity: float) -> list[SparseTrial]:
    """Trials of a network and method at a sparsity, of usual length, width and γ, in the order of their seeds."""
    gamma = METHODS[method][1].get("gamma")
    found = [
        (job.seed, trial)
        for job, trial in trials.items()
        if (job.network, job.method, job.sparsity, job.gamma, job.length, job.width)
        == (network, method, sparsity, gamma, 1, 1.0)
    ]
    return [trial for _, trial in sorted(found, key=lambda each: each[0])]


def short(layer: str) -> str:
    """Name of a layer as it fits under an axis.

    >>> short("stage2_block1.conv1"), short("stage3_block1.projection"), short("fc1")
    ('2.1 conv1', '3.1 proj', 'fc1')
    """
    return layer.replace("stage", "").replace("_block", ".").replace(".conv", " conv").replace(".projection", " proj")


def fan_in_boxes(trials: Trials, network: str, method: str = "RigL") -> dict[str, np.ndarray]:
    """Figure 8: layer → fan-in of each of its neurons, of all seeds together, at 90 % sparsity."""
    found = usual_trials(trials, network, method, BOXED)
    return {name: torch.cat([fan_ins(each.masks[name]) for each in found]).numpy() for name in found[0].masks}


def least_salient(trials: Trials, network: str) -> pd.DataFrame:
    """Figure 10: weights that had to matter for a neuron to stay, at the last update of SRigL, first seed.

    Returns:
        Index layer, a column a sparsity; 0 where nothing may be ablated. Dense layers are left out.
    """
    found = {}
    for sparsity in sorted({job.sparsity for job in trials if job.network == network and job.sparsity}):
        log = usual_trials(trials, network, "SRigL", sparsity)[0].log
        last = max(each.step for each in log)
        found[sparsity] = {each.layer: each.least for each in log if each.step == last}
    order = list(usual_trials(trials, network, "SRigL", min(found))[0].masks)
    return pd.DataFrame(found).reindex([name for name in order if any(name in each for each in found.values())])


def beside_published(rows: pd.DataFrame, printed: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Tables 1 and 3: accuracies of ours beside published ones, per cent.

    Args:
        rows: of the table of trials, one network.
        printed: method → sparsity, as text → accuracy.

    Returns:
        A row a method and sparsity: `here`, `lowest`, `highest` over seeds, `published`; NaN where there is none.
    """
    found = rows.groupby(["method", "sparsity"])["test accuracy"].agg(["mean", "min", "max"])
    found.columns = ["here", "lowest", "highest"]
    known = {(name, float(key)): value for name, each in printed.items() for key, value in each.items()}
    found = found.reindex(pd.MultiIndex.from_tuples([*found.index, *sorted(set(known) - set(found.index))]))
    found.index.names = ["method", "sparsity"]
    found["published"] = [known.get(key, np.nan) for key in found.index]
    order = [(name, sparsity) for name in METHODS for sparsity in sorted({key[1] for key in found.index})]
    return found.reindex([key for key in order if key in found.index])


def vit_table(printed: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Table 2: published accuracies of ViT-B/16, and the weights that are left, counted on the rebuilt network.

    Returns:
        A row a method and sparsity: `published accuracy, %`; the `weights` left of its layers, by the uniform rule.
    """
    with torch.device("meta"):
        model = vit(seed=0)
    layers = {name: tuple(layer.weight.shape) for name, layer in sparse_layers(model).items()}
    rows = []
    for method, each in printed.items():
        for sparsity, accuracy in each.items():
            weights = sum(budgets(layers, float(sparsity), "uniform").values())
            row = {"method": method, "sparsity": float(sparsity), "published accuracy, %": accuracy}
            rows.append(row | {"weights": weights})
    return pd.DataFrame(rows).set_index(["method", "sparsity"])


def method_table(trials: Trials) -> pd.DataFrame:
    """Table 4: what each sparse method is, read off the masks of the perceptron at 99 %, means over seeds."""
    rows = {}
    for name, (kind, _) in METHODS.items():
        if kind == "dense":
            continue
        found = usual_trials(trials, "mlp", name, 0.99)
        rows[name] = {
            "connections move": any(each.log for each in found),
            "needs gradients of masked weights": UPDATERS[kind].needs_gradients,
            "one fan-in": all(has_constant_fan_in(mask) for each in found for mask in each.masks.values()),
            "active weights": np.mean([sum(int(mask.sum()) for mask in each.masks.values()) for each in found]),
            "active neurons, %": 100 * np.mean([each.active_share for each in found]),
            "weights ever active, %": 100 * np.mean([each.itop for each in found]),
            "neurons revived": np.mean([sum(entry.revived for entry in each.log) for each in found]),
        }
    return pd.DataFrame(rows).T


def cost_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 5: multiply-accumulates as a share of the dense network's, of an image and of the whole training.

    Args:
        rows: of the table of trials, one network at its usual length.
    """
    dense = rows[rows["method"] == "dense"]["training MACs"].mean()
    shares = rows.assign(image=rows["MACs"] / rows["dense MACs"], training=rows["training MACs"] / dense)
    table = shares.groupby(["method", "sparsity"])[["image", "training", "test accuracy"]].mean()
    return table.reindex([key for name in METHODS for key in table.index if key[0] == name])


def trainers(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The trainings by the shared protocol, as the report joins them: see `papertwin.sparse.protocol.trainer_table`.

    Args:
        rows: of the table of trials, the perceptron at its usual length.
        params: of the run.
    """
    words = protocol.in_words(params.width, params.sizes, params.epochs, params.every)
    return protocol.trainer_table(zip(rows["method"], rows["sparsity"], rows["seed"], rows["test accuracy"]), words)
