"""Who is in the groups of a cluster that may be of any kind, change at any moment and be refused."""

import pytest

from monitor.model import Failure, Member
from monitor.observe.kafka import groups
from monitor.observe.kafka.cluster import Brokers, MapKeeper, Patience, Poll
from monitor.observe.kafka.groups import GroupKeeper
from monitor.observe.kafka.transport import KafkaTransport, addresses
from monitor.sandbox import fake
from monitor.sandbox.fake import Call, ErrorCode, FakeCluster, Garbage, Hang, Omit
from monitor.settings import Cluster, Filter

DESCRIBES = ("DescribeGroups", "ConsumerGroupDescribe", "ShareGroupDescribe", "StreamsGroupDescribe")
HOUR = 3600.0


class Observer:
    """A GroupKeeper with what it needs; ``cycle`` lists and describes once."""

    def __init__(self, cluster: FakeCluster, *, beat: float = HOUR, takes=lambda _: True):
        settings = Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=0.5)
        self.brokers = Brokers(KafkaTransport(settings), settings.timeout_seconds)
        self.map = MapKeeper(self.brokers, addresses(settings.bootstrap_servers), HOUR)
        self.patience = Patience(0.0)
        self.clock = 1000.0
        self.keeper = GroupKeeper(self.brokers, beat, takes, lambda: self.clock)

    async def cycle(self) -> Poll:
        poll = Poll()
        self.patience.start()
        await self.map.refresh_if_due(poll)
        await self.keeper.list(poll, self.map.map, self.patience)
        await self.keeper.describe(poll, self.map.map)
        return poll

    def __getitem__(self, name: str) -> groups.Group:
        return self.keeper.groups[name]


@pytest.fixture
async def cluster():
    """Three brokers and two topics."""
    async with FakeCluster(brokers=3) as fake_cluster:
        fake_cluster.topic("orders", partitions=6)
        fake_cluster.topic("refunds", partitions=2)
        yield fake_cluster


@pytest.fixture
async def observer(cluster):
    watching = Observer(cluster)
    yield watching
    await watching.brokers.close()


@pytest.fixture
async def make(cluster):
    """Make further observers of the cluster, closed in the end."""
    made = []

    def make(**options):
        made.append(Observer(cluster, **options))
        return made[-1]

    yield make
    for each in made:
        await each.brokers.close()


def joined(client: str = "app-1", partitions=(0, 1), **more) -> fake.Member:
    return fake.Member(client, {"orders": list(partitions)}, host="/10.0.0.1", **more)


def descriptions(cluster: FakeCluster) -> int:
    return sum(cluster.count(api) for api in DESCRIBES)


def asked_with(cluster: FakeCluster, api: str | None = None) -> list[bytes]:
    """Return a list that the bodies of all requests to come are added to."""
    bodies = []

    def note(_header, body) -> bool:
        bodies.append(body)
        return False

    cluster.fail(api, when=note)
    return bodies


def failures(poll: Poll) -> list[tuple[str, str, str]]:
    return [(each.scope, each.name, each.error) for each in poll.failures]


# --- kinds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "api", "told"),
    [
        pytest.param("classic", "DescribeGroups", ("range", None, None), id="classic"),
        pytest.param("consumer", "ConsumerGroupDescribe", ("range", 7, 5), id="KIP-848"),
        pytest.param("share", "ShareGroupDescribe", ("range", 7, 5), id="share"),
        pytest.param("streams", "StreamsGroupDescribe", (None, 7, 5), id="streams"),
    ],
)
async def test_each_kind_is_described_by_its_own_request(cluster, observer, kind, api, told):
    """Members, what they read and want, assignor, epochs, who coordinates it and when that was read."""
    made = cluster.group("g", type=kind, members=[joined(epoch=5, instance_id="i")], coordinator=2)
    made.epoch = 7
    poll = await observer.cycle()

    assignor, epoch, member_epoch = told
    group, owned = observer["g"], (("orders", 0), ("orders", 1))
    member_id = made.members[0].member_id
    instance = None if kind == "share" else "i"
    assert (Member(member_id, "app-1", "/10.0.0.1", instance, member_epoch, owned),) == group.owners
    assert dict.fromkeys(owned, "app-1") == group.assigned
    assert frozenset({"orders"}) == group.subscribed
    assert ("Stable", kind, 1, assignor, epoch, 2) == (
        group.state,
        group.protocol,
        group.members,
        group.assignor,
        group.epoch,
        group.coordinator,
    )
    assert 1000.0 == group.described_at
    assert (1, 1, []) == (cluster.count(api), descriptions(cluster), poll.failures)


