"""What the checks of one cluster have found so far: the earlier ones write it, the later ones go on from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from monitor.observe.kafka.cold import ClusterFacts, GroupAccess, Quorum, TopicFacts
from monitor.observe.kafka.transport import Address, Transport, Versions
from monitor.operate.reach import Asker
from monitor.settings import Cluster


@dataclass(slots=True)
class Notes:
    """The notebook of one cluster's checks."""

    cluster: Cluster
    clock: Callable[[], float] = time.time
    """This machine's time, in seconds since the epoch."""
    connect: Callable[[Cluster], Transport] | None = None
    """Makes the connections; ``KafkaTransport`` by default."""

    reached: set[Address] = field(default_factory=set)
    """Addresses that accept connections."""
    greeted: set[Address] = field(default_factory=set)
    """Those of them whose TLS is fine."""
    versions: dict[Address, Versions] = field(default_factory=dict)
    """What each offers that answered requests."""
    silent: dict[Address, str] = field(default_factory=dict)
    """Addresses that accept connections and say nothing: asked once, since each time takes the timeout."""
    described: dict[Address, ClusterFacts] = field(default_factory=dict)
    """What each bootstrap address says of its cluster."""
    brokers: dict[int, Address] = field(default_factory=dict)
    """Where each broker says it listens."""
    operations: frozenset[str] | None = None
    """What we may do on the cluster."""
    quorum: tuple[Quorum, float, float] | None = None
    """The controller quorum, and this machine's time before and after it was asked."""
    topics: Mapping[str, TopicFacts] = field(default_factory=dict)
    groups: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Who lists each group, and its type."""
    access: dict[str, GroupAccess] = field(default_factory=dict)
    _asker: Asker | None = None

    @property
    def seconds(self) -> float:
        """Return how long one step may take."""
        return self.cluster.timeout_seconds

    @property
    def asker(self) -> Asker:
        """Return who asks the brokers as the settings say.

        Raises:
            SettingsError: What the settings name cannot be used.
        """
        if self._asker is None:
            self._asker = self.asker_for(self.cluster)
        return self._asker

    def asker_for(self, cluster: Cluster) -> Asker:
        """Return who asks in another way, for finding out what a port speaks."""
        from monitor.observe.kafka.transport import KafkaTransport  # noqa: PLC0415 (aiokafka costs start-up time)

        return Asker((self.connect or KafkaTransport)(cluster), cluster.timeout_seconds)

    def live(self) -> dict[int, Address]:
        """Return the brokers that answer requests."""
        return {node: address for node, address in self.brokers.items() if address in self.versions}

    def anyone(self) -> Address:
        """Return an address that answers, a broker's own if there is one."""
        return next(iter((*self.live().values(), *self.described)))

    def principal(self) -> str:
        """Return who we are to the brokers' authorizer, as far as the settings tell."""
        sasl = self.cluster.sasl
        return f"User:{sasl.username}" if sasl is not None and sasl.username else "User:NAME"

    def grant(self, resource: str) -> str:
        """Return the command that lets us describe something (``--cluster``, ``--topic T``, ``--group G``)."""
        return (
            f"kafka-acls.sh --bootstrap-server {self.cluster.bootstrap_servers.split(',')[0]} --add "
            f"--allow-principal {self.principal()} --operation Describe {resource}"
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._asker is not None:
            await self._asker.close()
