/** A service at work: its address, its traffic, its drift, its last answers, and what steers it. */
export default face("service", (root, ask) => {
  const places = ["head", "traffic", "steering", "drift", "requests", "error"];
  const [head, traffic, steering, drift, requests, error] = places.map(() => h("div", {}));
  const listed = scrolled(requests, "Latest requests");
  listed.classList.add("wb-requests");
  root.append(head, traffic, steering, drift, listed, error);
  const parts = [
    filler(head, head, headOf), filler(traffic, traffic, trafficOf), filler(drift, drift, driftOf),
    filler(requests, requests, requestsOf), filler(error, error, errorOf),
  ];
  const steer = steeringOf(steering, ask);
  const leave = staying(root, ask);
  const draw = (shown) => {
    const { state, model, url, page, curl, note, name, failures, answers } = shown;
    const told = [
      { state, model, url, page, curl, note, name }, shown.traffic, shown.drift,
      { answers, failures }, { error: shown.error },
    ];
    parts.forEach((part, i) => part(told[i]));
    steer(shown);
  };
  return { draw, close: leave };
});

// ---- What it is ---------------------------------------------------------------------------------

const STATES = { running: "running", draining: "paused", "not reached": "failed" };

/** Its name, its state, what answers, where, and how it is asked from a terminal. */
function headOf({ state, model, url, page, curl, note, name }) {
  const link = h("a", { href: page, target: "_blank", rel: "noopener" }, page);
  const where = state === "stopped" ? h("span", { class: "wb-muted" }, url) : link;
  const line = h("div", { class: "wb-line-up" }, h("b", { class: "wb-title" }, name),
    h("span", { class: "wb-state", "data-state": STATES[state] ?? state }, state),
    h("span", {}, model && `answers with ${model}`));
  const code = codeOf(curl, "Command");
  const both = h("div", { class: "wb-command" }, code, copier(curl, "Copy command", code));
  const command = curl ? [both] : [];
  const told = note ? [h("p", { class: "wb-note", role: "status" }, note)] : [];
  return [line, h("p", {}, where), ...command, ...told];
}

// ---- Traffic ------------------------------------------------------------------------------------

/** Figures, and as plots requests by time and batches by size. */
function trafficOf(told) {
  const { latency, since, mean_rows: mean } = told;
  const refused = Object.entries(told.refused);
  const wrong = Object.entries(told.statuses).filter(([status]) => status >= "400");
  const sum = (pairs) => count(pairs.reduce((total, [, n]) => total + n, 0));
  const list = (pairs) => pairs.map(([what, n]) => `${count(n)} × ${what}`).join(", ");
  const plain = (value) => (typeof value === "string" ? value : short(value));
  const ms = (value) => (value === null ? "–" : `${plain(value)} ms`);
  const facts = [
    ["Requests a second", short(told.rate), "in the last 10 s"],
    ["Requests", count(told.requests), `${count(told.rows)} rows`],
    ["Half within", ms(latency.p50), latency.p50 === null ? "" : since],
    ["95 % within", ms(latency.p95), `99 % within ${ms(latency.p99)}`],
    ["Rows a batch", mean === null ? "–" : short(mean), `${count(told.batches)} batches`],
    ["Waiting", count(told.waiting), "on its server"],
    ["Refused", sum(refused), list(refused)],
    ["Errors", sum(wrong), list(wrong)],
  ];
  const figures = facts.map(([name, value, more]) => h("div", {},
    h("dt", {}, name), h("dd", {}, h("b", {}, value), h("small", { class: "wb-muted" }, more))));
  return [h("dl", { class: "wb-facts" }, ...figures),
    h("div", { class: "wb-plots" }, ratePlot(told.rates, told.apart), sizePlot(told.sizes))];
}

/** Requests a second over the last minutes. */
function ratePlot(rates, apart) {
  const minutes = (rates.length * apart) / 60;
  const points = rates.map((rate, i) => [((i + 1 - rates.length) * apart) / 60, rate]);
  const most = Math.max(...rates);
  const said = `${short(rates.at(-1))} now, ${short(most)} at most`;
  const picture = plot({
    label: `Requests a second in the last ${minutes} minutes: ${said}`,
    x: { label: "minutes", low: -minutes, high: 0 }, y: { low: 0, high: Math.max(1, most * 1.05) },
    lines: [{ points, colour: 0 }], size: [440, 150],
  });
  return h("figure", {}, h("figcaption", { class: "wb-muted" }, "Requests a second"), picture);
}