@pytest.mark.parametrize(
    ("protocol_type", "member"),
    [
        pytest.param("connect", joined(subscription_bytes=b"\0\1x", assignment_bytes=b"\0\1y"), id="Connect"),
        pytest.param("sr", joined(subscription_bytes=b"{}", assignment_bytes=b"{}"), id="Schema Registry"),
        pytest.param("consumer", joined(subscription_bytes=b"\0", assignment_bytes=b"\0"), id="broken bytes"),
    ],
)
async def test_members_that_speak_of_no_topics(cluster, observer, protocol_type, member):
    """They are members, on no partitions, and what they subscribe to cannot be told."""
    cluster.group("g", protocol_type=protocol_type, members=[member])
    await observer.cycle()

    group = observer["g"]
    assert (protocol_type, 1, {}, None) == (group.protocol_type, group.members, group.assigned, group.subscribed)


async def test_a_subscription_by_pattern_is_unknown(cluster, observer):
    """One member that subscribes by pattern is enough: the topics of the others are not all."""
    members = [joined("app-1", [0], subscription=["refunds"]), joined("app-2", [1], subscription_regex="ord.*")]
    cluster.group("g", type="consumer", members=members)
    cluster.group("names", type="consumer", members=[joined(subscription=["orders", "refunds"])])
    await observer.cycle()

    assert observer["g"].subscribed is None
    assert {("orders", 0): "app-1", ("orders", 1): "app-2"} == observer["g"].assigned
    assert frozenset({"orders", "refunds"}) == observer["names"].subscribed


async def test_a_partition_that_many_read_has_no_owner(cluster, observer):
    """Members of a share group read the same partitions: all are told, none owns them."""
    cluster.group("g", type="share", members=[joined("app-1", [0, 1]), joined("app-2", [1])])
    await observer.cycle()

    assert {("orders", 0): "app-1", ("orders", 1): ""} == observer["g"].assigned
    assert [2, 1] == [len(member.assigned) for member in observer["g"].owners]


async def test_tasks_on_partitions_that_a_topic_lacks(cluster, observer):
    """A task is one number for topics of different sizes: only what exists is assigned."""
    cluster.group("g", type="streams", members=[fake.Member("s", {"refunds": [0, 1, 2, 3]})])
    await observer.cycle()

    assert {("refunds", 0): "s", ("refunds", 1): "s"} == observer["g"].assigned
    assert (("refunds", 0), ("refunds", 1)) == observer["g"].owners[0].assigned


@pytest.mark.parametrize("state", ["Empty", "Dead"])
async def test_a_group_without_members_is_not_described(cluster, observer, state):
    """Its lists say all there is: nobody, and 0 is a number that was told."""
    cluster.group("g", {("orders", 0): 3}, protocol_type="", state=state)
    await observer.cycle()

    assert (0, {}, (), None) == (
        observer["g"].members,
        observer["g"].assigned,
        observer["g"].owners,
        observer["g"].subscribed,
    )
    assert 0 == descriptions(cluster)


async def test_a_kind_that_is_not_known_yet(cluster, observer):
    """A group of a type to come is listed; how many members it has is unknown, and nobody is asked."""
    cluster.group("g", type="future", members=[joined()])
    poll = await observer.cycle()

    assert ("future", None, []) == (observer["g"].protocol, observer["g"].members, poll.failures)
    assert 0 == descriptions(cluster)


# --- brokers that do not tell the type --------------------------------------------------------------


