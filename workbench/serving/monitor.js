// How each model does: drift, labels, a challenger and speed, looked at again every few seconds.
// Names of figures, groups and models are the model's or its users', and stay text.
// `root`, `fetched` and `element` are those of page.js.
"use strict";

const EVERY = 5; // seconds between two looks
const LOOKED_BACK = 60; // seconds over which the speed is told
const MOST = 8; // lines of a drawing; all are in its table
const PERCENT = "\u00a0%"; // never on a line of its own
const cards = [...document.querySelectorAll(".watched")];
const looks = []; // at the counters: when, and the text

if (cards.length) keepLooking();

async function keepLooking() {
  for (;;) {
    while (document.hidden) await once("visibilitychange");
    await count().catch(() => looks.splice(0)); // what is wrong, each card says for itself
    for (const card of cards) await look(card);
    await new Promise((done) => setTimeout(done, 1000 * EVERY));
  }
}

function once(name) {
  return new Promise((done) => document.addEventListener(name, done, { once: true }));
}

async function look(card) {
  const status = card.querySelector("[role=status]");
  try {
    const told = await (await fetched(new URL(card.dataset.from, root))).json();
    say(status, ...standing(told));
    fill(card, "speed", speed(card.dataset.name));
    fill(card, "drift", drift(told), driftTable(told));
    fill(card, "accuracy", accuracy(told, card.dataset.name), scoreTable(scores(told)));
    fill(card, "challenger", challenger(told), scoreTable(sides(told)));
  } catch (error) {
    say(status, state("warn", "Not known now"), ` ${error.message}`);
  }
}

// A part shows what is seen and the same as a table: lists of cells, the first one its head.
function fill(card, name, seen, table) {
  const part = card.querySelector(`[data-part=${name}]`);
  part.hidden = !seen.length;
  say(part.querySelector(".seen"), ...seen);
  if (!table) return;
  const [head = [], ...rows] = table;
  part.querySelector("details").hidden = !rows.length;
  say(part.querySelector("thead"), line("th", "th", head));
  say(part.querySelector("tbody"), ...rows.map((cells) => line("th", "td", cells)));
}

// Nothing is touched that stays the same: what is selected, focused or read aloud stays so too.
function say(place, ...content) {
  const made = element("div");
  made.append(...content);
  if (made.innerHTML !== place.innerHTML) place.replaceChildren(...made.childNodes);
}

function line(first, others, cells) {
  const row = element("tr");
  row.append(...cells.map((text, i) => element(i ? others : first, i ? "number" : "", text)));
  for (const cell of row.querySelectorAll("th")) cell.scope = others === "th" ? "col" : "row";
  return row;
}

// The sentence above all, and what of it was lost.
function standing({ model, drift, looking, log }) {
  const lost = log.dropped ? ` ${whole(log.dropped)} answers could not be written down.` : "";
  const trouble = log.trouble ? ` Trouble: ${log.trouble}.` : "";
  const [kind, word, told] = standingOf(model, drift, looking);
  return [state(kind, word), ` ${told}${lost}${trouble}`];
}

function standingOf(model, drift, looking) {
  if (drift?.alarm.length) {
    const share = `${drift.alarm.length} of ${drift.figures.length} figures`;
    return ["bad", "Drift", `${model} was asked about other rows than it was made for: alarm in ${share}.`];
  }
  if (drift) return ["good", "No drift", `in the last rows of ${model}.`];
  if (looking) return ["", "Drift not known", `${model} has not answered enough rows yet.`];
  return ["", "Drift not known", `${model} has no reference that its rows could be held against.`];
}

// Drift.

function drift({ drift, windows, looking }) {
  if (!looking) return [];
  const missing = looking.window - looking.rows;
  const next = `${whole(looking.rows)} of ${whole(looking.window)} rows are there`;
  if (!drift) return [note(`${next}: ${whole(missing)} more are needed for the first window.`)];
  const ordered = byWeight(drift);
  const most = Math.max(...ordered.map(({ psi, threshold }) => Math.max(psi, threshold)));
  const shown = ordered.slice(0, MOST).map((figure) => driftLine(figure, most));
  const rest = ordered.slice(MOST);
  const alarms = rest.filter(({ alarm }) => alarm).length;
  return [
    note(`Population stability index of ${whole(drift.rows)} rows, up to ${when(drift.last)}. ` +
      "The tick is where the alarm begins."),
    list(shown),
    ...(rest.length ? [note(`and ${rest.length} more figures, ${alarms || "none"} with alarm`)] : []),
    strip([...windows].reverse()),
    note(`Of the next window ${next}.`),
  ];
}

function byWeight({ figures }) {
  return [...figures].sort((a, b) => b.psi / b.threshold - a.psi / a.threshold);
}

