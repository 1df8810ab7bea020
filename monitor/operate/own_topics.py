"""Making the monitor's own topics: which there are, and how long they keep what is in them."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from monitor.errors import UnreachableError
from monitor.observe.kafka.clients import client_options
from monitor.settings import Cluster

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

TOPICS: dict[str, dict[str, str]] = {
    "streamgauge.lag": {"retention.ms": str(2 * DAY_MS)},  # a worker that was away for a day still rolls up all of it
    "streamgauge.faust": {"retention.ms": str(HOUR_MS), "segment.ms": str(HOUR_MS)},
    "streamgauge.spark": {"retention.ms": str(DAY_MS)},
    # Rollups of an hour are removed by their writer after 28 days, those of a minute after one; the longest stay 400.
    "streamgauge.rollups": {"cleanup.policy": "compact,delete", "retention.ms": str(400 * DAY_MS)},
}
"""Name and settings of each; all have one partition: a sample of each consumer a cycle is not much."""

MOST_REPLICAS = 3


async def make_own_topics(cluster: Cluster) -> list[str]:
    """Make those that do not exist, and return their names.

    Raises:
        UnreachableError: the brokers do not answer, or refuse one.
    """
    admin = AIOKafkaAdminClient(**client_options(cluster))
    try:
        await admin.start()
        there = set(await admin.list_topics())
        replicas = min(MOST_REPLICAS, len((await admin.describe_cluster())["brokers"]))
        wanted = [
            NewTopic(name, 1, replicas, topic_configs=settings)
            for name, settings in TOPICS.items()
            if name not in there
        ]
        answer = await admin.create_topics(wanted) if wanted else None
        errors = [] if answer is None else [(topic, code, *text) for topic, code, *text in answer.topic_errors]
        for topic, code, *text in errors:
            if code not in {0, TopicAlreadyExistsError.errno}:
                said = f" ({text[0]})" if text and text[0] else ""
                problem = f"making topic {topic} in cluster {cluster.name}: {for_code(code).__name__}{said}"
                raise UnreachableError(problem)
        return [topic for topic, code, *_ in errors if code == 0]
    except (KafkaError, OSError, TimeoutError) as exc:
        problem = (
            f"making the monitor's topics in cluster {cluster.name} at {cluster.bootstrap_servers} failed: "
            f"{type(exc).__name__}: {' '.join(str(exc).split())}: check with streamgauge doctor"
        )
        raise UnreachableError(problem) from exc
    finally:
        await admin.close()