@pytest.fixture
async def old_cluster():
    """One broker of a release whose lists tell no type."""
    async with FakeCluster(release="3.7") as fake_cluster:
        fake_cluster.topic("orders", partitions=6)
        yield fake_cluster


@pytest.mark.parametrize("classic_version", [5, 6], ids=["dead", "GROUP_ID_NOT_FOUND"])
async def test_a_new_group_on_a_broker_that_tells_no_types(old_cluster, classic_version):
    """Its coordinator knows no classic group of that name: then it is asked for the new kind, and at once next time."""
    broker = old_cluster.brokers[1]
    broker.versions |= {"ConsumerGroupDescribe": (0, 0), "DescribeGroups": (0, classic_version)}
    old_cluster.has_consumer_protocol = True
    old_cluster.group("new", type="consumer", members=[joined()])
    old_cluster.group("old", members=[joined()])
    observer = Observer(old_cluster, beat=0.0)
    polls = [await observer.cycle(), await observer.cycle()]
    await observer.brokers.close()

    assert [[], []] == [poll.failures for poll in polls]
    assert (["consumer", "classic"], [1, 1]) == (
        [observer[name].protocol for name in ("new", "old")],
        [observer[name].members for name in ("new", "old")],
    )
    assert (2, 2) == (old_cluster.count("DescribeGroups"), old_cluster.count("ConsumerGroupDescribe"))


async def test_a_new_group_that_nobody_can_describe(old_cluster):
    """Where the broker does not offer the description, the members are unknown, with what it said as the reason."""
    old_cluster.group("new", type="consumer", members=[joined()])
    observer = Observer(old_cluster)
    poll = await observer.cycle()
    await observer.brokers.close()

    assert (None, None) == (observer["new"].members, observer["new"].protocol)
    assert [("group", "new", "GROUP_ID_NOT_FOUND")] == failures(poll)
    assert poll.up


async def test_a_description_that_the_broker_does_not_offer(cluster, observer):
    """It is told with the group, says nothing against the broker, and is not asked for again and again."""
    for broker in cluster.brokers.values():
        del broker.versions["ShareGroupDescribe"]
    cluster.group("jobs", type="share", members=[joined()])
    cluster.group("old", members=[joined()])
    polls = [await observer.cycle(), await observer.cycle()]

    assert [[("group", "jobs", "UNSUPPORTED")]] * 2 == [failures(poll) for poll in polls]
    assert polls[0].up
    assert (None, 1) == (observer["jobs"].members, observer["old"].members)


# --- which groups -----------------------------------------------------------------------------------


async def test_groups_that_are_not_wanted_are_never_asked_for(cluster, make):
    """What the filter leaves out is in no request and nowhere in what is known."""
    wanted = Filter(include=("billing-*",), exclude=("*-test",))
    for name in ("billing-1", "billing-2-test", "shipping"):
        cluster.group(name, members=[joined()])
    bodies = asked_with(cluster)
    observer = make(takes=wanted.takes)
    await observer.cycle()

    assert {"billing-1"} == observer.keeper.groups.keys()
    assert any(b"billing-1" in body for body in bodies)
    assert not any(b"shipping" in body or b"-test" in body for body in bodies)


async def test_a_group_that_two_brokers_list(cluster, observer):
    """It is one group: whoever does not coordinate it says so, and the other describes it in the same cycle."""
    for name, coordinator in [("a", 3), ("b", 1)]:
        cluster.group(name, members=[joined()], coordinator=coordinator)
        cluster.groups[name].listed_by = {1, 3}
    poll = await observer.cycle()

    assert [(1, 3), (1, 1)] == [(observer[name].members, observer[name].coordinator) for name in "ab"]
    assert [] == poll.failures
    assert 2 == descriptions(cluster), "both at broker 1, then one at broker 3"

    cluster.groups["a"].state = "PreparingRebalance"
    await observer.cycle()
    assert 3 == descriptions(cluster), "the one that described it is asked first"