function driftLine({ figure, psi, threshold, alarm }, most) {
  const bar = svg("rect", { x: 0, y: 2, width: (100 * psi) / most, height: 6, class: alarm ? "alarm" : "" });
  const drawn = drawing(bar, stroke((100 * threshold) / most, 0, "v10", "tick"));
  return entry(figure, drawn, psi.toFixed(2), alarm ? state("bad", "alarm") : "");
}

// Windows beside each other: one with the alarm is taller, and told in words.
function strip(windows) {
  const told = windows.map(({ alarm }) => (alarm.length ? "alarm" : "none"));
  const bars = told.map((word, i) => {
    const height = word === "alarm" ? 18 : 6;
    return svg("rect", { x: 12 * i, y: 18 - height, width: 9, height, class: word });
  });
  const size = { width: 12 * told.length, height: 18, viewBox: `0 0 ${12 * told.length} 18` };
  const drawn = svg("svg", { ...size, role: "img", "aria-label": `Oldest first: ${told.join(", ")}` }, bars);
  const place = element("p", "strip");
  const alarms = told.filter((word) => word === "alarm").length;
  const last = told.length === 1 ? "the last window" : `the last ${told.length} windows`;
  place.append(drawn, element("span", "", `${alarms || "none"} of ${last} with alarm`));
  return place;
}

function driftTable({ drift }) {
  if (!drift) return [];
  const rows = byWeight(drift).map(({ figure, psi, threshold, ks, p, alarm }) => [
    figure, psi.toFixed(3), threshold.toFixed(3), digits(ks), digits(p), alarm ? "alarm" : "none",
  ]);
  return [["Figure", "Index", "Threshold", "KS", "p", "Alarm"], ...rows];
}

// Accuracy, or mean error, with its interval.

function scores({ accuracy }) {
  if (!accuracy.labels) return [];
  const groups = Object.entries(accuracy.groups).map(([name, part]) => ({ ...part, name }));
  const ordered = groups.sort((a, b) => b.labels - a.labels);
  return [{ ...accuracy, name: "all" }, ...ordered.filter(({ labels }) => labels)];
}

function accuracy(told, name) {
  const found = scores(told);
  if (!found.length) return [note(`None have come yet: POST them to models/${name}/feedback.`)];
  const what = "accuracy" in found[0] ? "accuracy" : "mean absolute error";
  const more = found.length - MOST;
  return [
    note(`The point is the ${what}, the whiskers its 95 % interval.`),
    points(found.slice(0, MOST)),
    ...(more > 0 ? [note(`and ${more} more groups`)] : []),
  ];
}

function sides({ challenger }) {
  const { champion, challenger: other, evidence } = challenger ?? {};
  const found = [
    { name: `${champion}, champion`, ...evidence?.champion },
    { name: `${other}, challenger`, ...evidence?.challenger },
  ];
  return found.filter(({ labels }) => labels);
}

function challenger(told) {
  if (!told.challenger) return [];
  const { challenger: name, mode, share, promote, reason } = told.challenger;
  const some = share === 1 ? "all requests" : `${digits(100 * share)}${PERCENT} of the requests`;
  const how = mode === "shadow" ? `is asked ${some} too, unheard` : `answers ${some}`;
  const found = sides(told);
  return [note(`${name} ${how}.`), ...(found.length ? [points(found)] : []), verdict(promote, reason)];
}

function verdict(promote, reason) {
  const said = `${reason[0].toUpperCase()}${reason.slice(1)}.`;
  const [, word, rest] = said.match(/^([\w ]{1,30})(:.*)$/s) ?? [];
  const kind = promote ? "good" : word === "Worse" ? "bad" : "";
  const place = element("p");
  place.append(...(word ? [state(kind, word), rest] : [said]));
  return place;
}

// A point each, and whiskers where 95 % confidence ends, all on one scale.
function points(found) {
  const ends = found.flatMap((one) => one.interval ?? [mean(one)]);
  const isShare = "accuracy" in found[0];
  const spare = 0.08 * (Math.max(...ends) - Math.min(...ends)) || 0.01;
  const low = Math.max(0, Math.min(...ends) - spare);
  const high = isShare ? Math.min(1, Math.max(...ends) + spare) : Math.max(...ends) + spare;
  const at = (value) => (100 * (value - low)) / (high - low);
  const lines = found.map((one) => entry(one.name, whiskers(one, at), figure(one), labelled(one)));
  const scale = element("li", "scale");
  scale.setAttribute("aria-hidden", "true");
  scale.append(element("span", "", worded(low, isShare)), element("span", "", worded(high, isShare)));
  return list([...lines, scale]);
}

