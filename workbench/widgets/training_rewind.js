/**
 * Going back in a training: a step is chosen, and its weights, its batch or a branch asked for.
 *
 * Joined with the file that uses it, since a widget is one module and has no build step.
 */

const REWIND = `
  <div class="wb-rewind wb-part" role="group" aria-label="Rewind">
    <div class="wb-line-up">
      <b>Rewind</b>
      <label data-part="who"><select aria-label="Training to go back in"></select></label>
      <input type="range" min="0" step="1" aria-label="Step to go back to">
      <datalist></datalist>
      <label>to step <input type="number" min="0" step="1"></label>
      <span class="wb-muted" data-part="here"></span>
    </div>
    <div class="wb-line-up">
      <button type="button" data-ask="weights">Weights here</button>
      <button type="button" data-ask="blame">Blame this step</button>
      <button type="button" data-ask="branch">Branch from here</button>
      <label>with learning rate <input type="number" min="0" step="any" data-part="lr"></label>
      <button type="button" data-ask="cancel" hidden>Cancel</button>
    </div>
    <p class="wb-muted" data-part="why"></p>
    <p class="wb-muted" data-part="doing" role="status"></p>
    <progress aria-label="Progress of going back" hidden></progress>
    <p class="wb-problem" role="alert"></p>
    <div data-part="found"></div>
  </div>`;

const HINT = "the last one; a click in the loss chart chooses another";
const DOING = {
  weights: "Evaluating the weights",
  blame: "Looking at the batch",
  branch: "Branching",
};

/** The controls of going back; `mark` shows the step in a chart, `listen` takes it from a click. */
function openRewind(store, element) {
  const find = (selector) => element.querySelector(selector);
  const part = (name) => find(`[data-part=${name}]`);
  const [slider, number, marks] = [find("[type=range]"), find("[type=number]"), find("datalist")];
  const [choice, rate, bar] = [find("select"), part("lr"), find("progress")];
  const { chosen } = store;
  let [drawn, pressed] = [null, null]; // what was found, and which button had the keyboard
  marks.id = `wb-kept-${Math.random().toString(36).slice(2)}`;
  slider.setAttribute("list", marks.id);

  const training = () => store.trainings[chosen.who];
  const step = () => within(chosen.step ?? Infinity, training());
  const choose = (value) => {
    if (Number.isFinite(value)) chosen.step = within(value, training());
    store.views.forEach((update) => update());
  };

  slider.addEventListener("input", () => choose(slider.valueAsNumber));
  number.addEventListener("change", () => choose(number.valueAsNumber));
  rate.addEventListener("input", () => (chosen.rates[training().name] = rate.value));
  choice.addEventListener("change", () => {
    chosen.who = choice.selectedIndex;
    choose(step());
  });
  element.addEventListener("click", ({ target }) => {
    const ask = target.dataset?.ask;
    if (!ask) return;
    const lr = ask === "branch" && rate.value ? { lr: rate.valueAsNumber } : {};
    store.ask(ask, chosen.who, { step: step(), ...lr });
    pressed = target;
    target.disabled = true; // until the next update, so that one sees it took
  });

  const update = () => {
    if (!training()) return;
    const { name, rewind } = training();
    const { first, kept, lr, can, doing, done, of, problem, called, found } = rewind;
    offerWho(part("who"), choice, store.trainings, chosen.who);
    Object.assign(slider, { min: first, max: training().step, value: step() });
    slider.setAttribute("aria-valuetext", `step ${count(step())}`);
    Object.assign(number, { min: first, max: training().step });
    if (document.activeElement !== number) number.value = step();
    if (marks.children.length !== kept.length || marks.dataset.of !== kept.join())
      marks.replaceChildren(...kept.map((at) => h("option", { value: at })));
    marks.dataset.of = kept.join();
    if (document.activeElement !== rate) rate.value = chosen.rates[name] ?? lr;
    write(part("here"), chosen.step === null ? HINT : here(training(), step()));
    write(part("why"), can ? "" : without(called));
    for (const control of element.querySelectorAll("[data-ask], [data-part=lr]"))
      control.disabled = !can || (Boolean(doing) && control.dataset.ask !== "cancel");
    find("[data-ask=blame]").disabled ||= step() <= first;
    find("[data-ask=cancel]").hidden = bar.hidden = !doing;
    Object.assign(bar, { max: of || 1, value: done });
    write(part("doing"), doing ? progressBack(doing, done, of) : "");
    write(find(".wb-problem"), problem);
    if (drawn !== found) part("found").replaceChildren(...foundOf(found, name));
    drawn = found;
    if (doing || !pressed) return;
    if (document.activeElement === document.body) pressed.focus(); // it had it before
    pressed = null;
  };

  const mark = (chart) => {
    if (chosen.step === null || !chart.plane || !training()) return;
    const { pen, ink, x, top, bottom } = chart.plane;
    drawLine(pen, ink("accent"), [x(step()), top], [x(step()), bottom], [2, 2]);
  };

  const listen = (chart) => {
    chart.canvas.addEventListener("click", ({ offsetX }) => choose(peakAt(chart, offsetX)));
    chart.canvas.addEventListener("keydown", ({ key }) => {
      if (key === "Enter" && chart.cursor) choose(Math.round(chart.cursor.x));
    });
  };
  return { update, mark, listen };
}

