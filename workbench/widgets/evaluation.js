/** An evaluation to look into: its figures, its parts, and the rows that each is made of. */
export default face("evaluation", (root, ask) => {
  const keep = keeper();
  let waiting = 0;
  const draw = (shown) => {
    keepFocus(root, () => arrange(root, [
      keep("head", [shown.figures, shown.reasons], () => headOf(shown)),
      ...decisionOf(shown, ask, keep),
      ...partsOf(shown, ask, keep),
      ...PARTS[shown.tab](shown, ask, keep),
      ...rowsOf(shown, ask, keep),
    ]));
    clearTimeout(waiting); // intervals take their time, and come when nothing else is asked
    if (shown.missing) waiting = setTimeout(() => ask("estimate"), QUIET);
  };
  return { draw, close: () => clearTimeout(waiting) };
});

const QUIET = 700; // milliseconds without news, after which intervals are asked for

const PARTS = {
  comparison: comparisonOf, confusion: confusionOf, mistakes: () => [], classes: classesOf,
  calibration: calibrationOf, curves: curvesOf, predictions: predictionsOf,
};

// ---- What stays as long as it says the same -----------------------------------------------------

/** Return what makes an element by its name anew only where it is made of something else. */
function keeper() {
  const made = new Map();
  return (name, data, make) => {
    const told = JSON.stringify(data);
    if (made.get(name)?.told !== told) made.set(name, { told, element: make() });
    return made.get(name).element;
  };
}

/** Let a parent have these children, moving none that is there: it would lose scroll and focus. */
function arrange(parent, children) {
  const gone = [...parent.children].filter((child) => !children.includes(child));
  gone.forEach((child) => child.remove());
  children.forEach((child, i) => {
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] ?? null);
  });
}

/** The parts, where there are several, of which one is open. */
function partsOf({ tabs: names, tab }, ask, keep) {
  const open = (name) => ask("open_tab", { tab: name });
  if (names.length < 2) return [];
  return [keep("tabs", [names, tab], () => tabs(names, tab, open, "Parts"))];
}

/** Why something is not there. */
function noteOf(text) {
  return h("p", { class: "wb-note" }, text);
}

// ---- The figures --------------------------------------------------------------------------------

const DRAWN = "with 95 % intervals of rows drawn anew";
const MEANS = "precision, recall and F1 are means over the classes";
const FIGURES = { r2: "R²", mse: "MSE", mae: "MAE", f1: "F1" };

/** The headline figures of one side, or of two below each other. */
function headOf({ title, figures, reasons }) {
  const sides = figures.length > 1 ? ["1st ", "2nd "] : [""];
  const boxes = figures[0].map(([name], i) =>
    h("div", {}, h("dt", {}, FIGURES[name] ?? titled(name)),
      ...sides.map((side, k) => figureOf(figures[k][i], side))));
  return h("div", {},
    h("div", { class: "wb-line-up" }, h("b", { class: "wb-title" }, title),
      h("span", { class: "wb-muted" }, figures[0].some(([name]) => name === "f1") ? `${DRAWN}; ${MEANS}` : DRAWN)),
    h("dl", { class: "wb-figures" }, ...boxes), ...reasons.map(noteOf));
}

/** A figure with its interval, where that is known. */
function figureOf([, value, low, high], side) {
  const interval = low === null ? "" : ` ${short(low, 3)} to ${short(high, 3)}`;
  const muted = (text) => (text ? [h("span", { class: "wb-muted" }, text)] : []);
  return h("dd", {}, ...muted(side), h("b", {}, short(value ?? NaN, 3)), ...muted(interval));
}

/** What is decided by a threshold that was moved, and the way back. */
function decisionOf({ classes, threshold, moved }, ask, keep) {
  if (!moved) return [];
  const above = `its probability is above ${short(threshold)}`;
  const text = `${classes[1]} is said where ${above}, in all parts. `;
  return [keep("decision", text, () => h("p", { class: "wb-note" }, text,
    button("Decide as before", () => ask("decide", { threshold: null }))))];
}

// ---- Classes, calibration, curves ---------------------------------------------------------------

const COLUMNS = {
  class: "class", precision: "precision", recall: "recall", f1: "F1", support: "rows",
};