async def test_a_group_that_two_brokers_list_and_none_describes(cluster, observer):
    """The reason of the one that may know more counts, and without a word nobody is taken for its coordinator."""
    cluster.group("g", members=[joined()], coordinator=3).listed_by = {1, 3}
    cluster.forbid(group="g")
    cluster.lists_forbidden_groups = True
    cluster.fail("DescribeGroups", ErrorCode(16), broker=1)
    poll = await observer.cycle()

    assert [("group", "g", "GROUP_AUTHORIZATION_FAILED")] == failures(poll)
    assert (None, None) == (observer["g"].members, observer["g"].coordinator)


async def test_many_groups_are_described_in_batches(cluster, observer, monkeypatch):
    """Nobody is left out, and a request has so many groups at most."""
    monkeypatch.setattr(groups, "DESCRIBED_AT_ONCE", 4)
    for number in range(10):
        cluster.group(f"g-{number}", members=[joined()], coordinator=1)
    await observer.cycle()

    assert [1] * 10 == [observer[f"g-{number}"].members for number in range(10)]
    assert 3 == descriptions(cluster)


# --- change -----------------------------------------------------------------------------------------


async def test_nothing_is_touched_while_nothing_changes(cluster, observer):
    """Lists that are byte for byte the same cost no description, no new version and not a look at any group."""
    cluster.group("g", members=[joined()])
    await observer.cycle()
    version, asked = observer.keeper.version, descriptions(cluster)

    class Untouchable(dict):
        def values(self):
            raise AssertionError("every group was looked at")

    observer.keeper.groups = Untouchable(observer.keeper.groups)
    await observer.cycle()

    assert (version, asked) == (observer.keeper.version, descriptions(cluster))
    assert 1 == observer["g"].members


def no_more(cluster):
    cluster.delete_group("g")


def other_state(cluster):
    cluster.groups["g"].state = "Empty"


def one_more(cluster):
    cluster.group("h")


def out_of_reach(cluster):
    cluster.fail("ListGroups", Hang(), broker=1)


def moved(cluster):
    cluster.move_coordinator("g", 2)


@pytest.mark.parametrize("change", [no_more, other_state, one_more, out_of_reach, moved])
async def test_the_version_changes_with_what_is_seen(cluster, observer, change):
    """A group that goes, changes or comes, or whose broker is silent: whoever kept something must look again."""
    cluster.group("g", members=[joined()], coordinator=1)
    await observer.cycle()
    before = observer.keeper.version
    change(cluster)
    await observer.cycle()

    assert before != observer.keeper.version


async def test_what_is_the_same_at_the_beat_keeps_its_identity(cluster, make):
    """Groups are described anew although nothing seems to have changed; what is equal stays the same object."""
    cluster.group("g", members=[joined()])
    cluster.group("h", members=[joined()])
    observer = make(beat=0.0)
    await observer.cycle()
    before, version = {name: observer[name].described for name in "gh"}, observer.keeper.version
    cluster.groups["h"].members.append(joined("app-2", [2]))
    observer.clock = 2000.0
    await observer.cycle()

    assert observer["g"].described is before["g"]
    assert 2 == observer["h"].members
    assert version != observer.keeper.version
    assert [2000.0, 2000.0] == [observer[name].described_at for name in "gh"]


async def test_between_two_beats_only_changed_groups_are_described(cluster, make):
    """A steady group waits for the beat, a new one does not."""
    cluster.group("g", members=[joined()], coordinator=1)
    observer = make(beat=HOUR)
    bodies = asked_with(cluster, "DescribeGroups")
    await observer.cycle()
    cluster.group("h", members=[joined()], coordinator=1)
    await observer.cycle()

    assert 1 == observer["h"].members
    assert [[b"g"], [b"h"]] == [[name for name in (b"g", b"h") if name in body] for body in bodies]