/** How many batches there were of each size. */
function sizePlot(sizes) {
  if (!sizes.length) return h("p", { class: "wb-muted" }, "No batch yet.");
  const most = Math.max(...sizes.map(([, n]) => n));
  const common = sizes.find(([, n]) => n === most)[0];
  const points = sizes.map(([, n], i) => [i, n]);
  const ticks = sizes.map(([of], i) => [i, of]);
  const picture = plot({
    label: `Batches by rows: most have ${common}`,
    x: { label: "rows", low: -0.6, high: sizes.length - 0.4, ticks },
    y: { low: 0, high: most },
    bars: [{ points, width: 0.8, title: points.map(([, n]) => count(n)) }],
    size: [Math.max(300, 62 * sizes.length), 150],
  });
  return h("figure", {}, h("figcaption", { class: "wb-muted" }, "Batches by rows"), picture);
}

// ---- Drift, requests, errors --------------------------------------------------------------------

/** How far each figure is from what the model was made for, with where the alarm begins. */
function driftOf(drift) {
  if (!drift) return [];
  const { looking, figures, more } = drift;
  const told = (text) => [h("h3", {}, "Drift by feature"), h("p", { class: "wb-muted" }, text)];
  if (!looking) return told("Not known: nothing is kept of what the model was made for.");
  const next = `${count(looking.rows)} of the next ${count(looking.window)} rows are there.`;
  if (!figures.length) return told(`Not known yet. ${next}`);
  const most = Math.max(...figures.map(({ psi, threshold }) => Math.max(psi, threshold)));
  const heads = ["figure", "distance", "PSI", "alarm from", "KS", "p", "alarm"];
  const lines = figures.map((one) => driftLine(one, most));
  const all = table("Distance of each figure from its reference", heads, lines);
  const rest = more ? ` ${count(more)} more are farther from theirs.` : "";
  return [...told(`${alarmsOf(drift)}${rest} ${next}`), scrolled(all, "Drift by feature")];
}

/** How many figures give the alarm, in a sentence. */
function alarmsOf({ alarms, rows, last }) {
  const some = alarms > 1 ? `${alarms} figures give` : `${alarms || "No"} figure gives`;
  return `${some} the alarm in the ${count(rows)} rows up to ${clock(last)}.`;
}

/** A line of the table: a bar beside its figures. */
function driftLine({ figure, psi, threshold, ks, p, alarm }, most) {
  const said = h("span", { class: alarm ? "wb-alarm" : "wb-muted" }, alarm ? "▲ alarm" : "none");
  return [figure, psiBar(psi / most, threshold / most, alarm), psi.toFixed(3), threshold.toFixed(2),
    ks === null ? "–" : short(ks), short(p), said];
}

/** A bar, and a tick where the alarm begins; the figures stand beside it. */
function psiBar(share, mark, alarm) {
  const style = `--share: ${share}; --mark: ${mark}`;
  return h("span", { class: `wb-psi${alarm ? " wb-far" : ""}`, style, "aria-hidden": "true" });
}

/** The last requests, and what was refused or failed since the panel was opened. */
function requestsOf({ answers, failures }) {
  const lines = [...answers.map(answerLine), ...failures.map(failureLine)];
  if (!lines.length) return [h("p", { class: "wb-muted" }, "No request has been answered yet.")];
  lines.sort((a, b) => b[0] - a[0]);
  const told = lines.map(([at, ...rest]) => [clock(at), ...rest]);
  return [table("Latest requests", ["time", "rows", "answer", "ms", "status"], told)];
}

const answerLine = ({ at, rows, said, ms, version }) =>
  [at, count(rows), said, short(ms), `200, version ${version}`];

const failureLine = ({ at, status, count: n }) =>
  [at, "", `none to ${n > 1 ? count(n) : "one"}`, "", `${status}, ${REASONS[status] ?? "error"}`];

const REASONS = {
  400: "not what the model takes", 404: "no such version", 413: "too large",
  415: "no type that it takes", 429: "the line was full", 500: "the model failed",
  503: "stopping or loading", 504: "too late",
};

