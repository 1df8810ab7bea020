"""All rules: what to wake somebody for, and what to say.

Three habits run through all expressions.

*Thresholds are data.* The age a consumer is allowed, the trigger interval of a query and the interval of a source are
metrics, and the rules compare with those; the numbers here are windows and shares.

*A gap is not an end.* Every gauge is read through a window: a series that is missing from a scrape or two, because a
cycle failed or the monitor was restarted, leaves the alert as it is. FRESH is shorter than every ``hold``, so that one
single sample can never fire by itself.

*One alert a consumer.* Each expression is compared series by series and then aggregated, so neither its partitions nor
two monitors side by side give two alerts for one thing.
"""

from __future__ import annotations

from alerts.clusters import CLUSTER_RULES, WATCHDOG
from alerts.consumers import CONSUMER_RULES, DETAIL_RULES, OVER_OBJECTIVE
from alerts.processors import PROCESSOR_RULES
from alerts.rule import Record, Rule
from alerts.spark import SPARK_RULES
from alerts.words import FRESH

__all__ = ["ALL_RULES", "DETAIL_RULES", "FRESH", "RECORDS", "RULES", "WATCHDOG"]

RULES: tuple[Rule, ...] = (*CONSUMER_RULES, *SPARK_RULES, *PROCESSOR_RULES, *CLUSTER_RULES)
"""What works at every ``metrics.level``."""

ALL_RULES: tuple[Rule, ...] = (*RULES, *DETAIL_RULES, WATCHDOG)

RECORDS: tuple[Record, ...] = (OVER_OBJECTIVE,)
