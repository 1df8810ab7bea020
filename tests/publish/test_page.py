"""The status page in a real browser: what it shows, by hand and by keyboard, and that it is never silently old."""

import asyncio
import os
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from reports import SCRIPT_NAME, Pipeline, Reader, crowd, member, report_of, shop

from monitor.model import (
    Consumer,
    DurationHistogram,
    Failure,
    FaustAgent,
    FaustWorker,
    Finding,
    Kind,
    LastHour,
    Member,
    Report,
    TopicPartition,
    Why,
)
from monitor.publish.http import PAGE, HttpServer, Published
from monitor.publish.trail import Trail

CHROMIUM = "/usr/bin/chromium"
FOLDER = Path(__file__).parents[2] / "monitor" / "publish" / "page"

pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).exists() and "CI" not in os.environ, reason=f"{CHROMIUM} is missing: apt install chromium"
)


class Bytes:
    plain = gzip = b""


class Site:
    """The real server on a thread of its own, serving what it is given."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._latest, self._trail, self._server, self.port = None, Trail(), None, 0
        self.asked = 0

    def start(self):
        self._server = HttpServer("127.0.0.1", self.port, self._answer, trail=self._trail)
        _, self.port = self._run(self._server.start())

    def stop(self):
        self._run(self._server.stop())

    def publish(self, *clusters):
        report = report_of(*clusters) if clusters else Report(0.0, ())
        self._trail.note(report)
        self._latest = Published(report, Bytes(), complete=True)

    def close(self):
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _answer(self):
        self.asked += 1
        return self._latest

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


@pytest.fixture
def site():
    site = Site()
    site.start()
    yield site
    site.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that fails the test when a script of it fails, or asks anybody but its own server."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    problems, asked = [], set()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Security Policy" in message.text else None)
    page.on("request", lambda request: asked.add(request.url.split("/")[2].split(":")[0]))
    yield page
    context.close()
    assert [] == problems
    assert asked <= {"127.0.0.1"}


@pytest.fixture
def hasty(page):
    """Have the page wait a tenth of its time before it asks again."""
    page.add_init_script("const wait = setTimeout; window.setTimeout = (work, ms) => wait(work, ms / 10);")


@pytest.fixture(scope="module")
def expect():
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    return expect


def now_shop(cycles=5, **kw):
    """The shop, with its last report made just now."""
    return shop(start=time.time() - 10 * (cycles - 1), **kw)


def publish_run(site, pipeline, cycles=5):
    for _ in range(cycles):
        site.publish(pipeline.report())
    return pipeline


def open_page(page, site, hash_=""):
    page.goto(f"http://127.0.0.1:{site.port}/{hash_}")


def row(page, name):
    return page.locator("#rows tr").filter(has=page.get_by_role("button", name=name, exact=True))


def names(page):
    return page.locator("#rows .name").all_inner_texts()


def test_every_consumer_is_in_the_table(page, site, expect):
    """Health in a word, records, seconds of the objective, rates, members, the evidence, and a sparkline."""
    publish_run(site, now_shop())
    open_page(page, site)

    expect(page.locator("#rows tr")).to_have_count(12)
    billing = row(page, "billing")
    assert ["ok", "42", "120/s", "120/s", "2"] == [
        billing.locator("td").nth(i).inner_text().strip() for i in (0, 2, 4, 5, 6)
    ]
    assert ["0.4 s ± <0.1 s", "of 5 min"] == billing.locator(".age").inner_text().split("\n")[:2]
    assert "42 records behind" in billing.locator(".who").inner_text()
    assert "from 42 to 42 records" in billing.get_by_role("img").get_attribute("aria-label")
    expect(page.locator("body")).to_have_attribute("data-state", "live")


def test_the_gravest_come_first(page, site, expect):
    """By gravity, then lag: stopped before unknown before ok, and what is over its objective before what is not."""
    publish_run(site, now_shop(objective=60.0), 5)
    open_page(page, site)
    expect(page.locator("#rows tr")).to_have_count(12)

    shown = page.locator("#rows .health").all_inner_texts()
    assert ["stopped", "over objective", "unknown", "unknown"] == [word.strip() for word in shown[:4]]
    assert {"ok"} == {word.strip() for word in shown[4:]}
    assert ["nightly-report", "fraud-detection"] == names(page)[:2]


def test_unknown_is_a_question_mark_with_its_reason(page, site, expect):
    """Never a zero: a question mark, why, and what is known at least; its details tell all that is not known."""
    pipeline = Pipeline(
        {"t": (2, 1.0)}, {"g": Reader({"t": 1}, 7)}, broken={("t", 1): Why.NO_LEADER}, start=time.time() - 10
    )
    publish_run(site, pipeline, 2)
    open_page(page, site)

    lag = row(page, "g").locator(".lag")
    expect(lag.locator(".unknown")).to_have_attribute("title", "the partition has no leader")
    assert "?" == lag.locator(".unknown").evaluate("element => element.firstChild.data")
    expect(lag).to_contain_text("at least 7")
    expect(row(page, "g").locator(".who")).to_contain_text("the partition has no leader")

    row(page, "g").click()
    expect(page.locator(".reasons")).to_contain_text("lag records: the partition has no leader")
    expect(page.locator("#detail tbody tr").nth(0).locator(".unknown").first).to_have_attribute(
        "title", "the partition has no leader"
    )


def test_the_filter_finds_by_name_topic_and_kind(page, site, expect):
    """Slash goes to the box; every word has to match; Escape shows all again."""
    publish_run(site, now_shop())
    open_page(page, site)
    expect(page.locator("#rows tr")).to_have_count(12)

    page.keyboard.press("/")
    page.keyboard.type("bill")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.locator("#filter").fill("readings spark")
    expect(page.locator("#rows .name")).to_have_text(["readings-average-5m"])
    page.locator("#filter").fill("clicks")
    assert ["search-indexer", "warehouse-sink"] == sorted(names(page))
    page.locator("#filter").fill("nobody is called this")
    expect(page.locator("#none")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#rows tr")).to_have_count(12)


def test_the_chips_filter_by_health(page, site, expect):
    """A chip a health with its count; pressed, only those are shown, and the address says so."""
    publish_run(site, now_shop())
    open_page(page, site)
    chip = page.locator("#chips").get_by_role("button", name="unknown")
    expect(chip).to_have_text("unknown2")

    chip.click()

    expect(page.locator("#rows tr")).to_have_count(2)
    expect(chip).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(2)


def test_columns_sort_by_keyboard(page, site, expect):
    """A head is a button: once the largest first, twice the smallest first; unknown comes last both times."""
    publish_run(site, now_shop())
    open_page(page, site)
    head = page.get_by_role("button", name="Lag, records")
    expect(page.locator("#rows tr")).to_have_count(12)

    head.focus()
    page.keyboard.press("Enter")
    expect(page.locator("th[data-sort=lag]")).to_have_attribute("aria-sort", "descending")
    down = names(page)
    page.keyboard.press("Enter")
    expect(page.locator("th[data-sort=lag]")).to_have_attribute("aria-sort", "ascending")
    up = names(page)

    assert ["search-indexer", "fraud-detection", "nightly-report"] == down[:3]
    assert {"secret", "mailer"} == set(down[-2:]) == set(up[-2:])
    assert ["nightly-report", "fraud-detection", "search-indexer"] == up[-5:-2]


def test_the_keyboard_moves_opens_and_closes(page, site, expect):
    """j and the arrows move, Enter opens the details with the partitions, Escape goes back to the row."""
    publish_run(site, now_shop())
    open_page(page, site)
    expect(page.locator("#rows tr")).to_have_count(12)
    order = names(page)

    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    page.keyboard.press("k")
    focused = page.evaluate("document.activeElement.textContent")
    assert order[1] == focused

    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_visible()
    expect(page.locator("#detail h2")).to_have_text(focused)
    expect(page.locator("#detail tbody tr").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    assert focused == page.evaluate("document.activeElement.textContent")


def test_the_details_show_partitions_and_members(page, site, expect):
    """Fetched for the one consumer that is open: every partition with its offsets and who owns it."""
    publish_run(site, now_shop())
    open_page(page, site)

    row(page, "billing").click()

    lines = page.locator("#detail tbody tr")
    expect(lines).to_have_count(6)
    cells = lines.first.locator("td").all_inner_texts()
    assert ["orders", "0", "7"] == cells[:3]
    assert ["ok", "billing-0"] == [cell.strip() for cell in cells[-2:]]
    expect(page.locator("#detail .chart")).to_have_count(2)


def test_the_open_details_are_in_the_address(page, site, expect):
    """Sent to somebody, the address opens the same consumer, also one with a name that needs care."""
    publish_run(site, now_shop())
    open_page(page, site)
    row(page, "bläuliche gruppe/mit schrägstrich").click()
    expect(page.locator("#detail tbody tr")).to_have_count(6)

    page.reload()

    expect(page.locator("#detail h2")).to_have_text("bläuliche gruppe/mit schrägstrich")
    expect(page.locator("#detail tbody tr")).to_have_count(6)


def test_a_name_is_only_ever_text(page, site, expect):
    """A group id with script, quotes and a line break is shown as it is, in the row and in the details."""
    pipeline = now_shop()
    publish_run(site, pipeline, 4)
    cluster = pipeline.report()
    evil = "<img src=x onerror=window.pwned=1>"
    failures = (Failure("group", SCRIPT_NAME, "X", evil),)
    site.publish(replace(cluster, name=evil, failures=failures, findings=(Finding("k", evil),)))
    open_page(page, site)

    expect(page.locator("#rows .name").filter(has_text="window.pwned")).to_have_text(SCRIPT_NAME)
    page.locator("#rows .name").filter(has_text="window.pwned").click()
    expect(page.locator("#detail h2")).to_have_text(SCRIPT_NAME)
    expect(page.locator("#detail tbody tr")).to_have_count(3)
    assert evil == page.locator("#clusters h2").inner_text()
    assert page.evaluate(
        "window.pwned === undefined && document.querySelectorAll('main script, main img').length === 0"
    )


def test_a_spark_query_shows_its_batches(page, site, expect):
    """How long the last batch took, of which trigger, and since when one is in flight."""
    publish_run(site, now_shop())
    open_page(page, site)

    who = row(page, "readings-average-5m").locator(".who")

    expect(who).to_contain_text("Spark")
    expect(who).to_contain_text(re.compile(r"batch 6\.4 s of a 10 s trigger, one in flight for 3\.0 s"))


@pytest.mark.usefixtures("hasty")
def test_failures_and_findings_are_lists(page, site, expect):
    """With the cluster: how many, and each of them when opened; they stay open over a refresh."""
    pipeline = publish_run(site, now_shop())
    open_page(page, site)
    expect(page.locator("#clusters article")).to_contain_text("4 topics")

    page.get_by_text("1 failure").click()
    expect(page.get_by_text("group secret: GROUP_AUTHORIZATION_FAILED (OffsetFetch)")).to_be_visible()
    with page.expect_response(lambda answer: "report" in answer.url and answer.status == 200):
        site.publish(pipeline.report())
    expect(page.get_by_text("group secret: GROUP_AUTHORIZATION_FAILED (OffsetFetch)")).to_be_visible()


def changing_shop():
    """A group that has left a topic, with owners and hosts, and one whose offsets are set back in the last cycle."""
    owners = tuple(
        Member(f"m-{i}", f"billing-{i}", f"/10.0.0.{i}", assigned=(TopicPartition("orders", i),)) for i in range(2)
    )
    facts = member(
        "billing", owners=owners, assigned={each.assigned[0]: each.client_id for each in owners}, epoch=7,
        subscribed=frozenset({"orders"}), assignor="uniform", coordinator=3, described_at=time.time() - 60,
    )  # fmt: skip
    return Pipeline(
        {"orders": (2, 1.0), "orders-v1": (1, 0.001)},
        {
            "billing": Reader({"orders": 1, "orders-v1": 1}, 2, facts),
            "fraud": Reader({"orders": 1}, lambda cycle: 5 if cycle < 4 else 200),
        },
        start=time.time() - 40,
    )


def test_abandoned_topics_and_findings_are_seen_at_a_glance(page, site, expect):
    """What a group has left stands in its row with its own lag; few findings are open without being asked for."""
    publish_run(site, changing_shop(), 5)
    open_page(page, site)

    expect(row(page, "billing").locator(".who")).to_contain_text("abandoned orders-v1 (2 records)")
    expect(row(page, "billing").locator(".lag")).to_have_text("4")
    finding = page.locator("#clusters li")
    expect(finding).to_be_visible()
    expect(finding).to_contain_text("set back fraud on orders: committed offset went back on 2 partitions")
    expect(row(page, "fraud").locator(".badge")).to_have_text("rewound")
    page.locator("#filter").fill("abandoned")
    expect(page.locator("#rows .name")).to_have_text(["billing"])


def test_the_details_show_owners_rebalances_and_what_was_found(page, site, expect):
    """Member and host of each partition, abandoned ones last and marked, the consumer's own findings."""
    publish_run(site, changing_shop(), 5)
    open_page(page, site)

    row(page, "billing").click()
    lines = page.locator("#detail tbody tr")
    expect(lines).to_have_count(3)
    assert ["orders", "orders", "orders-v1"] == [line.locator("td").first.inner_text() for line in lines.all()]
    assert ["ok", "billing-0\n/10.0.0.0"] == [cell.inner_text() for cell in lines.first.locator("td").all()[-2:]]
    expect(lines.last.locator("td").nth(-2)).to_have_text("abandoned")
    expect(page.locator("#detail .facts")).to_contain_text("assigned by uniform")
    expect(page.locator("#detail .facts")).to_contain_text("broker 3")
    page.keyboard.press("Escape")
    row(page, "fraud").click()
    expect(page.locator("#detail ul.warn li")).to_contain_text("committed offset went back")