function whiskers(one, at) {
  const [from, to] = (one.interval ?? [mean(one), mean(one)]).map(at);
  const dot = stroke(at(mean(one)), 5, "h0.001", "dot");
  return drawing(stroke(from, 5, `H${to}`), stroke(from, 2, "v6"), stroke(to, 2, "v6"), dot);
}

function scoreTable(found) {
  if (!found.length) return [];
  const isShare = "accuracy" in found[0];
  const rows = found.map((one) => {
    const [from, to] = one.interval ?? [];
    const cells = [mean(one), from, to].map((value) => (value == null ? "–" : worded(value, isShare)));
    return [one.name, whole(one.labels), ...cells];
  });
  return [["Whose", "Labels", isShare ? "Accuracy" : "Mean error", "From", "To"], ...rows];
}

function figure(one) {
  const isShare = "accuracy" in one;
  const ends = one.interval?.map((value) => worded(value, isShare).replace(PERCENT, "")).join(" to ");
  return ends ? `${worded(mean(one), isShare)} (${ends})` : worded(mean(one), isShare);
}

function mean(one) {
  return one.accuracy ?? one.error;
}

function labelled({ labels }) {
  return labels === 1 ? "1 label" : `${whole(labels)} labels`;
}

// Speed, by the difference of two looks at the counters.

async function count() {
  const text = await (await fetched(new URL("metrics", root))).text();
  looks.push({ at: performance.now() / 1000, text });
  while (looks.length > 2 && looks[1].at < looks.at(-1).at - LOOKED_BACK) looks.shift();
}

function speed(name) {
  if (!looks.length) return [];
  const [first, last] = [looks[0], looks.at(-1)];
  const [before, now] = [buckets(first.text, name), buckets(last.text, name)];
  const total = now.at(-1)?.[1] ?? 0;
  const spent = now.map(([bound, answers], i) => [bound, answers - (before[i]?.[1] ?? 0)]);
  const told = `${whole(total)} answers since the service was started`;
  const answers = spent.at(-1)?.[1] ?? 0;
  const seconds = last.at - first.at;
  if (looks.length < 2 || answers < 0) return [note(`${told}.`)];
  const recently = `in the last ${Math.round(seconds)} seconds`;
  if (answers === 0) return [note(`${told}, none ${recently}.`)];
  const [half, most] = [0.5, 0.95].map((share) => within(spent, share));
  const rate = `${digits(answers / seconds)} a second ${recently}`;
  return [note(`${told}, ${rate}: half within about ${half}, 95 % within about ${most}.`)];
}

// The answers of a name within each bound in seconds, its versions together.
function buckets(text, name) {
  const found = new Map();
  for (const [, labels, count] of text.matchAll(/^workbench_answer_seconds_bucket\{(.*)\} (\S+)$/gm)) {
    const { model, le } = Object.fromEntries([...labels.matchAll(/(\w+)="(.*?)"/g)].map((m) => m.slice(1)));
    const bound = le === "+Inf" ? Infinity : Number(le);
    if (model === name) found.set(bound, (found.get(bound) ?? 0) + Number(count));
  }
  return [...found].sort(([a], [b]) => a - b);
}

// Where a share of the answers lies, evenly spread within its bucket.
function within(spent, share) {
  const wanted = share * spent.at(-1)[1];
  const i = spent.findIndex(([, answers]) => answers >= wanted);
  const [low, fewer] = i ? spent[i - 1] : [0, 0];
  const [high, answers] = spent[i];
  if (high === Infinity) return `more than ${low} s`;
  const inside = (wanted - fewer) / (answers - fewer);
  return `${Number((1000 * (low + (high - low) * inside)).toPrecision(2))} ms`;
}

// What drawings are made of.

function list(entries) {
  const made = element("ul", "lines");
  made.append(...entries);
  return made;
}

function entry(name, drawn, value, more) {
  const item = element("li");
  const last = element("span", "told");
  last.append(more);
  item.append(element("span", "name", name), drawn, " ", element("span", "", value), " ", last);
  return item;
}

// As wide as there is room, 100 units; its text stands beside it.
function drawing(...parts) {
  const look = { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", look, parts);
}

function stroke(x, y, way, kind = "") {
  return svg("path", { d: `M${x} ${y}${way}`, class: kind });
}

function svg(name, attributes, children = []) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function state(kind, word) {
  return element("span", `state ${kind}`, word);
}

function note(text) {
  return element("p", "note", text);
}

// How figures are said.

function whole(number) {
  return number.toLocaleString("en");
}

function digits(value) {
  return value == null ? "–" : `${Number(value.toPrecision(3))}`;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}${PERCENT}`;
}

function worded(value, isShare) {
  return isShare ? percent(value) : digits(value);
}

function when(seconds) {
  return new Date(1000 * seconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
