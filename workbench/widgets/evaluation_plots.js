/** Plots of an evaluation: calibration, ROC, precision by recall, and dots that open a row. */

const SQUARE = [320, 300];
const SMALL = [272, 252]; // two of them beside the confusion matrix of two classes
const REACH = 14; // pixels of the plot from a dot, in which a click means it

/** How often right by how sure: bars of what was found, and a line where both are the same. */
function calibrationPlot({ bins, error }) {
  const filled = bins.filter(([, , rows]) => rows);
  const middle = ([from, to]) => (from + to) / 2;
  const title = filled.map(([from, to, rows, sure, right]) =>
    `${from}–${to}: ${rowCount(rows)}, ${percent(sure)} sure, ${percent(right)} right`);
  const points = filled.map((bin_) => [middle(bin_), bin_[4]]);
  const bars = [{ points, width: bins[0][1] - bins[0][0], colour: 5, title }];
  const found = filled.map(([, , , sure, right]) => [sure, right]);
  const dots = [{ points: found, colour: 1, radius: 4, title }];
  return plot({
    label: `Share that is right by confidence; expected calibration error ${short(error, 3)}`,
    x: { ...UNIT, label: "confidence" }, y: { ...UNIT, label: "share that is right" },
    bars, dots, lines: [{ points: [[0, 0], [1, 1]], colour: 4, dashed: true }], size: SQUARE,
  });
}

const UNIT = { low: 0, high: 1 };

/** How many rows were said how surely. */
function surenessPlot({ bins }) {
  const points = bins.map(([from, to, rows]) => [(from + to) / 2, rows]);
  const title = bins.map(([from, to, rows]) => `${from}–${to}: ${rowCount(rows)}`);
  return plot({
    label: "Rows by confidence", x: { ...UNIT, label: "confidence" }, y: { low: 0, label: "rows" },
    bars: [{ points, width: bins[0][1] - bins[0][0], colour: 5, title }], size: SQUARE,
  });
}

/** Both curves of a class; where a threshold decides, a dot each at what it comes to. */
function curvePlots({ of, roc, precision_recall: precision, share, areas, now }) {
  const [, auc, average] = areas.find(([name]) => name === of);
  const mark = (x, y) => ({ points: [[x, y]], colour: 1, radius: 6, title: ["at the threshold"] });
  const at = (x, y) => (now.said ? [mark(x, y)] : []);
  const first = plot({
    label: `ROC curve of ${of}: area ${short(auc, 3)}`, size: SMALL,
    x: { ...UNIT, label: "false positive rate" }, y: { ...UNIT, label: "true positive rate" },
    lines: [{ points: [[0, 0], [1, 1]], colour: 4, dashed: true }, { points: roc }],
    dots: at(now.false_positive_rate, now.recall),
  });
  const second = plot({
    label: `Precision by recall of ${of}: average precision ${short(average, 3)}`, size: SMALL,
    x: { ...UNIT, label: "recall" }, y: { ...UNIT, label: "precision" },
    lines: [
      { points: [[0, share], [1, share]], colour: 4, dashed: true },
      { points: stepped(precision) },
    ],
    dots: at(now.recall, now.precision),
  });
  return h("div", { class: "wb-plots" },
    captioned(first, `ROC: area ${short(auc, 3)}, chance 0.5`),
    captioned(second, `Average precision ${short(average, 3)}, chance ${short(share, 3)}`));
}

/** The corners of a curve that goes up or down first, and then to the right, as it is averaged. */
function stepped(points) {
  return points.flatMap(([x, y], i) => (i ? [[points[i - 1][0], y], [x, y]] : [[x, y]]));
}

/** Predicted by true values, and what is left over by predicted ones. */
function predictionPlots({ dots, alone }, open) {
  const values = dots.flatMap(([, true_, said]) => [true_, said]);
  const [low, high] = rangeOf({}, values);
  const lefts = dots.map(([row, true_, said]) => [row, said, true_ - said]);
  const first = dotPlot(dots, alone, open, {
    label: "Predicted by true values",
    x: { label: "true", low, high }, y: { label: "predicted", low, high },
    lines: [{ points: [[low, low], [high, high]], colour: 4, dashed: true }],
  });
  const second = dotPlot(lefts, alone, open, {
    label: "Residuals by predicted values",
    x: { label: "predicted" }, y: { label: "residual: true − predicted" },
    lines: [{ points: ends(lefts).map((x) => [x, 0]), colour: 4, dashed: true }],
  });
  return h("div", { class: "wb-plots" },
    captioned(first, "Predicted by true values; equal where dashed. A click opens the row."),
    captioned(second, "What is left over: true − predicted."));
}

/** The error of the second by that of the first. */
function errorPlot({ dots, alone }, open) {
  const high = Math.max(...dots.flatMap(([, first, second]) => [first, second]), 0) || 1;
  const picture = dotPlot(dots, alone, open, {
    label: "Error of the second by that of the first",
    x: { label: "error of the first", low: 0, high },
    y: { label: "error of the second", low: 0, high },
    lines: [{ points: [[0, 0], [high, high]], colour: 4, dashed: true }],
  });
  return h("div", { class: "wb-plots" },
    captioned(picture, "Errors of both; equal where dashed. A click opens the row."));
}

/** The lowest and the highest x of dots. */
function ends(dots) {
  return rangeOf({}, dots.map(([, x]) => x));
}

/** Dots of rows, of which the nearest to a click is opened; the row that is open is marked. */
function dotPlot(dots, alone, open, more) {
  const title = dots.map(([row, x, y]) => `row ${row}: ${short(x, 4)}, ${short(y, 4)}`);
  const marked = dots.filter(([row]) => row === alone).map(([, x, y]) => [x, y]);
  const picture = plot({
    size: SQUARE, ...more,
    dots: [
      { points: dots.map(([, x, y]) => [x, y]), title },
      { points: marked, colour: 1, radius: 7, title: [`row ${alone} is open`] },
    ],
  });
  const circles = [...picture.querySelectorAll("circle")].slice(0, dots.length);
  picture.classList.add("wb-opens");
  picture.addEventListener("click", ({ clientX, clientY }) => {
    const at = new DOMPoint(clientX, clientY).matrixTransform(picture.getScreenCTM().inverse());
    const away = (dot, axis) => dot.getAttribute(`c${axis}`) - at[axis];
    const far = circles.map((dot) => Math.hypot(away(dot, "x"), away(dot, "y")));
    const nearest = far.indexOf(Math.min(...far));
    if (far[nearest] <= REACH) open(dots[nearest][0]);
  });
  return picture;
}

/** A plot, or a table, with a line of words above it. */
function captioned(picture, text) {
  return h("figure", {}, h("figcaption", { class: "wb-muted" }, text), picture);
}

/** A share as people say it: "97.2 %", "0.04 %". */
function percent(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(100 * value);
  if (size > 0 && size < 0.01) return "< 0.01 %";
  return `${Number((100 * value).toFixed(size < 0.1 ? 2 : 1))} %`;
}

/** So many rows. */
function rowCount(n) {
  return `${count(n)} ${n === 1 ? "row" : "rows"}`;
}