def test_how_old_is_too_old_follows_the_interval(page, site, expect):
    """A cluster that is read once an hour is fresh for three hours, though its trail has only just begun."""
    cluster = Pipeline({"t": (1, 1.0)}, {"g": Reader({"t": 1})}, start=time.time() - 1800).report()
    hourly = tuple(replace(source, interval_seconds=3600.0) for source in cluster.sources)
    site.publish(replace(cluster, sources=hourly))
    open_page(page, site)

    expect(page.locator("body")).to_have_attribute("data-state", "live")


@pytest.mark.usefixtures("hasty")
def test_the_page_refreshes_by_itself(page, site, expect):
    """A new report is drawn without a touch, focus stays where it is, and an unchanged one is not sent again."""
    pipeline = publish_run(site, now_shop(), 4)
    open_page(page, site)
    expect(row(page, "fraud-detection").locator(".lag")).to_have_text("9,720")
    row(page, "fraud-detection").get_by_role("button").focus()
    with page.expect_response(lambda answer: "report" in answer.url and answer.status == 304):
        pass

    site.publish(pipeline.report())

    expect(row(page, "fraud-detection").locator(".lag")).to_have_text("10,260")
    assert "fraud-detection" == page.evaluate("document.activeElement.textContent")
    assert "from 8,100 to 10,260" in row(page, "fraud-detection").get_by_role("img").get_attribute("aria-label")


