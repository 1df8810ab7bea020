"""What we are not shown: brokers leave out what one may not describe, without an error.

Without DESCRIBE on the cluster, ListGroups names those groups only that we may describe one by one; whether there are
others, nobody can tell. So the cluster is asked on a slow beat what we may do (KIP-430), and a finding says it. A topic
that members want and Metadata hides is told with its consumer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from monitor.errors import TransportError
from monitor.model import Consumer, Finding, Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import TOPIC_AUTHORIZATION_FAILED, Brokers, ClusterMap, Poll, first_answer, now
from monitor.observe.kafka.transport import Address

INCOMPLETE = "incomplete"
"""The kind of these findings."""

DESCRIBE = 1 << 8
"""AclOperation.DESCRIBE as a bit of authorised operations."""

NOT_SAID = -(2**31)

_HIDDEN_GROUPS = Finding(
    INCOMPLETE,
    "groups may be hidden from us: without DESCRIBE on the cluster its brokers name only the groups we may describe",
)


class Visibility:
    """Knows whether the cluster shows us all of its groups."""

    def __init__(self, brokers: Brokers, interval_seconds: float) -> None:
        self._brokers = brokers
        self._interval_seconds = interval_seconds
        self._ask_at = float("-inf")
        self._hides_groups = False

    async def ask_if_due(self, poll: Poll, cluster_map: ClusterMap) -> None:
        """Ask a broker what we may do on the cluster; without an answer what was known stays."""
        if now() < self._ask_at:
            return
        live = [address for node, address in cluster_map.brokers.items() if node not in poll.down]
        try:
            self._hides_groups = await first_answer([partial(self._ask, address) for address in live])
        except TransportError as exc:
            # Brokers before 2.8 cannot be asked; one that is away is told by what lag needs of it, and asked again.
            if exc.why != Why.UNSUPPORTED:
                return
        self._ask_at = now() + self._interval_seconds

    def findings(
        self, subscribed: Mapping[Consumer, Iterable[str]], topic_errors: Mapping[str, int]
    ) -> tuple[Finding, ...]:
        """Return what is hidden.

        Args:
            subscribed: The topics that the members of each group want.
            topic_errors: The error code of topics that Metadata did not list, by name.
        """
        forbidden = {topic for topic, error in topic_errors.items() if error == TOPIC_AUTHORIZATION_FAILED}
        hidden = [
            Finding(INCOMPLETE, f"{who.name} reads {topic}, which we may not describe", topic, consumer=who)
            for who, topics in (subscribed.items() if forbidden else ())
            for topic in sorted(forbidden.intersection(topics))
        ]
        return (*([_HIDDEN_GROUPS] if self._hides_groups else []), *hidden)

    async def _ask(self, address: Address) -> bool:
        return await self._brokers.ask(
            address, wire.DESCRIBE_CLUSTER, (0, 0), wire.describe_cluster_request, _hides_groups
        )


def _hides_groups(data: bytes, version: int) -> bool:
    error, operations = wire.decode_describe_cluster(data, version)
    return error == 0 and operations != NOT_SAID and not operations & DESCRIBE
