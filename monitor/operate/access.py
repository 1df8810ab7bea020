"""What we are let see: of the cluster, of topics, of groups; and whose numbers lack something because of it.

A broker hides what may not be described in three ways. ListGroups leaves out groups, unless we may describe the
cluster; Metadata and OffsetFetch leave out topics; none of these is an error. What is asked for by name is refused
with one. So what members are assigned is compared with what came back, and the difference asked for by name.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from monitor.errors import TransportError
from monitor.model import Why, why_name
from monitor.observe.kafka import cold, wire
from monitor.observe.kafka.transport import Address
from monitor.operate.connection import BROKER_LOGIN
from monitor.operate.doctor import CLUSTER, Check, Line, counted, failed, ok, skipped, some, warning
from monitor.operate.notes import Notes

UNKNOWN_TOPIC_OR_PARTITION = 3
TOPIC_AUTHORIZATION_FAILED = 29
GROUP_AUTHORIZATION_FAILED = 30
GROUP_ID_NOT_FOUND = 69

OFFSETS_TOPIC = "__consumer_offsets"

# Members of Connect and other protocols share work, not partitions; classic is what older brokers do not name.
CLASSIC = "classic"

TOPICS, GROUPS, DESCRIBED = "topics", "groups", "group permissions"


def checks(notes: Notes) -> list[Check]:
    """Return the checks of what we may see, in the order in which they depend on each other."""
    turns = 4  # its own two requests, and those of the others that it may have to wait for
    return [
        Check("cluster permission", partial(_cluster, notes), (CLUSTER,)),
        Check(TOPICS, partial(_topics, notes), (BROKER_LOGIN,), turns),
        Check(OFFSETS_TOPIC, partial(_offsets_topic, notes), (TOPICS,), turns),
        Check(GROUPS, partial(_groups, notes), (BROKER_LOGIN,), turns),
        Check("coordinators", partial(_coordinators, notes), (GROUPS,), turns),
        Check(DESCRIBED, partial(_described, notes), (GROUPS,), turns),
        Check("offsets", partial(_offsets, notes), (GROUPS,), turns),
        Check("consumers", partial(_consumers, notes), (TOPICS, DESCRIBED), turns),
    ]


# --- the cluster ------------------------------------------------------------------------------------------


async def _cluster(notes: Notes) -> Sequence[Line]:
    return [cluster_line(notes.operations, notes.grant("--cluster"))]


def cluster_line(operations: frozenset[str] | None, grant: str) -> Line:
    """Say whether lists of groups are whole: they are for who may describe the cluster."""
    if operations is None:
        return skipped("cluster", "these brokers do not tell what we may do (before Kafka 2.3)")
    if cold.DESCRIBE in operations:
        return ok("cluster", "DESCRIBE: groups are listed in full")
    seen = "no DESCRIBE: groups that we may not describe are left out without an error"
    return failed("cluster", seen, f"grant it: {grant}")


# --- topics -----------------------------------------------------------------------------------------------


async def _topics(notes: Notes) -> Sequence[Line]:
    found = await cold.describe_topics(notes.asker, notes.anyone())
    notes.topics = {topic.name: topic for topic in found}
    return topic_lines([each for each in found if notes.cluster.topics.takes(each.name)], notes.grant("--topic '*'"))


def topic_lines(topics: Sequence[cold.TopicFacts], grant: str) -> list[Line]:
    """Say which topics there are for us, and which partitions cannot be read by anybody right now."""
    if not topics:
        seen = "no topic is visible: there is none, or none that we may describe"
        return [warning("topics", seen, f"if there are some, grant DESCRIBE: {grant}")]
    partitions = sum(topic.partitions for topic in topics)
    lines = [ok("topics", f"{counted(len(topics), 'topic')} with {counted(partitions, 'partition')} may be described")]
    leaderless = [topic for topic in topics if topic.leaderless and topic.name != OFFSETS_TOPIC]
    if leaderless:
        count = sum(len(topic.leaderless) for topic in leaderless)
        which = some(map(_leaderless, leaderless))
        seen = f"{counted(count, 'partition')} without a leader, whose lag is unknown: {which}"
        lines.append(failed("topics", seen, "start the brokers that have their replicas"))
    return lines


def _leaderless(topic: cold.TopicFacts) -> str:
    return f"{topic.name} {some(topic.leaderless)}"


async def _offsets_topic(notes: Notes) -> Sequence[Line]:
    topic = notes.topics.get(OFFSETS_TOPIC)
    if topic is None:
        (topic,) = await cold.describe_topics(notes.asker, notes.anyone(), [OFFSETS_TOPIC])
    return [offsets_topic_line(topic)]


def offsets_topic_line(topic: cold.TopicFacts) -> Line:
    """Say whether every group can have a coordinator: the leader of its partition of __consumer_offsets."""
    if topic.error == TOPIC_AUTHORIZATION_FAILED:
        seen = "may not be described: whether each partition has a leader is not told; numbers do not need it"
        return skipped(OFFSETS_TOPIC, seen)
    if topic.error == UNKNOWN_TOPIC_OR_PARTITION:
        return ok(OFFSETS_TOPIC, "not there yet: no group has committed to Kafka")
    if topic.error:
        return failed(OFFSETS_TOPIC, f"Metadata answers {why_name(topic.error)}", "see the brokers' logs")
    if topic.leaderless:
        seen = (
            f"{counted(len(topic.leaderless), 'partition')} of {topic.partitions} without a leader "
            f"({some(topic.leaderless)}): the groups that belong there have no coordinator and are unknown"
        )
        return failed(OFFSETS_TOPIC, seen, "start the brokers that have their replicas")
    return ok(OFFSETS_TOPIC, f"each of {counted(topic.partitions, 'partition')} has a leader")


# --- groups -----------------------------------------------------------------------------------------------


async def _groups(notes: Notes) -> Sequence[Line]:
    live = notes.live()
    answers = await asyncio.gather(*(_list(notes, address) for address in live.values()))
    lines = []
    for (node, address), answer in zip(live.items(), answers, strict=True):
        if isinstance(answer, str):
            seen = f"broker {node} ({address}) does not list its groups, which are missing: {answer}"
            lines.append(failed(f"broker {node}", seen, "if it has just started, wait a minute"))
            continue
        for group in answer:
            if notes.cluster.groups.takes(group.name):
                notes.groups[group.name] = (node, (group.type or CLASSIC).lower())
    silent = [node for node in notes.brokers if node not in live]
    if silent:
        seen = f"the groups that {_brokers(silent)} coordinate are missing"
        lines.append(failed("groups", seen, "see what failed above about these brokers"))
    return [*([groups_line(notes)] if len(lines) < len(notes.brokers) else []), *lines]


def groups_line(notes: Notes) -> Line:
    """Say how many groups are listed; none at all may be for lack of a permission."""
    if notes.groups or cold.DESCRIBE in (notes.operations or ()):
        return ok("groups", f"{counted(len(notes.groups), 'group')} listed")
    seen = "no group is listed: there is none, or none that we may describe"
    return warning("groups", seen, f"if there are some, grant DESCRIBE: {notes.grant('--cluster')}")


async def _list(notes: Notes, address: Address) -> Sequence[wire.ListedGroup] | str:
    try:
        error, groups = await notes.asker.ask(
            address, wire.LIST_GROUPS, (3, 5), wire.list_groups_request, wire.decode_list_groups
        )
    except TransportError as exc:
        return str(exc)
    return why_name(error) if error else groups


def _brokers(nodes: Sequence[int]) -> str:
    return f"broker{'' if len(nodes) == 1 else 's'} {some(nodes)}"


async def _coordinators(notes: Notes) -> Sequence[Line]:
    if not notes.groups:
        return [skipped("coordinators", "there is no group to ask for")]
    found = await cold.find_coordinators(notes.asker, notes.anyone(), list(notes.groups))
    return coordinator_lines(notes.groups, found)


def coordinator_lines(listed: Mapping[str, tuple[int, str]], found: Mapping[str, cold.Coordinator]) -> list[Line]:
    """Compare who lists a group with who coordinates it, and say which groups have nobody."""
    # Whom we may not ask about is told where groups are described.
    told = {name: each for name, each in found.items() if each.error != GROUP_AUTHORIZATION_FAILED}
    errors: dict[int, list[str]] = defaultdict(list)
    for name, coordinator in told.items():
        if coordinator.error:
            errors[coordinator.error].append(name)
    lines = [
        failed("coordinators", f"{why_name(code)} for {counted(len(names), 'group')}: {some(sorted(names))}",
               "wait a minute if brokers have just started; else see __consumer_offsets")
        for code, names in errors.items()
    ]  # fmt: skip
    moved = [name for name, each in told.items() if not each.error and listed[name][0] != each.node]
    if moved:
        who = f"{counted(len(moved), 'group')}, {some(sorted(moved))}"
        seen = f"{who}: listed by a broker that does not coordinate it (any more)"
        lines.append(warning("coordinators", seen, "run it again: coordinators move when leaders do"))
    if not told:
        lines.append(skipped("coordinators", "there is no group that we may describe"))
    elif not lines:
        nodes = sorted({each.node for each in told.values()})
        seen = f"each of {counted(len(told), 'group')} is listed by its coordinator: {_brokers(nodes)}"
        lines.append(ok("coordinators", seen))
    return lines


async def _described(notes: Notes) -> Sequence[Line]:
    by_place: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, place in notes.groups.items():
        by_place[place].append(name)
    if not by_place:
        return [skipped(DESCRIBED, "there is no group to describe")]
    answers = await asyncio.gather(*(_describe(notes, *place, names) for place, names in by_place.items()))
    for groups, _ in answers:
        notes.access |= {group.name: group for group in groups}
    lines = group_lines(list(notes.access.values()), notes.grant("--group '*'"), notes.grant("--topic '*'"))
    return [*lines, *(line for _, line in answers if line is not None)]


async def _describe(
    notes: Notes, node: int, type_: str, names: Sequence[str]
) -> tuple[list[cold.GroupAccess], Line | None]:
    try:
        known = type_ if type_ in cold.DESCRIBES else CLASSIC
        return await cold.describe_groups(notes.asker, notes.brokers[node], names, known), None
    except TransportError as exc:
        seen = (
            f"{counted(len(names), f'{type_} group')} of broker {node} not described, their members are unknown: {exc}"
        )
        if exc.why == Why.UNSUPPORTED:
            return [], warning(DESCRIBED, seen, "nothing: see versions")
        return [], failed(DESCRIBED, seen, "see what failed above about this broker")


def group_lines(groups: Sequence[cold.GroupAccess], grant_group: str, grant_topic: str) -> list[Line]:
    """Say which groups may be described, and what stands against the others."""
    errors: dict[int, list[str]] = defaultdict(list)
    for group in groups:
        if group.error not in {0, GROUP_ID_NOT_FOUND}:  # gone since it was listed
            errors[group.error].append(group.name)
    fine = sum(1 for group in groups if group.error == 0)
    lines = [ok(DESCRIBED, f"{counted(fine, 'group')} may be described")] if fine else []
    return lines + [_group_error(code, names, grant_group, grant_topic) for code, names in errors.items()]


def _group_error(code: int, names: Sequence[str], grant_group: str, grant_topic: str) -> Line:
    known = {
        GROUP_AUTHORIZATION_FAILED: ("offsets and members are unknown", f"grant DESCRIBE: {grant_group}"),
        TOPIC_AUTHORIZATION_FAILED: (
            "members are unknown, since a topic of theirs may not be described",
            f"grant DESCRIBE: {grant_topic}",
        ),
    }
    effect, what_to_do = known.get(code, ("members are unknown", "run it again in a minute"))
    seen = f"{counted(len(names), 'group')}, {some(sorted(names))}: {effect} ({why_name(code)})"
    return failed(DESCRIBED, seen, what_to_do)


# --- what came back -----------------------------------------------------------------------------------------


async def _offsets(notes: Notes) -> Sequence[Line]:
    """Read every group's committed offsets as a cycle does, and say which came back with an error."""
    by_node: dict[int, list[str]] = defaultdict(list)
    for name, (node, type_) in notes.groups.items():
        if type_ != "share":  # they commit none
            by_node[node].append(name)
    if not by_node:
        return [skipped("offsets", "there is no group that could have committed")]
    shapes = await asyncio.gather(*(_fetch(notes, node, names) for node, names in by_node.items()))
    if any(shape is None for shape in shapes):
        return [skipped("offsets", "these brokers tell offsets of one group at a time (before Kafka 3.0)")]
    return offset_lines([shape for shape in shapes if shape is not None], notes.grant("--group '*'"))


