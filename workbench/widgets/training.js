/**
 * What `fit` shows while a model trains: curves, progress, and buttons to steer it.
 *
 * A store keeps what the kernel tells, once for each model; every output draws it in a view of its
 * own. The default export is a function, so that each model has a store of its own in every host.
 */
export default () => {
  let store;
  return {
    initialize({ model }) {
      store = openStore(model);
      return store.close;
    },
    render({ el }) {
      return openView(store, el);
    },
  };
};

const GOING = ["running", "paused", "measuring"];
const WAITING = "waiting for the first step";
const SILENT = "No kernel answers: run the cell again, or call show().";

const ROW = `
  <div class="wb-head">
    <b class="wb-name"></b> <span class="wb-what"></span> <span class="wb-state"></span>
    <span class="wb-buttons">
      <button type="button" data-ask="pause">Pause</button>
      <button type="button" data-ask="stop">Stop</button>
      <button type="button" data-ask="extend">Extend</button>
      <span>by <input type="number" min="1" value="1" step="any" aria-label="Extend by epochs"> epochs</span>
    </span>
  </div>
  <progress></progress>
  <p class="wb-line"></p>
  <p class="wb-note"></p>`;

const VIEW = `
  <div class="wb-rows"></div>
  <p class="wb-message" role="status"></p>
  <div class="wb-panel" hidden>
    ${CHARTS(0.8, FIGURE("lr", "Learning rate"))}
    ${REWIND}
    <details>
      <summary>Table</summary>
      <div class="wb-tables" tabindex="0" role="group" aria-label="Figures by epoch"></div>
    </details>
  </div>
  <div class="wb-hidden" data-live="progress" aria-live="polite"></div>
  <div class="wb-hidden" data-live="values" aria-live="polite"></div>`;

// ---- What the kernel tells ----------------------------------------------------------------------

/** Keep what the kernel tells of its trainings, and call the views when there is news. */
function openStore(model) {
  let expected = null; // the next message's number; null while everything has been asked for
  const chosen = { who: 0, step: null, rates: {} }; // to go back to; without a step the last one
  const store = { trainings: [], silent: false, busy: "", views: new Set(), chosen };
  const tell = (news) => {
    Object.assign(store, news);
    store.views.forEach((update) => update());
  };
  const asks = asker((what) => model.send(what), () => store.answered, (busy) => tell({ busy }));
  store.ask = (name, training, what = {}) => asks.ask(name, { training, ...what }, training);
  let patience;
  const askForAll = () => {
    expected = null;
    try {
      model.send({ ask: "all" });
    } catch {
      // the kernel was restarted, and knows nothing of this view
    }
    patience = setTimeout(() => {
      tell({ silent: true });
      askForAll(); // a page that is just being loaded may lose what it sends
    }, 3000);
  };
  const hear = (news, buffers) => {
    if (news.type !== "update") return;
    if (news.seq !== 0 && news.seq !== expected) {
      if (expected !== null) askForAll();
      return;
    }
    clearTimeout(patience);
    expected = news.seq + 1;
    const known = news.seq === 0 ? [] : store.trainings;
    const trainings = news.trainings.map((training, i) => merged(known[i], training, buffers));
    tell({ trainings, answered: news.answered, silent: false });
    asks.settle();
  };
  store.close = () => {
    clearTimeout(patience);
    asks.close();
    model.off("msg:custom", hear);
  };
  model.on("msg:custom", hear);
  askForAll();
  return store;
}

/** A training as it is known now: new buckets and rows in the place of the old ones. */
function merged(old, news, buffers) {
  const curves = { ...old?.curves };
  for (const { name, bucket, from, buffer } of news.curves) {
    const kept = from ? curves[name].values.subarray(0, 3 * from) : [];
    curves[name] = { bucket, values: Float32Array.of(...kept, ...floats(buffers[buffer])) };
  }
  const [before, { from, rows: after }] = [old?.rows ?? [], news.rows];
  const same = !after.length && from >= before.length;
  const rewind = { found: old?.rewind.found ?? {}, ...news.rewind };
  return { ...news, curves, rewind, rows: same ? before : [...before.slice(0, from), ...after] };
}

/** The numbers of a buffer; copied, for it may start anywhere in a larger one. */
function floats(buffer) {
  const { buffer: bytes = buffer, byteOffset: start = 0, byteLength } = buffer;
  return new Float32Array(bytes.slice(start, start + byteLength));
}

// ---- What stands around it ----------------------------------------------------------------------

