// The status page: asks for the report every few seconds and draws it. No library, no build step.
//
// Everything that comes from a cluster (names, reasons, errors) is untrusted and only ever becomes text.
// Unknown is drawn as unknown with its reason, never as zero, and what is old says so: the age of the data is counted
// on the monitor's clock (the Date of its answers), and a monitor that does not answer is announced.

const POLL_MS = 3000;
const ANSWER_MS = 10_000;
const CYCLES = 60; // as many as the monitor's trail keeps
const ROWS_AT_ONCE = 100;
const PARTITIONS_AT_ONCE = 200;
const STALE_SECONDS = 60; // until it is known how often the clusters are read

// --- what things mean --------------------------------------------------------------------------------

// Gravest first: word, tone and shape of each health. "over_objective" is a judgement beside them.
const CIRCLE = "M6 1a5 5 0 1 1 0 10A5 5 0 0 1 6 1z";
const HEALTHS = {
  losing_data: ["losing data", "bad", "M4 0h4l4 4v4l-4 4H4L0 8V4zM5 2.5v4h2v-4zM5 8v1.8h2V8z"],
  lost: ["lost", "bad", "M2.4 1 6 4.6 9.6 1 11 2.4 7.4 6 11 9.6 9.6 11 6 7.4 2.4 11 1 9.6 4.6 6 1 2.4z"],
  stalled: ["stalled", "bad", "M2 1h3v10H2zM7 1h3v10H7z"],
  stopped: ["stopped", "bad", "M1.5 1.5h9v9h-9z"],
  blocked: ["blocked", "bad", `${CIRCLE}M3 5v2h6V5z`],
  falling_behind: ["falling behind", "bad", "M0.5 1.5h11L6 11z"],
  over_objective: ["over objective", "warn", "M6 .5 12 11.5H0zM5.2 4.5v3.2h1.6V4.5zM5.2 8.6v1.5h1.6V8.6z"],
  rewound: ["rewound", "info", "M6 1v4l5-4v10L6 7v4L0 6z"],
  catching_up: ["catching up", "info", "M6 1l5.5 9.5H.5z"],
  unknown: ["unknown", "unknowing", "M6 .5 11.5 6 6 11.5 .5 6zM6 3.3 3.3 6 6 8.7 8.7 6z"],
  ok: ["ok", "good", CIRCLE],
};
const GRAVITY = Object.keys(HEALTHS);
const BAD = new Set(GRAVITY.slice(0, GRAVITY.indexOf("rewound")));
const KINDS = { group: "group", share_group: "share group", spark: "Spark" };
const FINDINGS = {
  recreated: "created again", truncated: "cut", rewound: "set back", lost: "records lost",
  beyond_end: "beyond the end", clock_skew: "clock",
};
const FINDINGS_OPEN = 5; // so few are shown without being asked for

const COLUMNS = [
  { key: "gravity", head: "Health", first: "descending" },
  { key: "name", head: "Consumer", first: "ascending" },
  { key: "lag", head: "Lag, records", first: "descending", number: true },
  { key: "age", head: "Lag, time", first: "descending", number: true },
  { key: "read", head: "Read", first: "descending", number: true },
  { key: "produced", head: "Produced", first: "descending", number: true },
  { key: "members", head: "Members", first: "descending", number: true },
  { key: null, head: "Trend" },
];

/** The word a consumer is shown and sorted by: over its objective weighs more than what is less grave. */
function gravityOf(consumer) {
  const over = consumer.over_objective === true;
  return over && GRAVITY.indexOf(consumer.health) > GRAVITY.indexOf("over_objective") ? "over_objective" : consumer.health;
}

// --- elements and words ------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