@pytest.mark.usefixtures("hasty")
def test_focus_stays_when_rows_change_places(page, site, expect):
    """Who works by keyboard stays on the consumer, wherever it moves."""
    readers = {"first": Reader({"t": 1}, 10), "second": Reader({"t": 1}, lambda cycle: 5 if cycle < 4 else 50)}
    pipeline = publish_run(site, Pipeline({"t": (1, 1.0)}, readers, start=time.time() - 30), 4)
    open_page(page, site)
    expect(page.locator("#rows .name")).to_have_text(["first", "second"])
    page.keyboard.press("j")
    page.keyboard.press("j")

    site.publish(pipeline.report())

    expect(page.locator("#rows .name")).to_have_text(["second", "first"])
    assert "second" == page.evaluate("document.activeElement.textContent")


@pytest.mark.usefixtures("hasty")
def test_open_details_refresh_too(page, site, expect):
    """What is open follows the report."""
    pipeline = publish_run(site, now_shop(), 4)
    open_page(page, site)
    row(page, "fraud-detection").click()
    lag = page.locator("#detail tbody tr").first.locator("td").nth(2)
    expect(lag).to_have_text("1,080")

    site.publish(pipeline.report())

    expect(lag).to_have_text("1,140")


@pytest.mark.usefixtures("hasty")
def test_a_monitor_that_is_gone_is_announced(page, site, expect):
    """It says that nobody answers, keeps what it has, marked as old, and goes on when the monitor is back."""
    publish_run(site, now_shop())
    open_page(page, site)
    expect(page.locator("body")).to_have_attribute("data-state", "live")

    site.stop()
    expect(page.locator("#alarm")).to_contain_text("The monitor does not answer")
    expect(page.locator("#age")).to_contain_text("no answer")
    expect(page.locator("#rows tr")).to_have_count(12)
    assert page.title().startswith("no answer")

    site.start()
    expect(page.locator("body")).to_have_attribute("data-state", "live")
    expect(page.locator("#alarm")).to_be_empty()