async def _fetch(notes: Notes, node: int, names: Sequence[str]) -> wire.Shape | None:
    def decode(data: bytes, _version: int) -> wire.Shape:
        return wire.OffsetFetchDecoder().decode(data).shape

    try:
        return await notes.asker.ask(
            notes.brokers[node], wire.OFFSET_FETCH, (8, 9), partial(wire.offset_fetch_request, names), decode
        )
    except TransportError as exc:
        if exc.why == Why.UNSUPPORTED:
            return None
        raise


def offset_lines(shapes: Sequence[wire.Shape], grant: str) -> list[Line]:
    """Say for how many groups offsets came back, and why for the others not."""
    errors: dict[int, list[str]] = defaultdict(list)
    for shape in shapes:
        for name, code in zip(shape.groups, shape.group_error.tolist(), strict=True):
            errors[code].append(name)
        for at in shape.error.nonzero()[0].tolist():
            errors[int(shape.error[at])].append(f"{shape.groups[shape.group[at]]} on {shape.topics[shape.topic[at]]}")
    fine, positions = errors.pop(0, []), sum(len(shape) for shape in shapes)
    lines = (
        [ok("offsets", f"{counted(positions, 'position')} of {counted(len(fine), 'group')} came back")] if fine else []
    )
    for code, names in errors.items():
        what_to_do = f"grant DESCRIBE: {grant}" if code == GROUP_AUTHORIZATION_FAILED else "run it again in a minute"
        distinct = sorted(set(names))
        lines.append(failed("offsets", f"{why_name(code)} for {some(distinct)}: their lag is unknown", what_to_do))
    return lines