/** An element with properties; children are elements or text. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const quiet = (...text) => h("span", { class: "quiet" }, ...text);

function shape(health) {
  return svg("svg", { class: "shape", viewBox: "0 0 12 12", "aria-hidden": "true" },
    svg("path", { d: HEALTHS[health][2], "fill-rule": "evenodd" }));
}

function badge(health) {
  const [word, tone] = HEALTHS[health] ?? HEALTHS.unknown;
  return h("span", { class: `badge ${tone}` }, shape(health in HEALTHS ? health : "unknown"), word);
}

/** What is not known: a question mark that says why. */
function unknown(reason) {
  return h("span", { class: "unknown", title: reason }, "?", h("span", { class: "unseen" }, ` unknown: ${reason}`));
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const count = (number) => WHOLE.format(number);
const counted = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const rate = (number) => `${number > 0 && number < 10 ? TENTHS.format(number) : count(number)}/s`;

function duration(seconds) {
  if (seconds === 0) return "0 s";
  if (seconds < 0.1) return "<0.1 s";
  if (seconds < 10) return `${TENTHS.format(seconds)} s`;
  if (seconds < 59.5) return `${count(seconds)} s`;
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const whole = Math.round(seconds);
  const at = units.findIndex(([size]) => whole >= size);
  const [size, unit] = units[at], [small, smallUnit] = units[at + 1];
  const rest = Math.floor((whole % size) / small);
  return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${smallUnit}` : ""}`;
}

const clock = (milliseconds) => new Date(milliseconds).toLocaleTimeString();

// --- asking the monitor ------------------------------------------------------------------------------

const state = {
  report: null, // as it came
  consumers: [], // of all clusters, with what the table needs
  trails: new Map(), // cluster -> { at, rows: key -> series }
  tag: null, // entity tag of the report that is shown
  offset: 0, // the monitor's clock less ours, milliseconds
  answeredAt: null, // when the monitor answered last, our clock
  missing: new Set(), // clusters that were there and have no report now
  filter: "", healths: new Set(), sort: { key: "gravity", direction: "descending" },
  shown: ROWS_AT_ONCE, open: null, active: null,
};

async function ask(path, headers = {}) {
  const answer = await fetch(path, { cache: "no-store", headers, signal: AbortSignal.timeout(ANSWER_MS) });
  const now = Date.parse(answer.headers.get("Date"));
  if (!Number.isNaN(now)) state.offset = now - Date.now();
  return answer;
}

async function poll() {
  let answer;
  try {
    answer = await ask("api/v1/report?partitions=0", state.tag ? { "If-None-Match": state.tag } : {});
    if (answer.status === 200) await take(await answer.json(), answer.headers.get("ETag"));
    else if (answer.status !== 304 && answer.status !== 503) throw new Error(`it answered ${answer.status}`);
    state.answeredAt = Date.now();
  } catch (error) {
    if (error instanceof ReferenceError || error instanceof SyntaxError) console.error(error);
    return announce("lost");
  }
  if (answer.status === 503) return wait();
  announce(isStale() ? "stale" : "live");
}

/** Take a new report: fetch what is new of the trail, then draw both. */
async function take(report, tag) {
  const last = [...state.trails.values()].map((trail) => trail.at.at(-1)).sort()[0];
  const answer = await ask(`api/v1/trail${last ? `?since=${encodeURIComponent(last)}` : ""}`);
  if (!answer.ok) throw new Error(`it answered ${answer.status}`);
  extendTrails(await answer.json());
  for (const { name } of state.report?.clusters ?? []) state.missing.add(name);
  for (const { name } of report.clusters) state.missing.delete(name);
  state.report = report;
  state.tag = tag;
  state.consumers = report.clusters.flatMap(withRates);
  draw();
  if (state.open) await drawDetail();
}

function extendTrails({ clusters }) {
  for (const cluster of clusters) {
    const before = state.trails.get(cluster.name) ?? { at: [], rows: new Map() };
    const first = cluster.at.findIndex((at) => before.at.length === 0 || at > before.at.at(-1));
    const isNew = (_, index) => first >= 0 && index >= first;
    const at = [...before.at, ...cluster.at.filter(isNew)].slice(-CYCLES);
    const rows = new Map();
    for (const { kind, name, ...series } of cluster.consumers) {
      const past = before.rows.get(`${kind}/${name}`);
      for (const key of Object.keys(series)) {
        const old = past?.[key] ?? before.at.map(() => null);
        series[key] = [...old, ...series[key].filter(isNew)].slice(-CYCLES);
      }
      rows.set(`${kind}/${name}`, series);
    }
    state.trails.set(cluster.name, { at, rows });
  }
}

/** A cluster's consumers with what the table shows beside them: what is produced to their topics, and their key. */
function withRates(cluster) {
  const topics = new Map(cluster.topics.map((topic) => [topic.name, topic]));
  return cluster.consumers.map((consumer) => {
    const left = new Set(consumer.abandoned_topics.map(({ topic }) => topic));
    const read = consumer.topics.filter((name) => !left.has(name)).map((name) => topics.get(name));
    const missing = read.find((topic) => topic.records_per_second === null);
    return {
      ...consumer,
      cluster: cluster.name,
      key: `${cluster.name}/${consumer.kind}/${consumer.name}`,
      gravity: gravityOf(consumer),
      produced: missing || !read.length ? null : read.reduce((sum, topic) => sum + topic.records_per_second, 0),
      producedUnknown: missing ? `${missing.name}: ${missing.unknown.records_per_second}` : "it has no partitions",
      haystack: [consumer.name, consumer.kind, KINDS[consumer.kind], consumer.state, cluster.name, consumer.protocol,
        ...consumer.topics, consumer.abandoned_topics.length ? "abandoned" : ""].join("\n").toLowerCase(),
    };
  });
}

// --- how old is what is shown ------------------------------------------------------------------------

const ageOf = (iso) => Math.max(0, (Date.now() + state.offset - Date.parse(iso)) / 1000);
const readAt = (cluster) => cluster.sources.map((source) => source.observed_at).sort()[0];

/** Seconds after which a cluster's data is stale: three of its intervals, or three times as long as it usually takes. */
function staleAfter(cluster) {
  const intervals = cluster.sources.map((source) => source.interval_seconds).filter((seconds) => seconds !== undefined);
  if (intervals.length) return Math.max(10, 3 * Math.max(...intervals));
  const at = state.trails.get(cluster.name)?.at.map((iso) => Date.parse(iso) / 1000) ?? [];
  const gaps = at.slice(1).map((time, index) => time - at[index]).sort((a, b) => a - b);
  return gaps.length ? Math.max(10, 3 * gaps[Math.floor(gaps.length / 2)]) : STALE_SECONDS;
}

const isStale = () => state.report.clusters.some((cluster) => ageOf(readAt(cluster)) > staleAfter(cluster));

function announce(name) {
  const before = document.body.dataset.state;
  document.body.dataset.state = name;
  const shown = state.report?.at ? "What is shown below is what it said last." : "";
  const since = state.answeredAt ? ` since ${clock(state.answeredAt)}` : "";
  setText($("alarm"), {
    lost: `The monitor does not answer${since}. ${shown} Is streamgauge serve running? Asking again every few seconds.`,
    stale: `The monitor answers, but has not read every cluster for ${duration(oldest())}: what is shown is old.`,
  }[name] ?? "");
  if (before !== name) {
    setText($("status"), { live: "The numbers are fresh.", lost: "The monitor does not answer.", stale: "The numbers are old." }[name] ?? "");
  }
  if (name === "lost" && !state.report) drawNothing();
  tick();
}

const oldest = () => Math.max(0, ...(state.report?.clusters ?? []).map((cluster) => ageOf(readAt(cluster))));

function tick() {
  const name = document.body.dataset.state, old = state.report?.clusters.length ? duration(Math.round(oldest())) : null;
  setText($("age"), {
    connecting: "connecting",
    waiting: "first look under way",
    live: old === null ? "no report" : `live, read ${old} ago`,
    stale: `stale, read ${old} ago`,
    lost: old === null ? "no answer" : `no answer, read ${old} ago`,
  }[name]);
  for (const element of document.querySelectorAll("[data-read-at]")) {
    setText(element, `${element.dataset.word} ${duration(Math.round(ageOf(element.dataset.readAt)))} ago`);
  }
  const grave = state.consumers.filter((consumer) => BAD.has(consumer.gravity)).length;
  document.title = `${name === "lost" ? "no answer · " : grave ? `(${grave}) ` : ""}streamgauge`;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// --- clusters ----------------------------------------------------------------------------------------

function draw() {
  drawClusters();
  drawChips();
  drawHeads();
  drawRows();
  drawNothing();
  tick();
}

function drawClusters() {
  const opened = new Set([...$("clusters").querySelectorAll("details[open]")].map((each) => each.dataset.key));
  const closed = new Set([...$("clusters").querySelectorAll("details:not([open])")].map((each) => each.dataset.key));
  const isOpen = (key, otherwise) => opened.has(key) || (otherwise && !closed.has(key));
  $("clusters").replaceChildren(
    ...state.report.clusters.map((cluster) => clusterCard(cluster, isOpen)),
    ...[...state.missing].map((name) => h("article", { class: "cluster bad" },
      h("div", {}, h("h2", {}, name), badgeOf("no report", "bad", "lost")),
      quiet("Its last cycle failed by a fault of the monitor itself: the monitor's log says how."))),
  );
}

function badgeOf(word, tone, health) {
  return h("span", { class: `badge ${tone}` }, shape(health), word);
}

function clusterCard(cluster, isOpen) {
  const rates = cluster.topics.map((topic) => topic.records_per_second);
  const total = rates.includes(null) || !rates.length ? null : rates.reduce((sum, each) => sum + each, 0);
  const partitions = cluster.topics.reduce((sum, topic) => sum + topic.partitions, 0);
  // Of a cluster that did not answer, none is not known to be none.
  const number = (value, word) => h("span", {}, h("b", {}, value || cluster.up ? count(value) : "?"), ` ${word}${value === 1 ? "" : "s"}`);
  const down = cluster.sources.filter((source) => !source.up).map((source) => source.source);
  return h("article", { class: `cluster ${cluster.up ? "good" : "bad"}` },
    h("div", {},
      h("h2", {}, cluster.name),
      cluster.up ? badgeOf("up", "good", "ok") : badgeOf("not up", "bad", "lost"),
      ...(cluster.up ? down : []).map((source) => badgeOf(`${source} incomplete`, "warn", "over_objective")),
      h("span", { class: "quiet read", "data-read-at": readAt(cluster), "data-word": cluster.up ? "read" : "asked" })),
    h("div", { class: "counts" },
      number(cluster.topics.length, "topic"), number(partitions, "partition"), number(cluster.consumers.length, "consumer"),
      h("span", {}, h("b", {}, total === null ? "?" : rate(total)), " produced")),
    entries(cluster, "failure", cluster.failures, "bad", isOpen, !cluster.up,
      ({ scope, name, error, detail }) => `${scope} ${name}: ${error}${detail ? ` (${detail})` : ""}`),
    entries(cluster, "finding", cluster.findings, "warn", isOpen, cluster.findings.length <= FINDINGS_OPEN, findingWords));
}

/** What was found, with its kind as a tag before it. */
function findingWords({ kind, text }) {
  return h("span", {}, h("span", { class: "tag" }, FINDINGS[kind] ?? kind.replaceAll("_", " ")), " ", text);
}

function entries(cluster, word, list, tone, isOpen, otherwise, text) {
  if (!list.length) return null;
  const key = `${cluster.name}/${word}`, most = list.slice(0, 100);
  const rest = list.length - most.length;
  return h("details", { class: tone, "data-key": key, open: isOpen(key, otherwise) },
    h("summary", {}, counted(list.length, word)),
    h("ul", {}, ...most.map((each) => h("li", {}, text(each))), rest ? h("li", {}, `and ${count(rest)} more, in the JSON`) : null));
}

// --- which consumers, in which order -----------------------------------------------------------------

const SORT_VALUE = {
  gravity: (consumer) => GRAVITY.length - GRAVITY.indexOf(consumer.gravity),
  name: (consumer) => consumer.name,
  lag: (consumer) => consumer.lag_records ?? consumer.known_lag_records,
  age: (consumer) => consumer.lag_seconds,
  read: (consumer) => consumer.records_per_second,
  produced: (consumer) => consumer.produced,
  members: (consumer) => consumer.members,
};

/** Unknown comes last in either direction; equals are ordered by gravity, then lag, then name. */
function compare(a, b) {
  const { key, direction } = state.sort;
  return by(key, direction, a, b) || by("gravity", "descending", a, b) || by("lag", "descending", a, b) || by("name", "ascending", a, b);
}

function by(key, direction, a, b) {
  const x = SORT_VALUE[key](a), y = SORT_VALUE[key](b);
  if (x === null || y === null) return (x === null) - (y === null);
  const order = typeof x === "string" ? x.localeCompare(y) : x - y;
  return direction === "ascending" ? order : -order;
}

function matching() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  return state.consumers.filter((consumer) => words.every((word) => consumer.haystack.includes(word)));
}

function drawChips() {
  const counts = new Map();
  for (const { gravity } of matching()) counts.set(gravity, (counts.get(gravity) ?? 0) + 1);
  const focused = document.activeElement?.dataset?.health;
  const chip = (health, number) => h("button", {
    type: "button", class: `badge ${HEALTHS[health][1]}`, "data-health": health, "aria-pressed": String(state.healths.has(health)),
  }, shape(health), HEALTHS[health][0], h("b", {}, count(number)));
  const shown = GRAVITY.filter((health) => counts.has(health) || state.healths.has(health));
  $("chips").replaceChildren(...shown.map((health) => chip(health, counts.get(health) ?? 0)));
  if (focused) $("chips").querySelector(`[data-health="${focused}"]`)?.focus();
}

function drawHeads() {
  if (!$("heads").children.length) {
    $("heads").append(...COLUMNS.map(({ key, head, number }) => h("th", { scope: "col", role: "columnheader", class: `${number ? "number" : ""}${key ? "" : " plain-head"}`, "data-sort": key },
      key ? h("button", { type: "button" }, head) : h("span", {}, head))));
  }
  for (const head of $("heads").children) {
    if (head.dataset.sort === state.sort.key) head.setAttribute("aria-sort", state.sort.direction);
    else head.removeAttribute("aria-sort");
  }
}

// --- rows --------------------------------------------------------------------------------------------

const rows = new Map(); // key -> { row, cells, seen }: kept from report to report, so that focus stays where it is

function drawRows() {
  const found = matching().filter((consumer) => !state.healths.size || state.healths.has(consumer.gravity)).sort(compare);
  const visible = found.slice(0, state.shown);
  const focused = document.activeElement?.closest?.("#rows tr")?.dataset.key;
  const body = $("rows");
  const keep = new Set(visible.map((consumer) => consumer.key));
  for (const [key, { row }] of rows) {
    if (!keep.has(key)) { row.remove(); rows.delete(key); }
  }
  visible.forEach((consumer, index) => {
    const { row } = drawRow(consumer);
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
  });
  if (!keep.has(state.active)) state.active = visible[0]?.key ?? null;
  for (const [key, { button }] of rows) button.tabIndex = key === state.active ? 0 : -1;
  if (focused && rows.has(focused)) rows.get(focused).button.focus({ preventScroll: true });

  const left = found.length - visible.length;
  $("more").hidden = left === 0;
  setText($("more"), `Show ${count(Math.min(left, 2 * ROWS_AT_ONCE))} more of ${count(left)}`);
  $("none").hidden = found.length > 0;
  setText($("none"), "No consumer matches. Esc in the filter box, or another click on a health, shows them all.");
  return found.length;
}

function drawRow(consumer) {
  let kept = rows.get(consumer.key);
  if (!kept) {
    const button = h("button", { type: "button", class: "name", "aria-haspopup": "dialog" }, shownName(consumer.name));
    const about = h("span", {}), cells = [
      h("td", { class: "health" }),
      h("td", { class: "who" }, button, about),
      h("td", { class: "number lag", "data-label": "Lag, records" }),
      h("td", { class: "number age", "data-label": "Lag, time" }),
      h("td", { class: "number", "data-label": "Read" }),
      h("td", { class: "number", "data-label": "Produced" }),
      h("td", { class: "number", "data-label": "Members" }),
      h("td", { class: "trend" }),
    ];
    for (const cell of cells) cell.setAttribute("role", "cell");
    kept = { row: h("tr", { role: "row", "data-key": consumer.key }, ...cells), button, about, cells, seen: null };
    rows.set(consumer.key, kept);
  }
  const series = state.trails.get(consumer.cluster)?.rows.get(`${consumer.kind}/${consumer.name}`)?.lag_records ?? [];
  const seen = JSON.stringify([consumer, series, state.report.clusters.length]);
  if (seen !== kept.seen) {
    const { cells: [health, , lag, age, read, produced, members, trend] } = kept;
    health.replaceChildren(badge(consumer.gravity));
    kept.about.replaceChildren(...aboutConsumer(consumer));
    lag.replaceChildren(...lagWords(consumer));
    age.replaceChildren(...ageWords(consumer));
    read.replaceChildren(valueOr(consumer.records_per_second, rate, consumer.unknown.records_per_second));
    produced.replaceChildren(valueOr(consumer.produced, rate, consumer.producedUnknown));
    members.replaceChildren(consumer.kind === "spark" ? "–" : valueOr(consumer.members, count, consumer.unknown.members));
    trend.replaceChildren(sparkline(series, state.trails.get(consumer.cluster)?.at ?? []));
    kept.seen = seen;
  }
  return kept;
}

/** A name in one piece even where it has no letters to show. */
const shownName = (name) => (name.trim() === "" ? JSON.stringify(name) : name);
const valueOr = (value, words, reason) => (value === null ? unknown(reason) : words(value));

function aboutConsumer(consumer) {
  const tag = (text) => (text ? h("span", { class: "tag" }, text) : null);
  return [
    tag(KINDS[consumer.kind] ?? consumer.kind),
    tag(state.report.clusters.length > 1 ? consumer.cluster : null),
    tag(consumer.state && consumer.state !== "Stable" ? consumer.state : null),
    quiet(consumer.evidence),
    consumer.abandoned_topics.length ? quiet(...abandonedWords(consumer)) : null,
    consumer.spark ? quiet(...sparkWords(consumer)) : null,
  ].filter(Boolean);
}

function abandonedWords({ abandoned_topics: topics }) {
  const shown = topics.slice(0, 3).map(({ topic, lag_records: lag, unknown: why }) =>
    [topic, " (", lag === null ? unknown(why.lag_records) : counted(lag, "record"), ")"]);
  const rest = topics.length - shown.length;
  return [h("span", { class: "tag" }, "abandoned"), " ", ...shown.flatMap((words, index) => (index ? [", ", ...words] : words)),
    rest ? ` and ${count(rest)} more` : ""];
}

function sparkWords({ spark, unknown: why }) {
  const { last_batch_duration_seconds: took, trigger_interval_seconds: trigger, inflight_batch_age_seconds: inFlight } = spark;
  const slow = took !== null && trigger !== null && took > trigger;
  return [
    "batch ", took === null ? unknown(why.last_batch_duration_seconds) : duration(took),
    trigger === null ? "" : ` of a ${duration(trigger)} trigger`,
    slow ? " (slower than its trigger)" : "",
    inFlight === null ? "" : `, one in flight for ${duration(inFlight)}`,
  ];
}

function lagWords(consumer) {
  const lost = consumer.lost_records ? quiet(`${count(consumer.lost_records)} lost`) : null;
  if (consumer.lag_records !== null) return [h("span", { class: "figure" }, count(consumer.lag_records)), lost].filter(Boolean);
  const atLeast = consumer.known_lag_records === null ? null : quiet(`at least ${count(consumer.known_lag_records)}`);
  return [unknown(consumer.unknown.lag_records), atLeast, lost].filter(Boolean);
}

function ageWords(consumer) {
  const { lag_seconds: seconds, lag_seconds_bound: bound, objective_seconds: objective } = consumer;
  if (seconds === null) return [unknown(consumer.unknown.lag_seconds), quiet(`of ${duration(objective)}`)];
  const share = Math.min(100, (100 * seconds) / objective), tone = consumer.over_objective ? "bad" : "good";
  return [
    h("span", { class: "figure", title: basisWords(consumer) }, duration(seconds)),
    bound ? " " : "",
    bound ? h("span", { class: "bound" }, `± ${duration(bound)}`) : "",
    quiet(`of ${duration(objective)}`),
    h("span", { class: `meter ${tone}`, "aria-hidden": "true" }, bar(share)),
  ].filter(Boolean);
}

function bar(percent) {
  const fill = h("i");
  fill.style.width = `${percent.toFixed(1)}%`;
  return fill;
}

function basisWords({ basis, assumed }) {
  if (basis === null) return "";
  const by = basis === "record" ? "by the record's own timestamp" : "by when the monitor saw the record arrive";
  return `${by}${assumed ? ", assuming that timestamps are in order" : ""}`;
}

// --- drawings ----------------------------------------------------------------------------------------

/** Paths through the known values, by time: a gap stays a gap, also where the monitor itself did not look. */
function paths(values, at, width, height, top) {
  const times = at.slice(-values.length).map((iso) => Date.parse(iso));
  const begin = times[0], span = Math.max(1, times.at(-1) - begin);
  const gaps = times.slice(1).map((time, index) => time - times[index]).sort((a, b) => a - b);
  const longest = 3 * (gaps[Math.floor(gaps.length / 2)] ?? 1);
  const runs = [];
  let run = null;
  values.forEach((value, index) => {
    if (value === null || (index && times[index] - times[index - 1] > longest)) run = null;
    if (value === null) return;
    if (!run) runs.push(run = []);
    run.push([((times[index] - begin) / span) * width, height - (value / top) * height]);
  });
  const place = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  return {
    line: runs.map((points) => `M${points.length > 1 ? points.map(place).join("L") : `${place(points[0])}h0.1`}`).join(""),
    area: runs.map((points) => `M${points[0][0].toFixed(1)} ${height}L${points.map(place).join("L")}L${points.at(-1)[0].toFixed(1)} ${height}z`).join(""),
  };
}

function sparkline(values, at) {
  const known = values.filter((value) => value !== null), top = Math.max(1, ...known);
  if (!known.length) return quiet("");
  const words = `Lag of the last ${counted(values.length, "cycle")}: from ${count(Math.min(...known))} to ${count(Math.max(...known))} records`;
  const { line, area } = paths(values, at, 128, 24, top);
  return svg("svg", { viewBox: "-2 -3 132 30", preserveAspectRatio: "none", role: "img", "aria-label": words },
    svg("path", { class: "base", d: "M0 24h128" }), svg("path", { class: "area", d: area }), svg("path", { class: "line", d: line }));
}

function chart(title, values, at, words, limit = null) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return null;
  const most = Math.max(...known), least = Math.min(...known);
  // A limit far above all values would flatten them: it is drawn where it is in reach.
  const drawn = limit !== null && limit <= 2 * most ? limit : null;
  const top = Math.max(most, drawn ?? 0) * 1.05 || 1;
  const { line, area } = paths(values, at, 600, 80, top);
  const y = drawn === null ? null : 80 - (drawn / top) * 80;
  const times = at.slice(-values.length);
  const range = least === most ? words(most) : `${words(least)} to ${words(most)}`;
  return h("div", { class: "chart" },
    h("p", {}, h("span", {}, title), h("span", {}, range)),
    svg("svg", { viewBox: "0 -2 600 84", preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${range}` },
      svg("path", { class: "base", d: "M0 80h600" }), svg("path", { class: "area", d: area }), svg("path", { class: "line", d: line }),
      ...(y === null ? [] : [svg("path", { class: "limit", d: `M0 ${y.toFixed(1)}h600` })])),
    h("p", {}, h("span", {}, clock(times[0])), h("span", {}, drawn === null ? "" : `dashed: ${words(drawn)}`), h("span", {}, clock(times.at(-1)))));
}

// --- nothing to show ---------------------------------------------------------------------------------

function wait() {
  document.body.dataset.state = "waiting";
  setText($("alarm"), "");
  drawNothing();
  tick();
}

function drawNothing() {
  const clusters = state.report?.clusters ?? [];
  const has = state.consumers.length > 0;
  $("list").hidden = !has;
  $("nothing").hidden = has;
  if (!has) $("nothing").replaceChildren(...whyNothing(clusters));
}

function whyNothing(clusters) {
  const say = (title, ...lines) => [h("h2", {}, title), ...lines.map((line) => (typeof line === "string" ? h("p", {}, line) : line))];
  if (document.body.dataset.state === "lost") return say("The monitor does not answer", "Start it with streamgauge serve; this page goes on by itself.");
  if (!state.report) return say("The first look is under way", "The monitor is up and asks the clusters of its settings. This takes a few seconds; the page goes on by itself.");
  if (!clusters.length) return say("No cluster has a report", "The last cycle of every cluster failed by a fault of the monitor itself: its log says how.");
  const down = clusters.filter((cluster) => !cluster.up);
  if (down.length) {
    const failures = down.flatMap((cluster) => cluster.failures.map((each) => `${cluster.name}: ${each.scope} ${each.name}: ${each.error}${each.detail ? ` (${each.detail})` : ""}`));
    return say(`${down.map((cluster) => cluster.name).join(", ")} cannot be read`,
      "Check bootstrap_servers, security_protocol and credentials in streamgauge.yml, and that the brokers run. The monitor tries again each cycle.",
      h("ul", {}, ...failures.slice(0, 10).map((line) => h("li", {}, line))));
  }
  return say("No consumer yet",
    "The cluster answers, and nobody has committed an offset to it. As soon as a consumer group commits, it appears here.",
    "If there should be some: the monitor's user needs DESCRIBE on groups, and Spark queries are found by the checkpoint folders named under spark in streamgauge.yml.");
}

// --- one consumer ------------------------------------------------------------------------------------

let partitionsShown = PARTITIONS_AT_ONCE;
let asked = 0;

async function open(key) {
  const consumer = state.consumers.find((each) => each.key === key);
  if (!consumer) return;
  state.open = key;
  state.active = key;
  partitionsShown = PARTITIONS_AT_ONCE;
  drawTitle(consumer);
  $("detail-body").replaceChildren(quiet("asking the monitor"));
  if (!$("detail").open) $("detail").showModal();
  $("detail-body").scrollTop = 0;
  remember();
  await drawDetail();
}

function drawTitle(consumer) {
  $("detail-title").replaceChildren(
    h("h2", { id: "detail-name" }, shownName(consumer.name)),
    h("div", {}, badge(consumer.gravity), ...(consumer.gravity === "over_objective" || !consumer.over_objective ? [] : [badge("over_objective")]),
      ...[KINDS[consumer.kind], consumer.cluster, consumer.state, consumer.protocol].filter(Boolean).map((text) => h("span", { class: "tag" }, text))));
}

async function drawDetail() {
  const key = state.open, number = ++asked;
  const consumer = state.consumers.find((each) => each.key === key);
  if (!consumer) {
    return $("detail-body").replaceChildren(h("p", {}, "This consumer is gone: its cluster no longer lists it, or cannot be read."));
  }
  let parts;
  try {
    const path = `api/v1/consumers/${consumer.kind}/${encodeURIComponent(consumer.name)}?cluster=${encodeURIComponent(consumer.cluster)}`;
    const answer = await ask(path), found = await answer.json();
    parts = answer.ok ? partitionTable(found.consumer) : h("p", {}, found.error);
  } catch (error) {
    parts = h("p", {}, `Its partitions could not be fetched: ${error.message}`);
  }
  if (number !== asked || state.open !== key) return; // a later answer is on its way, or it was closed meanwhile
  drawTitle(consumer);
  const body = $("detail-body"), scrolled = body.scrollTop;
  body.replaceChildren(...detail(consumer), parts);
  body.scrollTop = scrolled;
}

function detail(consumer) {
  const trail = state.trails.get(consumer.cluster), series = trail?.rows.get(`${consumer.kind}/${consumer.name}`) ?? {};
  const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
  const { spark, unknown: why } = consumer;
  const charts = trail ? [
    chart("Lag, records", series.lag_records ?? [], trail.at, count),
    chart("Lag, time", series.lag_seconds ?? [], trail.at, duration, consumer.objective_seconds),
    spark ? chart("Micro-batch", series.batch_duration_seconds ?? [], trail.at, duration, spark.trigger_interval_seconds) : null,
  ].filter(Boolean) : [];
  const sparkFacts = spark ? [
    fact("last batch", valueOr(spark.last_batch_duration_seconds, duration, why.last_batch_duration_seconds),
      quiet(spark.batch_id === null ? "" : `number ${spark.batch_id}`)),
    fact("trigger", valueOr(spark.trigger_interval_seconds, duration, why.trigger_interval_seconds)),
    fact("batch in flight", spark.inflight_batch_age_seconds === null ? "none" : duration(spark.inflight_batch_age_seconds)),
    fact("event-time watermark", spark.watermark === null ? unknown(why.watermark) : `${duration(Math.round(ageOf(spark.watermark)))} ago`),
  ] : [
    fact("members", valueOr(consumer.members, count, why.members), quiet(consumer.assignor ? `assigned by ${consumer.assignor}` : "")),
    fact("rebalances", ...rebalanceWords(consumer)),
    fact("coordinator", valueOr(consumer.coordinator, (id) => `broker ${id}`, why.coordinator)),
  ];
  const found = state.report.clusters.find(({ name }) => name === consumer.cluster).findings.filter((finding) => isAbout(finding, consumer));
  // What there cannot be is not missing.
  const nulls = Object.entries(why).filter(([, reason]) => !/Spark query has none|classic protocol has none/.test(reason));
  return [
    h("p", { class: "evidence" }, consumer.evidence),
    found.length ? h("ul", { class: "reasons warn" }, ...found.slice(0, 100).map((finding) => h("li", {}, findingWords(finding)))) : null,
    consumer.abandoned_topics.length ? h("p", {}, ...abandonedWords(consumer)) : null,
    h("dl", { class: "facts" },
      fact("lag, records", ...lagWords(consumer)),
      fact("lag, time", ...ageWords(consumer), consumer.lag_seconds === null ? "" : quiet(basisWords(consumer))),
      fact("read", valueOr(consumer.records_per_second, rate, why.records_per_second)),
      fact("produced to its topics", valueOr(consumer.produced, rate, consumer.producedUnknown)),
      fact("lost before being read", valueOr(consumer.lost_records, count, why.lost_records)),
      ...sparkFacts),
    charts.length ? h("div", { class: "charts" }, ...charts) : null,
    consumer.last_hour ? lastHour(consumer.last_hour) : null,
    consumer.workers ? workerTable(consumer.workers) : null,
    nulls.length ? h("div", {}, h("h3", {}, "Not known"),
      h("ul", { class: "reasons" }, ...nulls.map(([name, reason]) => h("li", {}, `${name.replaceAll("_", " ")}: ${reason}`)))) : null,
  ].filter(Boolean);
}

function rebalanceWords({ rebalances, unknown: why }) {
  if (rebalances === null) return [unknown(why.rebalances)];
  const { count: number, exact, seconds, seconds_bound: bound } = rebalances;
  const took = bound ? `${duration(seconds)} to ${duration(seconds + bound)}` : duration(seconds);
  return [exact ? count(number) : `${number ? "at least " : ""}${count(number)}`, quiet(number ? `took ${took}` : "since the monitor started")];
}

/** What the rollups of the last hour say, whenever the monitor started. */
function lastHour(hour) {
  const { unknown: why } = hour, fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const words = (name, write) => valueOr(hour[name], write, why[name]);
  return h("div", {}, h("h3", {}, `Last hour, ${counted(hour.minutes, "minute")} of it kept`), h("dl", { class: "facts" },
    fact("lag at most, records", words("lag_records_max", count)),
    fact("lag on average, records", words("lag_records_mean", count)),
    fact("lag at most, time", words("lag_seconds_max", duration)),
    fact("read", words("records_out_per_second", rate)),
    fact("produced to its topics", words("records_in_per_second", rate)),
    fact("within its objective", words("within_objective", (share) => `${TENTHS.format(100 * share)} % of the time`))));
}

/** The Faust workers of a consumer, as they report themselves. */
function workerTable(workers) {
  const sum = (worker, name) => worker.agents.reduce((total, agent) => total + (agent[name] ?? 0), 0);
  const heads = ["Worker", "State", "Partitions", "Processed", "Errors", "Came to", "Each", "Waits for commit", "Buffered", "Rebalances", "Reported"];
  const cell = (...words) => h("td", { class: "number" }, ...words);
  const state = ({ state: word, recovery_remaining_records: left }) => word === "recovering" && left !== null ? `${word}, ${count(left)} left` : word;
  const outcomes = ({ outcomes: told }) => Object.entries(told).map(([word, records]) => `${count(records)} ${word.replaceAll("_", " ")}`).join(", ");
  const line = (worker) => {
    const { unknown: why } = worker, events = sum(worker, "events");
    const partitions = worker.assigned === null ? null : Object.values(worker.assigned).reduce((total, each) => total + each.length, 0);
    return h("tr", {},
      h("td", {}, worker.worker), h("td", {}, ["running", "starting"].includes(worker.state) ? state(worker) : h("span", { class: "tag" }, state(worker))),
      cell(valueOr(partitions, count, why.assigned)), cell(count(events)), cell(count(sum(worker, "errors"))), h("td", {}, outcomes(worker) || "–"),
      cell(events ? `${TENTHS.format(1000 * sum(worker, "seconds") / events)} ms` : "–"),
      cell(valueOr(worker.uncommitted_seconds, duration, why.uncommitted_seconds)),
      cell(worker.agents.some((agent) => agent.buffered === null) ? unknown(why.assigned ?? "the worker does not tell") : count(sum(worker, "buffered"))),
      cell(count(worker.rebalances), worker.rebalances ? quiet(duration(worker.rebalancing_seconds)) : null),
      cell(`${duration(worker.report_age_seconds)} ago`));
  };
  return h("div", {}, h("h3", {}, counted(workers.length, "Faust worker")),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Faust workers" },
      h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((head, at) => h("th", { scope: "col", class: at > 1 && head !== "Came to" ? "number" : "" }, head)))),
        h("tbody", {}, ...workers.map(line)))));
}

/** Whether a finding is about a consumer, or about a topic that it reads. */
function isAbout({ consumer: who, topic }, consumer) {
  return who ? who.kind === consumer.kind && who.name === consumer.name : consumer.topics.includes(topic);
}

function partitionTable(consumer) {
  const isSpark = consumer.kind === "spark";
  const lagOf = (each) => each.lag_records ?? Infinity;
  const sorted = [...consumer.partitions].sort((a, b) =>
    a.abandoned - b.abandoned || lagOf(b) - lagOf(a) || a.topic.localeCompare(b.topic) || a.partition - b.partition);
  const number = (each, name) => h("td", { class: "number" }, valueOr(each[name], count, each.unknown[name]));
  const heads = ["Topic", "Partition", "Lag", "Time", "Committed", isSpark ? "Planned" : null, "Log end", "Health", isSpark ? null : "Member"].filter(Boolean);
  const numbers = new Set(["Partition", "Lag", "Time", "Committed", "Planned", "Log end"]);
  const line = (each) => h("tr", {},
    h("td", {}, each.topic), h("td", { class: "number" }, String(each.partition)),
    h("td", { class: "number" }, valueOr(each.lag_records, count, each.unknown.lag_records), each.lost_records ? quiet(`${count(each.lost_records)} lost`) : null),
    h("td", { class: "number" }, each.lag_seconds === null ? unknown(each.unknown.lag_seconds)
      : h("span", { title: basisWords(each) }, duration(each.lag_seconds), each.lag_seconds_bound ? ` ± ${duration(each.lag_seconds_bound)}` : "")),
    number(each, "committed"), isSpark ? number(each, "planned") : null, number(each, "log_end"),
    h("td", {}, each.abandoned ? h("span", { class: "tag" }, "abandoned") : badge(each.health)),
    isSpark ? null : h("td", {}, ...ownerWords(each)));
  const left = sorted.length - partitionsShown;
  const more = left > 0 ? h("p", { class: "more" }, h("button", { type: "button", onclick: () => { partitionsShown += 1000; drawDetail(); } }, `Show more of ${count(left)}`)) : null;
  return h("div", {}, h("h3", {}, `${counted(sorted.length, "partition")}, the largest lag first`),
    sorted.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Partitions" },
      h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((head) => h("th", { scope: "col", class: numbers.has(head) ? "number" : "" }, head)))),
        h("tbody", {}, ...sorted.slice(0, partitionsShown).map(line)))) : null, more);
}

function ownerWords({ member, owner, unknown: why }) {
  if (owner !== null) return [h("span", { title: owner.member_id }, owner.client_id), quiet(owner.host)];
  return member === null ? [h("span", { class: "quiet", title: why.member }, "–")] : [member];
}

// --- hands -------------------------------------------------------------------------------------------

function redraw() {
  state.shown = ROWS_AT_ONCE;
  drawChips();
  drawHeads();
  const found = drawRows();
  setText($("status"), `${counted(found, "consumer")} shown`);
  remember();
}

function move(step) {
  const all = [...$("rows").children], at = all.findIndex((row) => row.dataset.key === state.active);
  const inside = document.activeElement?.closest?.("#rows");
  const next = inside ? at + step : at;
  if (next >= all.length && !$("more").hidden) { $("more").click(); return move(step); }
  const row = all[Math.max(0, Math.min(all.length - 1, next))];
  if (row) focusRow(row.dataset.key);
}

function focusRow(key) {
  state.active = key;
  for (const [each, { button }] of rows) button.tabIndex = each === key ? 0 : -1;
  rows.get(key)?.button.focus();
  rows.get(key)?.row.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("detail").open) return;
  const typing = event.target === $("filter");
  const actions = typing
    ? { Escape: () => { $("filter").value = state.filter = ""; redraw(); }, ArrowDown: () => move(0), Enter: () => move(0) }
    : { "/": () => $("filter").focus(), j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1) };
  const action = actions[event.key];
  if (!action || $("list").hidden) return;
  event.preventDefault();
  action();
});

$("filter").addEventListener("input", () => { state.filter = $("filter").value; redraw(); });
$("chips").addEventListener("click", (event) => {
  const health = event.target.closest("button")?.dataset.health;
  if (!health) return;
  if (!state.healths.delete(health)) state.healths.add(health);
  redraw();
});
$("heads").addEventListener("click", (event) => {
  const column = COLUMNS.find(({ key }) => key && key === event.target.closest("th")?.dataset.sort);
  if (!column) return;
  const again = state.sort.key === column.key;
  const other = { ascending: "descending", descending: "ascending" };
  state.sort = { key: column.key, direction: again ? other[state.sort.direction] : column.first };
  redraw();
});
$("rows").addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row && !String(getSelection())) open(row.dataset.key);
});
$("rows").addEventListener("focusin", (event) => {
  const key = event.target.closest("tr")?.dataset.key;
  if (key && key !== state.active) focusRow(key);
});
$("more").addEventListener("click", () => { state.shown += 2 * ROWS_AT_ONCE; drawRows(); });
$("close").addEventListener("click", () => $("detail").close());
$("detail").addEventListener("click", (event) => { if (event.target === $("detail")) $("detail").close(); });
$("detail").addEventListener("close", () => {
  const key = state.open;
  state.open = null;
  remember();
  if (key) rows.get(key)?.button.focus();
});

// --- what is looked at is in the address, so that it can be sent to somebody ---------------------------

function remember() {
  const words = new URLSearchParams();
  if (state.filter) words.set("filter", state.filter);
  if (state.healths.size) words.set("health", [...state.healths].join(","));
  if (state.sort.key !== "gravity" || state.sort.direction !== "descending") words.set("sort", `${state.sort.key},${state.sort.direction}`);
  if (state.open) words.set("open", state.open);
  history.replaceState(null, "", words.size ? `#${words}` : location.pathname + location.search);
}

function recall() {
  const words = new URLSearchParams(location.hash.slice(1));
  $("filter").value = state.filter = words.get("filter") ?? "";
  state.healths = new Set((words.get("health") ?? "").split(",").filter((health) => health in HEALTHS));
  const [key, direction] = (words.get("sort") ?? "").split(",");
  if (key in SORT_VALUE && ["ascending", "descending"].includes(direction)) state.sort = { key, direction };
  return words.get("open");
}

// --- start -------------------------------------------------------------------------------------------

let polling = null;

/** Ask, then ask again a while later; while nobody looks, don't. */
async function watch() {
  clearTimeout(polling);
  if (document.hidden) return;
  await poll();
  clearTimeout(polling);
  polling = setTimeout(watch, POLL_MS);
}

document.addEventListener("visibilitychange", watch);
setInterval(tick, 1000);
const wanted = recall();
await watch();
if (wanted) open(wanted);
