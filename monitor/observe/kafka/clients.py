"""How aiokafka's own consumer and producer reach a cluster, for what reads or writes records of topics.

Lag is read without them (see ``transport``, whose log-in and certificates these are).
"""

from __future__ import annotations

from typing import Any

from monitor.observe.kafka.transport import KafkaTransport, addresses
from monitor.settings import Cluster


def client_options(cluster: Cluster) -> dict[str, Any]:
    """Return where the brokers are and how to log in, as arguments of aiokafka's clients.

    Raises:
        SettingsError: The addresses, or files of certificates, cannot be used.
    """
    options = dict(KafkaTransport(cluster).options)
    options.pop("max_idle_ms")
    return options | {
        "bootstrap_servers": [f"{each.host}:{each.port}" for each in addresses(cluster.bootstrap_servers)],
        "request_timeout_ms": int(cluster.timeout_seconds * 1000),
    }
