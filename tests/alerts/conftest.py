"""One Prometheus for all that is asked of samples that are over: the rules' cases, and what backtest replays."""

import pytest
from case_samples import case_lines, openmetrics
from past_samples import past_lines
from prometheus_servers import backfilled


@pytest.fixture(scope="session")
def backfilled_prometheus(tmp_path_factory):
    """The address of a Prometheus that has the samples of every case and of a past (``past_samples``)."""
    with backfilled(tmp_path_factory.mktemp("prometheus"), openmetrics(case_lines(), past_lines())) as address:
        yield address