def test_old_data_is_never_shown_as_fresh(page, site, expect):
    """The monitor answers, but what it says is from long ago, by its own clock."""
    publish_run(site, shop(start=time.time() - 3600))
    open_page(page, site)

    expect(page.locator("body")).to_have_attribute("data-state", "stale")
    expect(page.locator("#alarm")).to_contain_text("has not read every cluster for 59 min")


@pytest.mark.usefixtures("hasty")
def test_a_cluster_that_lost_its_report_is_named(page, site, expect):
    """It does not just vanish."""
    one, two = now_shop(), now_shop(name="second")
    site.publish(one.run(5), two.run(5))
    open_page(page, site)
    expect(page.locator("#clusters article")).to_have_count(2)

    site.publish(one.report())

    expect(page.locator("#clusters article").nth(1)).to_contain_text("no report")
    expect(page.locator("#clusters article").nth(1)).to_contain_text("second")


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        pytest.param(None, ["The first look is under way"], id="nothing read yet"),
        pytest.param(
            Pipeline({"t": (1, 1.0)}, {}), ["No consumer yet", "DESCRIBE on groups"], id="a cluster nobody reads"
        ),
        pytest.param(
            Pipeline({}, {}, up=False, failures=(Failure("broker", "kafka-1:9092", "REFUSED", "nobody listens"),)),
            ["default cannot be read", "bootstrap_servers", "broker kafka-1:9092: REFUSED (nobody listens)"],
            id="a cluster that does not answer",
        ),
        pytest.param((), ["No cluster has a report"], id="faults of ours"),
    ],
)
def test_an_empty_page_says_what_to_do(page, site, expect, pipeline, words):
    """Why there is nothing, and what to do about it."""
    if pipeline is not None:
        site.publish(*([pipeline.report()] if pipeline else []))
    open_page(page, site)

    for each in words:
        expect(page.locator("#nothing")).to_contain_text(each)
    expect(page.locator("#list")).to_be_hidden()


