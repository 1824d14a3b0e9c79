"""Experiments on the Difference of Normals (3DIMPVT 2012, arXiv 1209.1759).

The operator lives in `papertwin.points`; here is what is done with it: which scenes, which radii, which scores.
Deviations from the paper: whether its scans are available could not be verified, so real street scans with our own
boxes stand in for them; the scores are ours, because no evaluation protocol could be verified.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy import stats

from papertwin.claims import Measured
from papertwin.data import registry
from papertwin.errors import DataError
from papertwin.limits import check_choice, check_least, check_parts, check_positive, check_seed, require
from papertwin.points import (
    Scene,
    Segmentation,
    difference_of_normals,
    load_scene,
    load_simulated,
    match_objects,
    normals,
    points_in_box,
    precision,
    segment,
)
from papertwin.training.intervals import bootstrap, grouped_mean_interval, mean_interval, wilson

# The classes of our tables, by the labels of our boxes, of the simulated frames and of KITTI.
LABELS = {"person": "people", "pedestrian": "people", "cyclist": "people", "car": "car", "pole": "pole"}
CLASSES = {"C3a": "car", "C3b": "pole", "C3c": "people"}  # claim → class
FOUND = 0.5  # intersection over union at which an object counts as found
FEWEST = 50  # objects with fewer points are not scored, as they were not annotated
RATIOS = (2, 3, 5, 10, 20)


@dataclass(frozen=True)
class Params:
    """Parameters of the notebook; names, types and defaults as in its parameters cell."""

    scenes: list[str] = field(default_factory=lambda: ["junction", "residential", "avenue", "roadside"])
    show: str = "junction"
    r_small: float = 0.4
    r_large: float = 4.0
    threshold: float = 0.25
    orientation: str = "viewpoint"
    link: float = 0.4
    min_size: int = 50
    max_size: int = 100000
    max_range: float = 15.0
    tiles: int = 8
    kitti_frames: int = 0
    profile: str = "quick"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no experiment can use."""
        check_choice(self, "orientation", ("viewpoint", "pairwise"))
        once = 0 < len(set(self.scenes)) == len(self.scenes)
        require(self, "scenes", once, "it must name one scene or more, each once")
        shown = f"only scenes are computed, so it must be one of these: set show={self.scenes[0]} as well"
        require(self, "show", self.show in self.scenes, shown)
        check_positive(self, "r_small", "link", "max_range")
        require(self, "r_large", self.r_small < self.r_large, f"it must be above r_small, {self.r_small:g} m")
        require(self, "threshold", 0 <= self.threshold < 1, "it must be at least 0 and below 1, as magnitudes are")
        check_least(self, {"min_size": 1, "tiles": 1, "kitti_frames": 0})
        check_parts(self, {"min_size": "max_size"}, "the points of the largest cluster")
        check_seed(self)


def run_scene(scene: Scene, params: Params, **changes: float | str) -> Segmentation:
    """Run the pipeline on one scene; points beyond `max_range` support normals but are never kept."""
    settings = {"r_small": params.r_small, "r_large": params.r_large, "orientation": params.orientation, **changes}
    return segment(
        scene.points,
        threshold=params.threshold,
        link=params.link,
        sizes=(params.min_size, params.max_size),
        region=scene.within(params.max_range),
        device=params.device,
        **settings,
    )


def match_frame(scenes: Sequence[Scene], results: Sequence[Segmentation], reach: float) -> pd.DataFrame:
    """One row per annotated object within reach and with enough points: scene, class, points, recall, iou, cluster."""
    rows = []
    for scene, result in zip(scenes, results, strict=True):
        for match in match_objects(scene.points, scene.boxes_within(reach), result):
            kind = LABELS.get(match.box.label.lower())
            if kind and match.points >= FEWEST:
                found = {"points": match.points, "recall": match.recall, "iou": match.iou, "cluster": match.cluster}
                rows.append({"scene": scene.name, "class": kind, **found, "box": match.box})
    columns = ["scene", "class", "points", "recall", "iou", "cluster", "box"]
    return pd.DataFrame(rows, columns=columns)