/** A step, or the nearest that there is. */
function within(step, { rewind, step: last }) {
  return Math.round(Math.min(Math.max(step, rewind.first), last));
}

/** The step of the highest loss within a few pixels: whoever clicks at a spike means the spike. */
function peakAt({ plane, curves }, pixel) {
  if (!plane) return NaN;
  const near = curves
    .filter(({ dots }) => !dots)
    .flatMap(({ points }) => points.filter(({ x }) => Math.abs(plane.x(x) - pixel) <= 4));
  const higher = (a, b) => ((b.high ?? b.y) > (a.high ?? a.y) ? b : a);
  return Math.round(near.length ? near.reduce(higher).x : plane.step(pixel));
}

/** Offer the trainings, where there are several. */
function offerWho(label, choice, trainings, who) {
  const names = trainings.map(({ name }) => name);
  if (names.join() !== [...choice.options].map(({ text }) => text).join())
    choice.replaceChildren(...names.map((name) => new Option(name, name)));
  choice.selectedIndex = who;
  label.hidden = names.length < 2;
}

/** What a step was, as far as the page knows. */
function here(training, step) {
  const at = step ? nearest(byStep(training, "loss"), step) : null;
  const perEpoch = training.steps / training.epochs;
  const about = at && at.first !== at.last ? "about " : "";
  const parts = [`epoch ${short(Math.round((10 * step) / perEpoch) / 10)}`];
  if (at) parts.push(`loss ${about}${short(at.y)}`);
  if (training.rewind.kept.includes(step)) parts.push("a checkpoint");
  return parts.join(", ");
}

/** Why nothing can be asked for, and what to write instead. */
function without(called) {
  const line = `${called}.at(step, model=..., data=...)`;
  return `This kernel has its model no more; give it back by ${line}`;
}

/** What is being done, and how far it is. */
function progressBack(doing, done, of) {
  return `${DOING[doing]}: ${of ? `step ${count(done)} of ${count(of)} to take again` : "…"}`;
}

/** What was found, as elements. */
function foundOf(found, name) {
  if (!found.kind) return [];
  const say = { weights: weightsText, blame: blameText, branch: branchText }[found.kind];
  const rows = found.kind === "blame" ? [blamedRows(found)] : [];
  return [h("p", { role: "status" }, say(found, name)), ...rows, codeOf(found.code)];
}

function weightsText({ step, figures }, name) {
  const told = Object.entries(figures).map(([figure, value]) => `${words(figure)} ${short(value)}`);
  const said = told.join(", ") || "there is no validation split to score";
  return `${name} after step ${count(step)}: ${said}.`;
}

function blameText({ step, epoch, size, loss, norm, usual, rows }) {
  const around = usual === null ? "" : `, beside ${short(usual)} around it`;
  const which = rows.length < size ? `the ${rows.length} hardest rows of` : "all rows of";
  const what = `Step ${count(step)}, epoch ${epoch}: loss ${short(loss)}`;
  const seen = `${which} its ${count(size)}, as the step saw them:`;
  return `${what}, gradient's norm ${short(norm)}${around}; ${seen}`;
}

function branchText({ step, name }) {
  return `${name} goes on from step ${count(step)}, in the same charts.`;
}

/** The rows of a batch: as small pictures, or in a table where they are none. */
function blamedRows({ rows }) {
  const sure = (row) => (row.sure === null ? "" : ` ${Math.round(100 * row.sure)}\u00a0%`);
  if (rows[0]?.image) {
    const card = (row) => h("li", { "data-right": String(row.true === row.said) },
      h("img", { src: row.image, alt: `Row ${row.row}, ${row.true}`, class: "wb-pixels" }),
      h("b", {}, row.true),
      h("span", {}, row.true === row.said ? `right${sure(row)}` : `said ${row.said}${sure(row)}`),
      h("span", { class: "wb-muted" }, `loss ${short(row.loss, 3)}`),
      h("span", { class: "wb-muted" }, `row ${row.row}`));
    return h("ul", { class: "wb-cards" }, ...rows.map(card));
  }
  const head = ["row", "is", "said", "loss"].map((text) => h("th", { scope: "col" }, text));
  const line = (row) => h("tr", {}, h("th", { scope: "row" }, row.row),
    ...[row.true, row.said + sure(row), short(row.loss, 3)].map((text) => h("td", {}, text)));
  const body = [h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows.map(line))];
  const part = { class: "wb-tables", tabindex: "0", role: "group" };
  return h("div", { ...part, "aria-label": "The hardest rows" }, h("table", {}, ...body));
}

/** A line of code, to be copied into a cell. */
function codeOf(code) {
  const text = h("code", {}, code);
  return h("p", { class: "wb-code" }, text, copier(code, `Copy ${code}`, text));
}