/** The traceback of the last request that a model failed at. */
function errorOf({ error }) {
  if (!error) return [];
  const last = error.trim().split("\n").at(-1);
  const summary = h("summary", {}, `Last error: ${last.slice(0, 120)}`);
  return [h("details", {}, summary, codeOf(error, "Last error"))];
}

/** A text as it stands, which scrolls. */
function codeOf(text, label) {
  return h("pre", { class: "wb-code", tabindex: "0", role: "group", "aria-label": label }, text);
}

const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString("en-GB");

// ---- Steering -----------------------------------------------------------------------------------

/** Swap the version, promote one, stop or serve again; what cannot be done says why. */
function steeringOf(place, ask) {
  place.className = "wb-part wb-steering";
  const fields = fieldsOf();
  let [asking, now, chosen] = [false, {}, ""];
  const show = filler(place, place, ({ state, ref, cannot, versions }) => {
    if (state === "stopped") return [doing("Serve again", cannot.again, () => ask("again"))];
    const known = versions.map((one) => one.ref);
    if (!known.includes(chosen)) chosen = known.includes(ref) ? ref : (known[0] ?? ref);
    fields.know(versions);
    const options = versions.map((one) => [one.ref, nameOfVersion(one, ref)]);
    const pick = choice("Version", options, chosen, (to) => {
      chosen = to;
      turn(asking);
    });
    const none = versions.length ? "" : "no version here takes and answers the same";
    const same = chosen === ref ? "it answers now" : "";
    const swap = () => ask("swap", { ref: chosen });
    const promote = () => ask("promote", { ref: chosen, ...fields.values() });
    return [
      h("div", { class: "wb-line-up" }, pick, doing("Swap in", cannot.swap || none || same, swap)),
      h("div", { class: "wb-line-up" }, ...fields.elements,
        doing("Promote", cannot.promote || none, promote)),
      asking ? question(ask, turn) : doing("Drain and stop", cannot.stop, () => turn(true)),
    ];
  });
  const turn = (to) => {
    const opens = to && !asking;
    asking = to;
    show({ ...now, asking, chosen });
    if (opens) place.querySelector("[data-yes]")?.focus();
  };
  return ({ state, ref, cannot, versions }) => {
    now = { state, ref, cannot, versions };
    if (state !== "running") asking = false;
    show({ ...now, asking, chosen });
  };
}

/** An alias, one that is known or another, and why it is moved; they keep what was typed. */
function fieldsOf() {
  const known = h("datalist", { id: `wb-aliases-${Math.random().toString(36).slice(2)}` });
  const alias = h("input", { list: known.id, size: "12" });
  const why = h("input", { size: "24", placeholder: "for its log" });
  const has = h("span", { class: "wb-muted", role: "status" });
  let versions = [];
  const say = () => {
    const holder = versions.find(({ aliases }) => aliases.includes(alias.value));
    write(has, holder ? `${alias.value} is ${holder.ref} now` : "");
  };
  alias.value = "champion";
  alias.addEventListener("input", say);
  return {
    elements: [h("label", {}, "Alias", alias), known, has, h("label", {}, "Why", why)],
    know: (all) => {
      versions = all;
      const names = [...new Set(["champion", ...all.flatMap(({ aliases }) => aliases)])];
      known.replaceChildren(...names.map((value) => h("option", { value })));
      say();
    },
    values: () => ({ alias: alias.value, why: why.value }),
  };
}

/** A version with its aliases and figures. */
function nameOfVersion({ ref, aliases, figures }, now) {
  return [ref, ref === now && "answers now", ...aliases, figures].filter(Boolean).join(" · ");
}

/** A button, disabled with its reason beside it where it cannot be pressed. */
function doing(name, reason, press) {
  const one = disabledIf(Boolean(reason), button(name, press));
  const said = reason ? [h("span", { class: "wb-muted" }, reason)] : [];
  return h("span", { class: "wb-line-up" }, one, ...said);
}

/** Whether the service is really to stop. */
function question(ask, turn) {
  const yes = button("Stop it", () => { turn(false); ask("stop"); }, { "data-yes": "" });
  return h("div", { class: "wb-line-up", role: "group", "aria-label": "Stop the service?" },
    h("span", {}, "Stop the service? What it has accepted is answered, and nothing after that."),
    yes, button("Keep it", () => turn(false)));
}