def class_table(objects: pd.DataFrame) -> pd.DataFrame:
    """Per class: objects, found (IoU ≥ 0.5) with its 95 % Wilson interval, recall and IoU as means over objects."""
    rows = {}
    for kind, group in objects.groupby("class"):
        found = int((group.iou >= FOUND).sum())
        low, high = wilson(found, len(group))
        shares = {"share": found / len(group), "95 % low": low, "95 % high": high}
        scores = {"recall": group.recall.mean(), "IoU": group.iou.mean()}
        rows[kind] = {"objects": len(group), "found": found, **shares, **scores}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")


def evaluation_table(scenes: Sequence[Scene], params: Params) -> pd.DataFrame:
    """Table 1: per class, for both orientations and also far beyond `max_range`.

    The last two columns concern all classes together: precision is the mean over scenes of the share of kept points
    that lie in any box (a lower bound: façades, trees and cars too sparse to annotate have none); matched clusters is
    the share of all clusters that match an annotated object with IoU ≥ 0.5.
    """
    parts = {}
    for orientation, reach in (("viewpoint", params.max_range), ("pairwise", params.max_range), ("viewpoint", 30.0)):
        setting = replace(params, orientation=orientation, max_range=reach)
        results = [run_scene(scene, setting) for scene in scenes]
        objects = match_frame(scenes, results, reach)
        table = class_table(objects)
        table["precision"] = np.mean([precision(s.points, s.boxes, r.kept) for s, r in zip(scenes, results)])
        table["matched clusters"] = matched_clusters(objects) / sum(cluster_count(result) for result in results)
        parts[orientation, f"{reach:g}"] = table
    return pd.concat(parts, names=["orientation", "within (m)"])


def cluster_count(result: Segmentation) -> int:
    """Number of clusters."""
    return int(result.labels.max(initial=-1)) + 1


def matched_clusters(objects: pd.DataFrame) -> int:
    """Number of clusters that match an object with IoU ≥ 0.5."""
    return len(objects[objects.iou >= FOUND][["scene", "cluster"]].drop_duplicates())