async def test_a_rebalance_is_described_when_it_begins_and_when_it_is_over(cluster, observer):
    """In between its states tell nothing new; what members read and want stays as it was told last."""
    group = cluster.group("g", members=[joined(), joined("app-2", [2, 3])])
    await observer.cycle()
    group.state = "PreparingRebalance"
    group.members.pop()
    observer.clock = 2000.0
    for state in ("PreparingRebalance", "CompletingRebalance", "PreparingRebalance"):
        group.state = state
        await observer.cycle()
    during = observer["g"]
    assert 2 == descriptions(cluster)
    assert (1, frozenset({"orders"}), "range", 1000.0) == (
        during.members,
        during.subscribed,
        during.assignor,
        during.described_at,
    )
    assert {("orders", 0): "app-1", ("orders", 1): "app-1", ("orders", 2): "app-2", ("orders", 3): "app-2"} == dict(
        during.assigned
    )
    assert (("orders", 0), ("orders", 1)) == during.owners[0].assigned

    group.state = "Stable"
    group.members[0].assignment = {"orders": [0, 1, 2, 3]}
    await observer.cycle()
    assert 3 == descriptions(cluster)
    assert dict.fromkeys([("orders", p) for p in range(4)], "app-1") == observer["g"].assigned
    assert 2000.0 == observer["g"].described_at


async def test_a_group_first_seen_in_a_rebalance(cluster, observer):
    """Who is there is known, what they read is not: nothing was told before."""
    cluster.group("g", members=[joined()], state="PreparingRebalance")
    await observer.cycle()

    assert (1, {}, None) == (observer["g"].members, observer["g"].assigned, observer["g"].subscribed)


async def test_a_rebalance_that_is_over_before_it_is_described(cluster, observer):
    """The list said that it began, the description that it is over: it is not asked for once more."""
    group = cluster.group("g", members=[joined()])
    await observer.cycle()
    group.state = "PreparingRebalance"
    cluster.fail("DescribeGroups", Call(lambda: setattr(group, "state", "Stable")), times=1)
    await observer.cycle()
    await observer.cycle()

    assert 2 == descriptions(cluster)
    assert 2 == len(observer["g"].assigned)


async def test_a_group_that_lost_its_members_and_got_new_ones(cluster, observer):
    """With the members goes what they read and want: a later rebalance does not bring it back."""
    group = cluster.group("g", members=[joined()])
    await observer.cycle()
    group.state, members, group.members = "Empty", group.members, []
    await observer.cycle()
    assert (0, {}, None) == (observer["g"].members, observer["g"].assigned, observer["g"].described_at)

    group.state, group.members = "PreparingRebalance", members
    await observer.cycle()
    assert (1, {}) == (observer["g"].members, observer["g"].assigned)


async def test_a_group_that_becomes_one_of_another_kind(cluster, observer):
    """Upgraded to the new protocol without ever leaving Stable: it is described anew, as what it is."""
    group = cluster.group("g", members=[joined()])
    await observer.cycle()
    group.type = "consumer"
    await observer.cycle()

    assert ("consumer", 1) == (observer["g"].protocol, observer["g"].epoch)
    assert (1, 1) == (cluster.count("DescribeGroups"), cluster.count("ConsumerGroupDescribe"))


async def test_a_group_that_is_forgotten_and_comes_back(cluster, observer):
    """Nothing of what it was is left."""
    cluster.group("g", members=[joined()])
    await observer.cycle()
    group = cluster.groups.pop("g")
    await observer.cycle()
    assert (None, None, False) == (observer["g"].state, observer["g"].members, observer["g"].listed)
    observer.keeper.forget(["g", "never there"])
    assert {} == observer.keeper.groups

    cluster.groups["g"] = group
    await observer.cycle()
    assert 1 == observer["g"].members


# --- failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name", "asked"),
    [
        pytest.param(30, "GROUP_AUTHORIZATION_FAILED", 1, id="forbidden: not asked again before the beat"),
        pytest.param(69, "GROUP_ID_NOT_FOUND", 1, id="not found: not asked again before the beat"),
        pytest.param(14, "COORDINATOR_LOAD_IN_PROGRESS", 3, id="loading: asked in each cycle"),
        pytest.param(-1, "UNKNOWN_SERVER_ERROR", 3, id="unknown error: asked in each cycle"),
    ],
)
async def test_a_description_that_is_refused(cluster, observer, code, name, asked):
    """The members of that group are unknown and it is told in every cycle; nothing else is touched."""
    cluster.group("good", members=[joined()], coordinator=1)
    cluster.group("bad", members=[joined()], coordinator=1)
    fault = cluster.fail("DescribeGroups", ErrorCode(code, {"bad"}))
    polls = [await observer.cycle() for _ in range(3)]

    assert [[Failure("group", "bad", name, "DescribeGroups")]] * 3 == [poll.failures for poll in polls]
    assert (None, 1) == (observer["bad"].members, observer["good"].members)
    assert asked == fault.happened
    assert all(poll.up for poll in polls), "lag does not depend on it"


