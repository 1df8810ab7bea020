"""Which Kafka a broker is, by what it offers, and which of our features it lacks.

A broker does not tell its release. The newest ``metadata.version`` it knows (KIP-584) tells it for brokers of KRaft
clusters; else the versions of its requests do, and both are lower bounds: a vendor may offer more than was released.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

METADATA_VERSION = "metadata.version"

# The first level of each release (MetadataVersion.java).
METADATA_LEVELS = (
    (1, "3.0"), (2, "3.1"), (3, "3.2"), (4, "3.3"), (8, "3.4"), (9, "3.5"), (12, "3.6"), (15, "3.7"), (20, "3.8"),
    (21, "3.9"), (22, "4.0"), (26, "4.1"), (28, "4.2"), (30, "4.3"),
)  # fmt: skip

NEWEST_LEVEL = METADATA_LEVELS[-1][0]

# API key and version that came with a release, newest first.
SINCE = (
    ((16, 5), "3.8"),  # ListGroups v5: types of groups (KIP-848)
    ((1, 15), "3.5"),  # Fetch v15 (KIP-903)
    ((1, 13), "3.1"),  # Fetch v13: topic ids (KIP-516)
    ((2, 7), "3.0"),  # ListOffsets v7: the largest timestamp (KIP-734)
    ((60, 0), "2.8"),  # DescribeCluster (KIP-700)
    ((3, 8), "2.3"),  # Metadata v8: authorised operations (KIP-430)
)


class Feature(NamedTuple):
    """Something of ours that rests on a request: what it is, API key and version, and what is done without it.

    ``part_of`` is the API key of what it is a part of: where that is lacking, nobody asks for the part.
    """

    name: str
    api_key: int
    version: int
    instead: str
    part_of: int | None = None


FEATURES = (
    Feature("cluster described (DescribeCluster)", 60, 0, "Metadata is asked instead"),
    Feature("offsets of many groups at once (OffsetFetch v8)", 9, 8, "each group is asked by itself"),
    Feature("topic ids (Metadata v10)", 3, 10, "a topic that was made anew shows by its offsets only"),
    Feature("types of groups (ListGroups v5)", 16, 5, "every group counts as a classic one"),
    Feature("members of consumer groups of KIP-848 (ConsumerGroupDescribe)", 69, 0, "it has no such groups"),
    Feature("share groups (ShareGroupDescribe v1)", 77, 1, "it has no such groups, or only as a preview"),
    Feature("lag of share groups (DescribeShareGroupOffsets v1)", 90, 1, "their lag is unknown", 77),
    Feature("streams groups of KIP-1071 (StreamsGroupDescribe)", 89, 0, "it has no such groups"),
    Feature("the controller's clock (DescribeQuorum v1)", 55, 1, "clocks are not compared"),
)

Versions = Mapping[int, tuple[int, int]]


def release(metadata_level: int | None, offered: Versions) -> str | None:
    """Return the oldest release that a broker can be; None before Kafka 2.3.

    Args:
        metadata_level: The newest ``metadata.version`` it knows, None if it names none (ZooKeeper, or before 3.0).
        offered: Lowest and highest version of each request, by API key.
    """
    if metadata_level:
        at = bisect_right([level for level, _ in METADATA_LEVELS], metadata_level)
        return METADATA_LEVELS[at - 1][1]
    return next((name for (key, version), name in SINCE if offered.get(key, (0, -1))[1] >= version), None)


def lacking(offered: Versions) -> list[Feature]:
    """Return the features that a broker does not offer."""
    missing = [each for each in FEATURES if offered.get(each.api_key, (0, -1))[1] < each.version]
    return [each for each in missing if each.part_of not in {other.api_key for other in missing}]
