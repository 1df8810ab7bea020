"""An app's brokers: where they are, and what they say before it starts: that they are there, and their topics."""

from __future__ import annotations

import asyncio
import os
import tempfile

import faust
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

from monitor.errors import UnreachableError

TIMEOUT_SECONDS = 10.0


def broker_url(bootstrap_servers: str) -> str:
    """Return brokers as Faust wants them: ``kafka://HOST:PORT;HOST:PORT``."""
    return "kafka://" + ";".join(server.strip() for server in bootstrap_servers.split(",") if server.strip())


def data_folder(app_id: str) -> str:
    """Return a folder for an app that keeps nothing in it: Faust makes one in any case."""
    return f"{tempfile.gettempdir()}/{app_id}-{os.getuid()}"


def addresses(app: faust.App) -> str:
    """Return an app's brokers as HOST:PORT, several separated by commas."""
    servers: list[str] = server_list(app.conf.broker, 9092)
    return ",".join(servers)


async def topics(app: faust.App) -> dict[str, int]:
    """Return the topics of an app's brokers with their number of partitions.

    Raises:
        UnreachableError: no broker answers.
    """
    auth = credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context)
    client = AIOKafkaClient(bootstrap_servers=addresses(app), request_timeout_ms=int(TIMEOUT_SECONDS * 1000), **auth)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await client.bootstrap()
            cluster = await client.fetch_all_metadata()
        return {
            topic: len(cluster.partitions_for_topic(topic) or ())
            for topic in cluster.topics(exclude_internal_topics=False)
        }
    except (KafkaError, OSError, TimeoutError) as exc:
        problem = f"no Kafka answers at {addresses(app)} for the app {app.conf.id}: does it run, is the address right?"
        raise UnreachableError(problem) from exc
    finally:
        await client.close()