/** Precision, recall and F1 of each class, page by page; a column's head sorts by it. */
function classesOf({ table: rows, by, falling, classes, page, pages }, ask, keep) {
  const names = Object.keys(COLUMNS);
  const next = (name) => (name === by ? !falling : name !== "class");
  const order = (name) => (name !== by ? "none" : falling ? "descending" : "ascending");
  const sort = (name) => ask("sort", { by: name, falling: next(name) });
  const head = (name) =>
    button(COLUMNS[name], () => sort(name), { "aria-label": `sort by ${COLUMNS[name]}` });
  return [keep("classes", [rows, by, falling], () => {
    const line = ([name, precision, recall, f1, support]) =>
      [name, barOf(precision), barOf(recall), barOf(f1), count(support)];
    const where = `page ${count(page + 1)} of ${count(pages)} · ${count(classes.length)} classes`;
    const title = "Scores of each class" + (pages > 1 ? ` · ${where}` : "");
    const made = table(title, names.map(head), rows.map(line));
    names.forEach((name, i) => made.tHead.rows[0].cells[i].setAttribute("aria-sort", order(name)));
    return scrolled(made, "Scores of each class");
  }), ...(pages > 1 ? [keep("class pages", [page, pages], () => pagerOf({ page, pages }, ask)[0])] : [])];
}

/** Whether probabilities mean what they say: plots, errors, and bins that open their rows. */
function calibrationOf(shown, ask, keep) {
  const { reason, bins, n_bins: n, error, brier } = shown;
  if (reason) return [keep("calibration", reason, () => noteOf(reason))];
  const sizes = [5, 10, 15, 20].map((k) => [k, k]);
  const choose = () => choice("Bins", sizes, n, (to) => ask("calibrate", { bins: Number(to) }));
  const plots = () => h("div", { class: "wb-plots" },
    captioned(calibrationPlot(shown), `ECE ${short(error, 3)}; as sure as right where dashed`),
    captioned(surenessPlot(shown), `How sure; Brier score ${short(brier, 3)}`));
  return [keep("bins", n, choose), keep("calibration", [bins, error, brier], plots),
    binsOf(shown, ask, keep)];
}

/** The bins of confidence, each with a button that opens its rows. */
function binsOf({ bins, open }, ask, keep) {
  const pressed = open?.kind === "bin" ? open.of[0] : -1;
  const toggle = (i) => (i === pressed ? ask("shut_rows") : ask("open_bin", { place: i }));
  const opener = ([from, to, rows], i) => disabledIf(!rows, button(
    `${short(from)} – ${short(to)}`, () => toggle(i), { "aria-pressed": String(i === pressed) }));
  const line = (bin_, i) => {
    const [, , rows, sure, right] = bin_;
    const gap = rows ? percent(right - sure) : "–";
    return [opener(bin_, i), count(rows), percent(sure), percent(right), gap];
  };
  const heads = ["confidence", "rows", "mean confidence", "right", "right − confidence"];
  const made = () => scrolled(table("Bins", heads, bins.map(line)), "Bins");
  return keep("bin table", [bins, pressed], made);
}

/** ROC and precision by recall: of two classes with a threshold to move, of several by class. */
function curvesOf(shown, ask, keep) {
  const { reason, areas, of, now, roc, precision_recall: precision } = shown;
  if (!areas) return [keep("curves", reason, () => noteOf(reason))];
  const plots = keep("curves", [roc, precision, areas, of, now, reason], () =>
    (roc ? curvePlots(shown) : noteOf(reason)));
  if (!now.confusion) return [...areasOf(shown, ask, keep, plots)];
  const beside = keep("beside", [], () => h("div", { class: "wb-plots" }));
  arrange(beside, [matrixOf({ ...shown, ...now }, ask, keep), plots]);
  return [thresholdOf(shown, ask, keep), beside];
}

/** A choice of class around the plots, and where they are known the areas of all. */
function areasOf({ areas, of, classes }, ask, keep, plots) {
  const choose = (name) => ask("choose_class", { of: name });
  const names = classes.map((name) => [name, name]);
  const opener = (name) =>
    button(name, () => choose(name), { "aria-pressed": String(name === of) });
  const line = ([name, ...found]) => [opener(name), ...found.map((v) => short(v ?? NaN, 3))];
  const heads = ["class, against all others", "ROC area", "average precision"];
  const title = "Areas under the curves";
  const chosen = keep("of", [names, of], () => choice("Class, against all others", names, of, choose));
  if (areas.length < classes.length) return [chosen, plots];
  return [chosen, plots,
    keep("areas", [areas, of], () => scrolled(table(title, heads, areas.map(line)), title))];
}

