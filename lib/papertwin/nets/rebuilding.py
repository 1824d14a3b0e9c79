"""Published counts beside ours: what was printed, what its rule gives on the rebuilt network, and the truth."""

from dataclasses import asdict, dataclass
from functools import cache

import pandas as pd

from papertwin.nets.catalogue import CATALOGUE, build, entry, input_shape
from papertwin.nets.counting import count
from papertwin.nets.literature import published


@dataclass(frozen=True)
class Rebuilt:
    """A published network and its counts.

    Attributes:
        card: paper.
        network: name in `published`.
        published_params: as printed.
        published_macs: as printed.
        single_view_macs: of one view, where the printed operations are those of several; None elsewhere.
        params: of the rebuilt network, counted by the rule of the publication.
        macs: the same for operations.
        true_params: of the rebuilt network, without those of batch normalisation.
        true_macs: operations of the rebuilt network for one image, auxiliary heads in.
        rule: how the publication counted, in a few words.
        explanation: the same in sentences.
    """

    card: str
    network: str
    published_params: int
    published_macs: int
    single_view_macs: int | None
    params: int
    macs: int
    true_params: int
    true_macs: int
    rule: str
    explanation: str

    @property
    def exact(self) -> bool:
        """Whether both published numbers are reached to the last digit, of several views those of one."""
        macs = self.published_macs if self.single_view_macs is None else self.single_view_macs
        return (self.params, self.macs) == (self.published_params, macs)

    @property
    def as_printed(self) -> bool:
        """Whether the printed numbers are the true counts of the network."""
        return (self.true_params, self.true_macs) == (self.published_params, self.published_macs)


@cache
def rebuilt(card: str, network: str) -> Rebuilt:
    """Rebuild a published network on the meta device and compare its counts.

    Args:
        card: conditional-networks, deep-roots or low-rank-filters.
        network: as in `published`.

    Raises:
        InputError: unknown card or network.

    Example:
        >>> row = rebuilt("deep-roots", "ResNet-200 Orig.")
        >>> row.exact, row.as_printed, row.true_macs
        (True, False, 15007482856)
    """
    rule = entry(card, network).rule
    row = published(card).set_index("network").loc[network]
    counts = count(build(card, network), input_shape(card, network))
    single = row["single_view_macs"]
    return Rebuilt(
        card=card,
        network=network,
        published_params=int(row["published_params"]),
        published_macs=int(row["published_macs"]),
        single_view_macs=None if pd.isna(single) else int(single),
        params=rule.params(counts),
        macs=rule.macs(counts),
        true_params=counts.params,
        true_macs=counts.macs,
        rule=rule.name,
        explanation=rule.explanation,
    )


def rebuilt_table(card: str | None = None) -> pd.DataFrame:
    """Rebuild every network of a paper, or of all three, and compare the counts.

    Returns:
        One row a network: the attributes of `Rebuilt`, exact and as_printed.

    Raises:
        InputError: unknown card.
    """
    names = published(card)[["card", "network"]].itertuples(index=False)
    rows = [rebuilt(each.card, each.network) for each in names if each.network in CATALOGUE[each.card]]
    table = pd.DataFrame([{**asdict(row), "exact": row.exact, "as_printed": row.as_printed} for row in rows])
    return table.astype({"single_view_macs": "Int64"})