def test_of_a_silent_cluster_nothing_is_counted_as_none(page, site, expect):
    """A cluster that is not up and lists nothing has an unknown number of consumers, not 0."""
    site.publish(Pipeline({}, {}, up=False, start=time.time()).report())
    open_page(page, site)

    expect(page.locator(".counts")).to_contain_text("? consumers")


@pytest.mark.usefixtures("hasty")
def test_the_page_fills_when_the_first_report_comes(page, site, expect):
    """It need not be loaded again."""
    open_page(page, site)
    expect(page.locator("body")).to_have_attribute("data-state", "waiting")

    publish_run(site, now_shop())

    expect(page.locator("#rows tr")).to_have_count(12)


def test_two_thousand_consumers_are_drawn_in_parts(page, site, expect):
    """A hundred rows, more on demand, and the filter looks through all."""
    publish_run(site, crowd(2000, start=time.time() - 10), 2)
    open_page(page, site)

    expect(page.locator("#rows tr")).to_have_count(100)
    expect(page.locator("#more")).to_have_text("Show 200 more of 1,900")
    page.locator("#more").click()
    expect(page.locator("#rows tr")).to_have_count(300)
    page.locator("#filter").fill("group-01999")
    expect(page.locator("#rows tr")).to_have_count(1)


def test_moving_past_the_last_row_draws_more(page, site, expect):
    """The keyboard reaches every row."""
    publish_run(site, crowd(150, start=time.time() - 10), 2)
    open_page(page, site)
    page.locator("#rows .name").nth(99).focus()

    page.keyboard.press("j")

    expect(page.locator("#rows tr")).to_have_count(150)
    assert names(page)[100] == page.evaluate("document.activeElement.textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 960, 961, 1024])
def test_no_width_scrolls_sideways(browser, site, expect, width, scheme):
    """From a phone on, everything is in the page's width, the details too."""
    publish_run(site, now_shop())
    context = browser.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
    page = context.new_page()
    open_page(page, site)
    expect(page.locator("#rows tr")).to_have_count(12)

    assert width == page.evaluate("document.documentElement.scrollWidth")
    row(page, "nightly-report").click()
    expect(page.locator("#detail tbody tr")).to_have_count(6)
    assert page.evaluate("document.getElementById('detail-body').scrollWidth <= innerWidth")
    assert width == page.evaluate("document.documentElement.scrollWidth")
    context.close()


def test_nobody_looking_nothing_asked(page, site, expect):
    """A hidden page does not ask; shown again it asks at once."""
    publish_run(site, now_shop())
    page.clock.install()
    open_page(page, site)
    expect(page.locator("#rows tr")).to_have_count(12)
    hide = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"

    with page.expect_response(lambda answer: "report" in answer.url):
        page.clock.run_for(3_100)
    page.evaluate(hide, True)
    before = site.asked
    page.clock.run_for(60_000)
    page.evaluate("fetch('healthz').then(answer => answer.text())")  # a round trip: anything asked before has arrived
    assert before == site.asked

    with page.expect_response(lambda answer: "report" in answer.url):
        page.evaluate(hide, False)


@pytest.mark.parametrize("width", [1280, 360])
def test_it_is_a_table_with_heads_and_a_live_region(page, site, expect, width):
    """What a screen reader needs, on a phone too: caption, heads, rows, cells, a status, one Tab stop."""
    page.set_viewport_size({"width": width, "height": 800})
    publish_run(site, now_shop())
    open_page(page, site)
    expect(page.locator("#rows tr")).to_have_count(12)

    expect(page.get_by_role("table", name="Consumers")).to_be_visible()
    assert (8 if width == 1280 else 7) == page.get_by_role("columnheader").count()
    assert 1 + 12 == page.get_by_role("table", name="Consumers").get_by_role("row").count()
    assert 12 * 8 == page.get_by_role("table", name="Consumers").get_by_role("cell").count()
    page.locator("#filter").fill("billing")
    expect(page.get_by_role("status")).to_have_text("1 consumer shown")
    assert 1 == page.locator("#rows .name[tabindex='0']").count()


# --- without a browser ------------------------------------------------------------------------------


def test_nothing_comes_from_outside():
    """No address but those of the page's own server: it works without a network."""
    for name in PAGE:
        text = (FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), name


def test_markup_is_never_made_from_text():
    """No way from a name to markup: not one of the doors that take it."""
    text = (FOLDER / "app.js").read_text()

    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|DOMParser|srcdoc", text)


def colours(scheme):
    style = (FOLDER / "style.css").read_text()
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", part)) for part in style.split("@media", 2)[:2])
    return {"light": light, "dark": dark}[scheme]


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme):
    """WCAG AA: 4.5 to 1 for every text colour on every ground that it is put on."""
    of = colours(scheme)
    tones = ["bad", "warn", "info", "unknown", "good"]
    pairs = [(ink, ground) for ink in ("ink", "muted", "accent", *tones) for ground in ("ground", "panel", "raised")]
    pairs += [(tone, f"{tone}-soft") for tone in tones] + [("ink", "bad-soft"), ("accent", "info-soft")]

    for ink, ground in pairs:
        lighter, darker = sorted((luminance(of[ink]), luminance(of[ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (ink, ground)


WORKER = FaustWorker(
    Consumer(Kind.GROUP, "billing"), "host-1", "recovering", 0.0, 0.0, 5.0,
    (FaustAgent("add", "orders", 1000, 3, DurationHistogram((1.0,), (1000,), 1000, 5.0), 4, 4096),),
    4, 1.5, 0.25, 3, 4.5, 1.0, True, 90, {}, {"orders": (0, 1)}, 0, 0,
)  # fmt: skip


def test_the_details_show_faust_workers_and_the_last_hour(page, site, expect):
    """What a silent worker said of the moment is a question mark with the reason; its counts stay."""
    hour = LastHour(59, 1234, 60.5, None, None, 10.0, 9.5, 0.75)
    cluster = replace(
        now_shop().report(),
        faust=(
            replace(WORKER, outcomes={"averaged": 1234, "partly_late": 2}),
            replace(WORKER, worker="host-2", is_silent=True),
        ),
        last_hour={WORKER.consumer: hour},
    )
    site.publish(cluster)
    open_page(page, site)
    row(page, "billing").click()
    lines = page.get_by_role("region", name="Faust workers").locator("tbody tr")

    expect(lines).to_have_count(2)
    expect(lines.nth(0)).to_contain_text("recovering, 90 left")
    expect(lines.nth(0)).to_contain_text("5.0 ms")
    expect(lines.nth(0)).to_contain_text("1,234 averaged, 2 partly late")
    expect(lines.nth(1)).to_contain_text("silent")
    expect(lines.nth(1)).to_contain_text("1,000")
    expect(lines.nth(1).locator(".unknown").first).to_have_attribute("title", "the worker does not report any more")
    expect(page.locator("#detail-body")).to_contain_text("Last hour, 59 minutes of it kept")
    expect(page.locator("#detail-body")).to_contain_text("75.0 % of the time")