/** A slider and a field for the threshold, and what it comes to. */
function thresholdOf({ classes, now }, ask, keep) {
  const part = keep("threshold", classes, () => {
    const slide = h("input", { type: "range", min: "0", max: "1", step: "0.005" });
    const field = h("input", { type: "number", min: "0", max: "1", step: "any" });
    const decide = ({ target: { value } }) =>
      value !== "" && ask("decide", { threshold: Number(value) });
    slide.addEventListener("input", decide);
    field.addEventListener("change", decide);
    return h("div", { class: "wb-line-up wb-threshold" },
      h("label", {}, `Say ${classes[1]} where its probability is above`, slide),
      h("label", {}, "exactly", field), h("p", { role: "status" }));
  });
  const [slide, field] = part.querySelectorAll("input");
  const held = part.getRootNode().activeElement;
  if (held !== slide) slide.value = now.threshold;
  if (held !== field) field.value = Number(now.threshold.toPrecision(4));
  const figures = ["precision", "recall", "f1", "false_positive_rate"];
  const told = figures.map((name) => `${FIGURES[name] ?? words(name)} ${short(now[name], 3)}`);
  write(part.querySelector("p"), `${told.join(" · ")} · said of ${rowCount(now.said)}`);
  return part;
}

// ---- Regression and comparison ------------------------------------------------------------------

/** Predicted and true values, what is left over, and the figures of each of several outputs. */
function predictionsOf(shown, ask, keep) {
  const { dots, rows, strange } = shown;
  const alone = shown.alone?.row;
  const open = (row) => ask("open_row", { row });
  const parts = outputChoice(shown, ask, keep);
  if (strange) parts.push(keep("strange", [strange, rows], () => noteOf(
    `${count(strange)} of ${rowCount(rows)} were answered with what is not finite, and are not `
    + "drawn: find out why")));
  if (dots.length) parts.push(keep("predictions", [dots, alone], () =>
    predictionPlots({ dots, alone }, open)));
  if (dots.length + strange < rows) parts.push(keep("few", [dots.length, rows], () =>
    h("p", { class: "wb-muted" }, `${count(dots.length)} of ${rowCount(rows)} are drawn, those `
      + "furthest off among them.")));
  return parts;
}

/** How well each of several outputs is met, of which one is chosen. */
function outputChoice({ outputs, output, by_output: by }, ask, keep) {
  if (outputs < 2) return [];
  const choose = (i) => ask("choose_output", { output: i });
  const opener = (i) =>
    button(`output ${i}`, () => choose(i), { "aria-pressed": String(i === output) });
  const lines = () => by.map((figures, i) => [opener(i), ...figures.map(wordOf)]);
  const few = by.length < outputs ? `The first ${by.length} of ${outputs} outputs` : "Outputs";
  const made = () => table(few, ["output", "MSE", "MAE", "R²"], lines());
  return [keep("outputs", [by, output], () => scrolled(made(), "Outputs"))];
}

/** Two evaluations: the verdict, and how many rows each answered better; these open their rows. */
function comparisonOf(shown, ask, keep) {
  const { sentence, reason, dots, groups, open } = shown;
  const alone = shown.alone?.row;
  const look = (row) => ask("open_row", { row });
  const pressed = open?.kind === "group" ? open.of[0] : "";
  const label = { class: "wb-line-up", role: "group", "aria-label": "Groups of rows" };
  const box = (group) => groupOf(group, shown.rows, pressed, ask);
  const boxes = () => h("div", label, ...groups.map(box));
  const plots = (dots ?? []).length
    ? [keep("errors", [dots, alone], () => errorPlot({ dots, alone }, look))] : [];
  return [
    keep("verdict", [sentence, reason], () =>
      (reason ? noteOf(reason) : h("p", { class: "wb-verdict" }, sentence))),
    keep("groups", [groups, pressed], boxes), ...plots,
  ];
}

/** A group of rows, which opens them. */
function groupOf([name, n], rows, pressed, ask) {
  const toggle = () => (name === pressed ? ask("shut_rows") : ask("open_group", { group: name }));
  const text = `${titled(name)}: ${rowCount(n)} (${percent(n / rows)})`;
  return disabledIf(!n, button(text, toggle, { "aria-pressed": String(name === pressed) }));
}
