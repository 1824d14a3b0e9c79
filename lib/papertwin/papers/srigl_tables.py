"""Tables of SRigL's notebook, and what its figures read off masks and logs.

Part of `papertwin.papers.srigl`, whose trials come in here.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from papertwin.nets import count, vit
from papertwin.papers.srigl import BOXED, IMAGENET, METHODS, PASSES, SPENT_BATCH, Job, active_neurons
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
        A row a method and sparsity: `here`, `lowest`, `highest` over seeds, `published`, NaN where there is none.
    """
    found = rows.groupby(["method", "sparsity"])["test accuracy"].agg(["mean", "min", "max"])
    found.columns = ["here", "lowest", "highest"]
    known = {(name, float(key)): value for name, each in printed.items() for key, value in each.items()}
    order = [(name, sparsity) for name in METHODS for sparsity in sorted({key[1] for key in found.index})]
    found["published"] = [known.get(key, np.nan) for key in found.index]
    return found.reindex([key for key in order if key in found.index])


def vit_table(printed: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Table 2: published accuracies of ViT-B/16, and what its training costs, counted on the rebuilt network.

    Returns:
        A row a method and sparsity: `published`; `weights` that are left of its layers, by the uniform rule;
        multiply-accumulates of an image, if all its layers are sparse; optimiser steps.
    """
    with torch.device("meta"):
        model = vit(seed=0)
    layers = {name: tuple(layer.weight.shape) for name, layer in sparse_layers(model).items()}
    macs = count(model, (3, 224, 224)).macs
    steps = PASSES * -(-IMAGENET // SPENT_BATCH)
    rows = []
    for method, each in printed.items():
        for sparsity, accuracy in each.items():
            weights = sum(budgets(layers, float(sparsity), "uniform").values())
            row = {"method": method, "sparsity": float(sparsity), "published": accuracy}
            rows.append(row | {"weights": weights, "dense MACs": macs, "optimiser steps": steps})
    return pd.DataFrame(rows).set_index(["method", "sparsity"])


def method_table(trials: Trials) -> pd.DataFrame:
    """Table 4: what each sparse method is, read off the masks of the perceptron at 99 %, first seed."""
    rows = {}
    for name, (kind, _) in METHODS.items():
        if kind == "dense":
            continue
        trial = usual_trials(trials, "mlp", name, 0.99)[0]
        rows[name] = {
            "connections move": bool(trial.log),
            "needs gradients of masked weights": UPDATERS[kind].needs_gradients,
            "one fan-in": all(has_constant_fan_in(mask) for mask in trial.masks.values()),
            "active neurons, %": 100 * active_neurons(trial.masks),
            "weights ever active, %": 100 * trial.itop,
            "neurons revived": sum(each.revived for each in trial.log),
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