async def test_a_refused_description_is_asked_for_again_at_the_beat(cluster, make):
    """What was given back is seen then, and the failure is gone."""
    cluster.group("g", members=[joined()])
    observer = make(beat=0.0)
    fault = cluster.fail("DescribeGroups", ErrorCode(30))
    await observer.cycle()
    fault.cancel()
    poll = await observer.cycle()

    assert (1, []) == (observer["g"].members, poll.failures)


async def test_a_description_that_fails_later_leaves_nothing_behind(cluster, make):
    """Members that were known are unknown as soon as they cannot be read."""
    cluster.group("g", members=[joined()])
    observer = make(beat=0.0)
    await observer.cycle()
    version = observer.keeper.version
    cluster.fail("DescribeGroups", ErrorCode(30))
    await observer.cycle()

    assert (None, {}, None, None) == (
        observer["g"].members,
        observer["g"].assigned,
        observer["g"].subscribed,
        observer["g"].described_at,
    )
    assert version != observer.keeper.version


async def test_a_failure_goes_with_its_group(cluster, observer):
    """A group that has no members any more, or is no longer listed, has no failed description either."""
    for name in "ab":
        cluster.group(name, members=[joined()])
    cluster.fail("DescribeGroups", ErrorCode(30))
    assert 2 == len((await observer.cycle()).failures)
    cluster.groups["a"].state = "Empty"
    cluster.delete_group("b")

    assert [] == (await observer.cycle()).failures


@pytest.mark.parametrize(
    ("action", "error"),
    [pytest.param(Garbage(), "MALFORMED", id="garbage"), pytest.param(Hang(), "TIMEOUT", id="no answer")],
)
async def test_a_description_that_does_not_arrive(cluster, observer, action, error):
    """It is one entry of that broker; groups of others are known, and its own again in the next cycle."""
    for number in (1, 2):
        cluster.group(f"of {number}", members=[joined()], coordinator=number)
    cluster.fail("DescribeGroups", action, broker=1, times=1)
    poll = await observer.cycle()

    assert [("broker", error)] == [(each.scope, each.error) for each in poll.failures]
    assert [None, 1] == [observer[f"of {number}"].members for number in (1, 2)]
    await observer.brokers.silent(set(observer.map.map.brokers.values()))
    poll = await observer.cycle()
    assert ([], [1, 1]) == (poll.failures, [observer[f"of {number}"].members for number in (1, 2)])


async def test_a_group_left_out_of_its_description(cluster, observer):
    """An answer that does not speak of it is no answer, and the others in it count."""
    for name in "ab":
        cluster.group(name, members=[joined()], coordinator=1)
    cluster.fail("DescribeGroups", Omit(groups={"a"}), times=1)
    poll = await observer.cycle()

    assert ([("group", "a", "MALFORMED")], None, 1) == (failures(poll), observer["a"].members, observer["b"].members)
    assert [] == (await observer.cycle()).failures


async def test_a_broker_that_fails_between_list_and_description(cluster, observer):
    """Its groups are not asked for in this cycle, unknown, and described as soon as it is back."""
    cluster.group("g", members=[joined()], coordinator=1)
    poll = Poll()
    observer.patience.start()
    await observer.map.refresh(poll)
    await observer.keeper.list(poll, observer.map.map, observer.patience)
    poll.down[1] = 1001
    await observer.keeper.describe(poll, observer.map.map)
    assert (None, 0, []) == (observer["g"].members, descriptions(cluster), poll.failures)

    await observer.cycle()
    assert 1 == observer["g"].members