def sensitivity_table(scenes: Sequence[Scene], params: Params) -> pd.DataFrame:
    """Table 3: found / all objects per class when one setting is changed, and the number of clusters."""
    tutorial = {"r_small": 0.2, "r_large": 2.0, "link": 0.2}
    settings = {"as above": {}, "tutorial: 0.2 m, 2 m, link 0.2 m": tutorial, "link 0.2 m": {"link": 0.2}}
    settings |= {f"τ = {value}": {"threshold": value} for value in (0.2, 0.3)}
    settings |= {f"at least {size} points": {"min_size": size} for size in (20, 100)}
    rows = {}
    for name, changes in settings.items():
        results = [run_scene(scene, replace(params, **changes)) for scene in scenes]
        objects = match_frame(scenes, results, params.max_range)
        found = {kind: f"{(g.iou >= FOUND).sum()} / {len(g)}" for kind, g in objects.groupby("class")}
        rows[name] = {**found, "clusters": sum(cluster_count(result) for result in results)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")


def found_share(objects: pd.DataFrame, kind: str, seed: int = 0) -> Measured:
    """Measure claims C3: the share of a class's objects that have a cluster with IoU ≥ 0.5.

    The interval takes objects as independent; the note gives each scene's count and the interval that draws scenes too.
    """
    group = objects[objects["class"] == kind]
    if group.empty:
        return Measured(None, note=f"no annotated {kind} within range")
    hits = (group.iou >= FOUND).to_numpy()
    scenes = ", ".join(f"{name} {(g.iou >= FOUND).sum()} of {len(g)}" for name, g in group.groupby("scene"))
    low, high = grouped_mean_interval(hits.astype(float), group.scene.to_numpy(), seed)
    note = f"{hits.sum()} of {len(hits)} objects ({scenes}); drawing scenes too: [{low:.2f}, {high:.2f}]"
    return Measured(float(hits.mean()), wilson(int(hits.sum()), len(hits)), note)


def scale_selectivity(scenes: Sequence[Scene], params: Params) -> Measured:
    """Measure claim C2: how much larger the share of a car above τ is at (0.4, 4) m than at (0.1, 1) m.

    Points without a normal count as not above τ, as in the method. The note says how many those are at the smaller
    radii, and what remains of the gain on the points where both pairs of normals exist.
    """
    cars = pd.concat([_car_shares(scene, params) for scene in scenes], ignore_index=True)
    if cars.empty:
        return Measured(None, note="no annotated car within range")
    gain, defined = (cars.large - cars.small).to_numpy(), (cars.large_defined - cars.small_defined).to_numpy()
    low, high = grouped_mean_interval(gain, cars.scene.to_numpy(), params.seed)
    only_low, only_high = mean_interval(defined, params.seed)
    note = (
        f"{len(cars)} cars; drawing scenes too: [{low:.2f}, {high:.2f}]. {cars.undefined.mean():.0%} of a car's points "
        f"have no normal at 0.1 m and count as not above; on points with all four normals the gain is "
        f"{defined.mean():.2f} [{only_low:.2f}, {only_high:.2f}]"
    )
    return Measured(float(gain.mean()), mean_interval(gain, params.seed), note)


def _car_shares(scene: Scene, params: Params) -> pd.DataFrame:
    large, small = (response(scene.points, *radii, params) for radii in ((0.4, 4.0), (0.1, 1.0)))
    above = {"large": large > params.threshold, "small": small > params.threshold}
    defined = np.isfinite(large) & np.isfinite(small)
    rows = []
    for box in scene.boxes_within(params.max_range):
        inside = points_in_box(scene.points, box.centre, box.size, box.yaw)
        if box.label == "car" and (both := inside & defined).any():
            shares = {name: mask[inside].mean() for name, mask in above.items()}
            only = {f"{name}_defined": mask[both].mean() for name, mask in above.items()}
            rows.append({"scene": scene.name, **shares, **only, "undefined": np.isnan(small[inside]).mean()})
    return pd.DataFrame(rows)


def response(points: np.ndarray, r_small: float, r_large: float, params: Params, **options: float | str) -> np.ndarray:
    """‖Δn̂‖ with the run's orientation and device, (n,); NaN where a normal is missing at either radius."""
    settings = {"orientation": params.orientation, "device": params.device, **options}
    difference, undefined = difference_of_normals(points, r_small, r_large, return_undefined=True, **settings)
    magnitude = np.linalg.norm(difference, axis=1)
    magnitude[undefined] = np.nan
    return magnitude


def ratio_sweep(scenes: Sequence[Scene], params: Params, ratios: Sequence[float] = RATIOS) -> pd.DataFrame:
    """Object IoU (rows: objects) for several r_l / r_s (columns), r_s fixed."""
    columns = {}
    for ratio in ratios:
        results = [run_scene(scene, params, r_large=ratio * params.r_small) for scene in scenes]
        columns[ratio] = match_frame(scenes, results, params.max_range).iou
    return pd.DataFrame(columns)


def sweep_means(sweep: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean object IoU per ratio with its bootstrap interval over objects: columns mean, low, high."""
    rows = {}
    for ratio, scores in sweep.items():
        low, high = mean_interval(scores.to_numpy(), seed) if len(scores) else (np.nan, np.nan)
        rows[ratio] = {"mean": scores.mean(), "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index")


def advice_margin(sweep: pd.DataFrame, seed: int, advised: float = 10) -> Measured:
    """Measure claim C5: mean IoU at the advised ratio minus that of the best other ratio.

    Args:
        sweep: result of `ratio_sweep`.
        seed: of the bootstrap over objects; the best other ratio is chosen anew in each resample.
        advised: the ratio under test.
    """
    if sweep.empty:
        return Measured(None, note="no annotated object within range")
    scores, column = sweep.to_numpy(), sweep.columns.get_loc(advised)

    def margin(rows: np.ndarray) -> float:
        means = scores[rows].mean(axis=0)
        return float(means[column] - np.delete(means, column).max())

    best = sweep.drop(columns=advised).mean().idxmax()
    interval = bootstrap(margin, len(scores), seed)
    return Measured(margin(np.arange(len(scores))), interval, f"best other ratio: {best:g}; {len(scores)} objects")


def magnitude_bounds(scenes: Sequence[Scene], params: Params) -> Measured:
    """Measure claim C6: the largest ‖Δn̂‖ over all points of all scenes, with a rounding allowance of 1e-12."""
    largest = {}
    for name in ("viewpoint", "pairwise"):
        responses = [response(s.points, params.r_small, params.r_large, params, orientation=name) for s in scenes]
        largest[name] = max(float(np.nanmax(values)) for values in responses)
    holds = largest["viewpoint"] <= 1 + 1e-12 and largest["pairwise"] <= np.sqrt(0.5) + 1e-12
    return Measured(bool(holds), note=", ".join(f"{name}: at most {value:.4f}" for name, value in largest.items()))


def voxel_agreement(scenes: Sequence[Scene], params: Params, decimations: Sequence[float] = (10, 100)) -> pd.DataFrame:
    """Exact against voxelised search surface: Spearman correlation of ‖Δn̂‖ and seconds, per decimation and scene.

    Orientation is pairwise, so that flipped signs of nearly equal normals do not hide the agreement. Points without
    a normal count as 0, as in the method.
    """
    rows = []
    for scene in scenes:
        magnitudes, seconds = {}, {}
        for decimation in (None, *decimations):
            began = time.perf_counter()
            options = {"orientation": "pairwise", "surface_voxel": decimation}
            magnitudes[decimation] = np.nan_to_num(
                response(scene.points, params.r_small, params.r_large, params, **options)
            )
            seconds[decimation] = time.perf_counter() - began
        for decimation in decimations:
            correlation = float(stats.spearmanr(magnitudes[None], magnitudes[decimation]).statistic)
            times = {"exact s": seconds[None], "voxel s": seconds[decimation]}
            rows.append({"decimation": decimation, "scene": scene.name, "spearman": correlation, **times})
    return pd.DataFrame(rows).set_index(["decimation", "scene"]).sort_index()


def smallest_agreement(agreement: pd.DataFrame, decimation: float = 10) -> Measured:
    """Measure claim C7: the smallest correlation over the scenes at one decimation."""
    rows = agreement.loc[decimation]
    speed = (rows["exact s"] / rows["voxel s"]).median()
    return Measured(float(rows.spearman.min()), note=f"median speed-up over our exact operator: {speed:.1f}×")


def cost_scaling(scene: Scene, params: Params, repeats: int = 5) -> pd.DataFrame:
    """Seconds of the operator on 1, 2, 4, … copies of a scene laid side by side (constant density).

    Returns:
        columns points, repeat, seconds; sizes up to `params.tiles` copies.
    """
    pitch = np.ptp(scene.points[:, 0]) + 2 * params.r_large
    sizes = sorted({1 << k for k in range(params.tiles.bit_length())} | {params.tiles})
    rows = []
    for repeat in range(repeats):
        for copies in sizes:
            cloud = np.concatenate([scene.points + np.array([k * pitch, 0, 0]) for k in range(copies)])
            seconds = _seconds(cloud, params.r_small, params.r_large, params)
            rows.append({"points": len(cloud), "repeat": repeat, "seconds": seconds})
    return pd.DataFrame(rows)


def radius_cost(scene: Scene, params: Params, radii: Sequence[float] = (0.1, 0.4, 1.0, 4.0, 10.0)) -> pd.DataFrame:
    """Seconds of the normals of one scene against the radius, and the mean number of neighbours."""
    rows = []
    for radius in radii:
        began = time.perf_counter()
        counts = normals(scene.points, radius, device=params.device).counts
        rows.append({"radius": radius, "neighbours": counts.mean(), "seconds": time.perf_counter() - began})
    return pd.DataFrame(rows)


def _seconds(points: np.ndarray, r_small: float, r_large: float, params: Params) -> float:
    began = time.perf_counter()
    difference_of_normals(points, r_small, r_large, orientation=params.orientation, device=params.device)
    return time.perf_counter() - began


def cost_exponent(timings: pd.DataFrame) -> Measured:
    """Measure claim C1: the exponent of seconds ∝ points^a, 95 % t-interval over repeats."""
    if timings.points.nunique() < 2:
        return Measured(None, note="one size only: set tiles to 2 or more")
    slopes = [
        stats.linregress(np.log(group.points), np.log(group.seconds)).slope for _, group in timings.groupby("repeat")
    ]
    mean = float(np.mean(slopes))
    half = float(stats.t.ppf(0.975, len(slopes) - 1) * stats.sem(slopes))
    rate = timings.points.max() / timings[timings.points == timings.points.max()].seconds.median()
    return Measured(mean, (mean - half, mean + half), f"{rate / 1e6:.2f} million points per second at the largest size")


LAND_COVER = {2: "ground", 3: "low vegetation", 4: "medium vegetation", 5: "high vegetation", 6: "building"}


def land_cover_table(magnitude: np.ndarray, codes: np.ndarray, threshold: float) -> pd.DataFrame:
    """Table 2: per land-cover class the number of points and the share with ‖Δn̂‖ > τ."""
    rows = []
    for code, name in LAND_COVER.items():
        chosen = magnitude[codes == code]
        if len(chosen):
            rows.append({"class": name, "points": len(chosen), "above τ": float((chosen > threshold).mean())})
    return pd.DataFrame(rows).set_index("class")


def undefined_table(scenes: Sequence[Scene], results: Sequence[Segmentation], reach: float) -> pd.DataFrame:
    """Per scene, within reach: points, points without a normal at either radius, kept points, clusters."""
    rows = {}
    for scene, result in zip(scenes, results, strict=True):
        near = scene.within(reach)
        counts = {"points": near.sum(), "no normal": result.undefined[near].sum(), "kept": result.kept.sum()}
        rows[scene.name] = {**counts, "clusters": cluster_count(result)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("scene")


def simulated_objects(params: Params, reach: float = 30.0) -> pd.DataFrame:
    """Score the five simulated frames, whose boxes are exact, within a larger reach: near it no car stands."""
    scenes, wide = load_simulated(), replace(params, max_range=reach)
    return match_frame(scenes, [run_scene(scene, wide) for scene in scenes], reach)


def kitti_objects(params: Params) -> tuple[int, str, pd.DataFrame]:
    """Score the first `params.kitti_frames` frames of the user's KITTI folder, one at a time.

    Returns:
        How many frames were scored, why not more, and their objects as `match_frame` has them. Without the folder
        nothing is scored and the reason says where it is expected: the rest of the notebook does not need it.

    Raises:
        DataError: the folder is there and a frame in it cannot be read.
    """
    parts, labels, reason = [match_frame([], [], params.max_range)], [], f"kitti_frames = {params.kitti_frames}"
    if params.kitti_frames:
        try:
            labels = sorted((registry.folder("kitti") / "label_2").glob("*.txt"))[: params.kitti_frames]
        except DataError as absent:
            reason = str(absent)
    for path in labels:
        scene = load_scene(f"kitti/{path.stem}")
        parts.append(match_frame([scene], [run_scene(scene, params)], params.max_range))
    return len(labels), reason, pd.concat(parts, ignore_index=True)


def kitti_cars(frames: int, reason: str, objects: pd.DataFrame) -> Measured:
    """Measure claim C4 on scored KITTI objects; NOT JUDGED, with the reason, below the rule's 100 frames."""
    if frames < 100:
        return Measured(None, note=f"{frames} KITTI frames scored, the rule asks for at least 100; {reason}")
    return found_share(objects, "car")