async def _consumers(notes: Notes) -> Sequence[Line]:
    """Compare what members are assigned with what Metadata shows, and ask by name for the difference."""
    readers = readers_of(notes.access.values())
    hidden = sorted(name for name in readers.keys() - notes.topics.keys() if notes.cluster.topics.takes(name))
    named = await cold.describe_topics(notes.asker, notes.anyone(), hidden) if hidden else ()
    return consumer_lines(readers, {topic.name: topic.error for topic in named}, notes.grant("--topic"))


def readers_of(groups: Iterable[cold.GroupAccess]) -> dict[str, list[str]]:
    """Return the groups whose members are assigned a topic or subscribe to it, by topic."""
    readers: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        for topic in sorted(group.topics):
            readers[topic].append(group.name)
    return dict(readers)


def consumer_lines(readers: Mapping[str, Sequence[str]], errors: Mapping[str, int], grant: str) -> list[Line]:
    """Say which consumers are incomplete; ``errors`` has what Metadata says of the topics it left out."""
    hidden = [topic for topic, code in errors.items() if code == TOPIC_AUTHORIZATION_FAILED]
    gone = [topic for topic, code in errors.items() if code == UNKNOWN_TOPIC_OR_PARTITION]
    lines = [
        failed(
            f"topic {topic}",
            f"read by {some(sorted(readers[topic]))}, may not be described: their lag misses it without an error",
            f"grant DESCRIBE: {grant} {topic}",
        )
        for topic in hidden
    ]
    if gone:
        who = some(sorted({group for topic in gone for group in readers[topic]}))
        lines.append(
            warning("topics", f"{some(gone)} do not exist, and {who} would read them", "make them, or end the readers")
        )
    if not hidden:
        count = counted(len(readers) - len(gone), "topic")
        lines.insert(0, ok("consumers", f"{count} read by members, each of which may be described"))
    return lines
