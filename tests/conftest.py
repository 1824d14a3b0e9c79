"""What every test shares: outputs go to a temporary folder, no screen, and one thread of torch."""

import os
from dataclasses import dataclass

import pytest

TOY_LEDGER = """
[paper]
slug = "toy"
title = "Toys & <Games>"
authors = ["A. One", "B. Two"]
venue = "Journal of Toys"
year = 2020
arxiv = "2001.00001"
idea = "Toys are fun."
topic = "play"
[[figure]]
id = "fig1"
caption = "A red toy."
source = "paper"
status = "regenerated"
[[figure]]
id = "fig2"
caption = "A huge toy."
source = "paper"
status = "at-scale-only"
reason = "Needs a factory."
[[table]]
id = "table1"
caption = "Shares."
source = "paper"
status = "regenerated"
[[claim]]
id = "C1"
statement = "Toys roll."
source = "Table 1"
published = "1.2"
rule = { kind = "at_least", value = 1.0, text = "At least 1." }
[[claim]]
id = "C2"
statement = "Toys fly."
source = "Table 2"
published = "yes"
stable = false
rule = { kind = "holds", text = "They fly." }
[[claim]]
id = "C3"
statement = "Toys last."
source = "abstract"
published = "yes"
needs = "full"
rule = { kind = "holds", text = "They last." }
[profiles.quick]
minutes = 1
memory_gb = 1
device = "cpu"
data = ["street"]
[profiles.quick.parameters]
n = 3
rate = 0.1
[profiles.full]
minutes = 10
memory_gb = 1
device = "cpu"
data = ["street"]
[profiles.full.parameters]
n = 30
"""


@pytest.fixture(scope="session")
def toy_ledger():
    """The ledger of a small paper, as TOML text: a figure, one that is too large, a table, claims of every kind."""
    return TOY_LEDGER


@dataclass(frozen=True)
class ToyParams:
    """The parameters of the toy paper."""

    n: int = 3
    rate: float = 0.1
    profile: str = "quick"
    device: str = "cpu"
    seed: int = 0


@pytest.fixture(scope="session")
def toy_run(toy_ledger):
    """Begin a run of the toy paper: a function, because its output folder is chosen when it is called."""
    from papertwin import ledger, run

    return lambda: run.Run(ledger.parse(toy_ledger, "toy"), ToyParams(), {}, "cpu")


@pytest.fixture(scope="session", autouse=True)
def _figures_elsewhere(tmp_path_factory):
    """Keep every run of the test session, also in child processes, out of figures/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERTWIN_FIGURES", str(tmp_path_factory.mktemp("figures")))
        patch.setenv("MPLBACKEND", "Agg")
        yield


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small tensors gain nothing by threads, which wait for one another wherever other programs have the cores.

    Sums do not depend on the cores either. Tests of threads ask for theirs.
    """
    from papertwin.training.loop import single_thread

    with single_thread():
        yield


def pytest_configure():
    """Choose the backend before any test module can import matplotlib."""
    os.environ["MPLBACKEND"] = "Agg"


def pytest_generate_tests(metafunc):
    """Run a test that takes `device` once on every device that this machine has."""
    if "device" in metafunc.fixturenames:
        from papertwin.training.device import available_devices

        metafunc.parametrize("device", available_devices(), ids=str)