/** Draw the store's trainings into an element, now and whenever there is news. */
function openView(store, el) {
  const root = h("section", { class: "wb-face wb-training" });
  root.innerHTML = VIEW;
  el.replaceChildren(root);
  const find = (selector) => root.querySelector(selector);
  const details = find("details");
  const announce = announcer((text) => write(find("[data-live=progress]"), text));
  const say = (text) => write(find("[data-live=values]"), text);
  let [rows, shown] = [[], []];

  const panel = openCharts(find(".wb-panel"), say, ([, , rate]) => {
    const { trainings } = store;
    const end = panel.draw(trainings);
    const rates = curvesOf(trainings, "lr", (t) => byStep(t, "lr"), { kind: "" });
    rate.draw({ title: "Learning rate", curves: rates, end, zero: true });
    panel.charts.forEach((chart) => rewind.mark(chart));
  });
  const rewind = openRewind(store, find(".wb-rewind"));
  rewind.listen(panel.charts[0]);

  const fillTables = () => {
    const wanted = details.open ? store.trainings : [];
    if (wanted.length === shown.length && wanted.every(({ rows }, i) => rows === shown[i])) return;
    shown = wanted.map((training) => training.rows);
    find(".wb-tables").replaceChildren(...wanted.map(tableOf));
  };

  const update = () => {
    const { trainings, silent, busy } = store;
    const started = trainings.some(({ curves }) => curves.loss?.values.length);
    const going = trainings.every(({ state }) => GOING.includes(state));
    root.setAttribute("aria-label", `Training ${trainings.map((t) => t.name).join(", ")}`.trim());
    if (rows.length !== trainings.length) {
      rows = trainings.map((_, i) => openRow(i, store.ask));
      find(".wb-rows").replaceChildren(...rows.map((row) => row.element));
    }
    rows.forEach((row, i) => row.update(trainings[i]));
    write(find(".wb-message"), busy || (started || !going ? "" : silent ? SILENT : WAITING));
    find(".wb-panel").hidden = !started;
    panel.offer(trainings);
    fillTables();
    rewind.update();
    announce(trainings);
    panel.redraw();
  };

  details.addEventListener("toggle", fillTables);
  keepKeys(root);
  const forgetTheme = followTheme(root, panel.redraw);
  store.views.add(update);
  update();
  return () => {
    store.views.delete(update);
    forgetTheme();
    panel.close();
  };
}

/** The row of a training: what it is, how far it is, and what can be asked of it. */
function openRow(position, ask) {
  const element = h("div", { class: "wb-row", role: "group" });
  element.innerHTML = ROW;
  const find = (selector) => element.querySelector(selector);
  const buttons = element.querySelectorAll("button");
  const [epochs, bar] = [find("input"), find("progress")];
  let pressed = null;

  element.addEventListener("click", ({ target }) => {
    if (!target.matches("button")) return;
    pressed = target;
    pressed.disabled = true; // until the next update, so that one sees it took
    const verb = pressed.dataset.ask;
    ask(verb, position, verb === "extend" ? { epochs: epochs.value } : {});
  });

  const update = (training) => {
    const { name, model, data, state, note, step, steps, can } = training;
    const verb = can.includes("unpause") ? "unpause" : "pause";
    buttons[0].dataset.ask = verb;
    write(buttons[0], verb === "pause" ? "Pause" : "Unpause");
    buttons.forEach((button) => (button.disabled = !can.includes(button.dataset.ask)));
    epochs.disabled = !can.includes("extend");
    if (pressed && document.activeElement === document.body) pressed.focus(); // it had it before
    pressed = null;
    element.setAttribute("aria-label", name);
    bar.setAttribute("aria-label", `Progress of ${name}`);
    Object.assign(bar, { max: steps || 1, value: Math.min(step, steps || 1) });
    find(".wb-state").dataset.state = state;
    const texts = { name, what: `${model} on ${data}`, state, line: progressOf(training), note };
    Object.entries(texts).forEach(([part, text]) => write(find(`.wb-${part}`), text));
  };
  return { element, update };
}

/** Say a new state at once, and the loss of an epoch at most every ten seconds. */
function announcer(say) {
  let [known, spoken] = [[], 0];
  const newsOf = ({ state, step, rows }, before) => {
    if (!before) return "";
    if (state !== before.state) return `${state} at step ${count(step)}`;
    if (rows.length <= before.rows.length || Date.now() - spoken < 10_000) return "";
    const name = "validation_loss" in rows.at(-1) ? "validation_loss" : "loss";
    return `epoch ${short(rows.at(-1).epoch)}: ${words(name)} ${short(rows.at(-1)[name])}`;
  };
  return (trainings) => {
    const news = trainings.map((training, i) => [training.name, newsOf(training, known[i])]);
    const told = news.filter(([, text]) => text);
    known = trainings;
    if (!told.length) return;
    spoken = Date.now();
    say(told.map(([name, text]) => (news.length > 1 ? `${name} ${text}` : text)).join("; "));
  };
}

/** The figures of each epoch, as a table. */
function tableOf({ name, rows }) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const head = columns.map((column) => h("th", { scope: "col" }, words(column)));
  const cell = (text, i) => (i ? h("td", {}, text) : h("th", { scope: "row" }, text));
  const body = rows.map((row) => columns.map((column) => short(row[column], 4)).map(cell));
  const lines = [head, ...body].map((cells) => h("tr", {}, ...cells));
  const parts = [h("thead", {}, lines[0]), h("tbody", {}, ...lines.slice(1))];
  return h("table", {}, h("caption", {}, `${name}, by epoch`), ...parts);
}

/** How far a training is, in a line. */
function progressOf({ state, step, steps, epoch, epochs, seconds, left, rate, best }) {
  const going = GOING.includes(state);
  const of = (total) => (total ? ` of ${short(total)}` : "");
  const parts = [
    `epoch ${short(Math.round(10 * epoch) / 10)}${of(epochs)}`,
    `step ${count(step)}${of(steps)}`,
    going && rate && `${count(rate)} rows/s`,
    going ? `${duration(seconds)} so far` : `took ${duration(seconds)}`,
    best && `best ${best.name} ${short(best.value)} at step ${count(best.step)}`,
  ];
  if (left !== null) parts[3] += `, about ${duration(left)} left`;
  return parts.filter(Boolean).join(" · ");
}
