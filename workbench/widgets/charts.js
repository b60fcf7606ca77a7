/**
 * Curves by step on a canvas, and a cursor that reads their values.
 *
 * Joined with the file that uses it, since a widget is one module and has no build step.
 */

const COLOURS = 6; // --wb-c0 to --wb-c5 in the style sheet

// ---- What there is to draw ----------------------------------------------------------------------

/** The points of a curve, one for a bucket of steps: its mean (y), its lowest and highest value. */
function byStep({ curves, step }, name) {
  const { bucket, values } = curves[name] ?? { bucket: 1, values: [] };
  return Array.from({ length: values.length / 3 }, (_, i) => {
    const [low, y, high] = values.subarray(3 * i, 3 * i + 3);
    const first = i * bucket + 1;
    const last = Math.max(first, Math.min(first + bucket - 1, step));
    return { first, last, x: (first + last) / 2, low, y, high };
  });
}

/** The points of a figure, one for an epoch; NaN where it was not a number. */
function byEpoch({ rows }, name) {
  const held = rows.filter((row) => name in row);
  return held.map(({ step, [name]: y }) => ({ first: step, last: step, x: step, y: y ?? NaN }));
}

/** The points of the loss, of each step where there are such, else of each step that has one. */
function lossesOf(training) {
  if (training.curves.loss) return byStep(training, "loss");
  return byEpoch(training, "loss").map((point) => ({ ...point, low: point.y, high: point.y }));
}

/** Exponentially smoothed, and corrected for the start at nothing; a gap stays a gap. */
function smoothed(points, weight) {
  let [mean, mass] = [0, 0];
  return points.map((point) => {
    if (!Number.isFinite(point.y)) return point;
    mean = weight * mean + (1 - weight) * point.y;
    mass = weight * mass + (1 - weight);
    return { ...point, y: mean / mass, exact: point.y };
  });
}

/** The curves of a figure: of each training as it was trained, and as it was validated. */
function curvesOf(trainings, figure, trained, look) {
  const alone = trainings.length === 1; // then each kind has a colour, else each training
  const curve = ({ name, best }, i, key, points, { kind, ...look }) => ({
    label: [alone ? "" : name, kind].filter(Boolean).join(" "),
    colour: alone ? Number(kind === "validation") : i % COLOURS,
    best: best && best.name.replaceAll(" ", "_") === key && { x: best.step, y: best.value },
    points,
    ...look,
  });
  const held = { kind: "validation", dashed: true, dots: true };
  const curves = trainings.flatMap((training, i) => [
    curve(training, i, figure, trained(training), { kind: "training", ...look }),
    curve(training, i, `validation_${figure}`, byEpoch(training, `validation_${figure}`), held),
  ]);
  return curves.filter(({ points }) => points.length);
}

/** The names of the figures that are drawn beside the loss: accuracy first, if there is one. */
function metricNames(trainings) {
  const keys = trainings.flatMap(({ rows }) => rows.flatMap((row) => Object.keys(row)));
  const names = new Set(keys.map((key) => key.replace("validation_", "")));
  ["epoch", "step", "loss"].forEach((name) => names.delete(name));
  return [...names].sort((a, b) => (b === "accuracy") - (a === "accuracy"));
}

/** The step the axis ends on: a round one, so that it seldom moves, but never past the last. */
function axisEnd(trainings) {
  const reached = Math.max(1, ...trainings.map(({ step }) => step));
  const power = 10 ** Math.floor(Math.log10(reached));
  const round = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((factor) => factor * power >= reached) * power;
  return Math.min(round, Math.max(reached, ...trainings.map(({ steps }) => steps ?? 0)));
}

/** From the lowest to the highest value worth seeing, which the outliers of first steps are not. */
function extent({ curves, log, zero }) {
  const known = (y) => Number.isFinite(y) && (y > 0 || !log);
  const ends = curves.flatMap(({ points, band }) => {
    const sorted = (key) => points.map((point) => point[key]).filter(known).sort((a, b) => a - b);
    if (log || !band) return [sorted("y")[0], sorted("y").at(-1)];
    const [lows, values] = [sorted("low"), sorted("y")];
    const few = Math.floor(0.01 * values.length);
    return [lows[few], values.at(-1 - few)];
  });
  const [low, high] = [Math.min(...ends.filter(known)), Math.max(...ends.filter(known))];
  if (low > high) return [0.1, 1]; // as of no values at all
  if (log) return [low / 1.15, high * 1.15];
  const margin = 0.06 * (high - low) || 0.1 * Math.abs(high) || 1;
  return [zero ? 0 : Math.max(low < 0 ? -Infinity : 0, low - margin), high + margin];
}

/** The same on a logarithmic scale: 1, 2 and 5, or only the powers of ten where those are many. */
function logTicks(low, high, count) {
  const powers = Array.from({ length: 80 }, (_, i) => 10 ** (i - 40));
  const within = (values) => values.filter((value) => value >= low && value <= high);
  const all = within(powers.flatMap((power) => [power, 2 * power, 5 * power]));
  const some = all.length > 2 * count ? within(powers) : all;
  return some.length < 2 ? ticks(low, high, count) : some.map((value) => [value, short(value)]);
}

// ---- The panel of charts ------------------------------------------------------------------------

const FIGURE = (kind, title) => `
  <figure>
    <figcaption>${title}</figcaption>
    <canvas data-chart="${kind}" role="img" tabindex="0"></canvas>
    <div class="wb-tip" aria-hidden="true" hidden></div>
  </figure>`;

/** Losses and a metric, what they are drawn by, and more figures below. */
const CHARTS = (weight, more = "") => `
  <div class="wb-bar">
    <ul class="wb-legend"></ul>
    <div class="wb-controls">
      <label>Smoothing <input type="range" min="0" max="0.99" step="0.01" value="${weight}"></label>
      <label><input type="checkbox"> Log scale</label>
    </div>
  </div>
  <div class="wb-charts">
    ${FIGURE("loss", "Loss")}
    ${FIGURE("metric", '<span></span><select aria-label="Metric"></select>')}
    ${more}
  </div>`;

/** Open the charts in an element; `paint` is given them to draw whenever anything has changed. */
function openCharts(root, say, paint) {
  const find = (selector) => root.querySelector(selector);
  const places = [".wb-bar [type=range]", ".wb-bar [type=checkbox]", ".wb-charts select"];
  const [smoothing, log, metric] = places.map(find);
  let frame = 0;
  const redraw = () =>
    (frame ||= requestAnimationFrame(() => {
      frame = 0;
      paint(charts);
    }));
  const figures = [...root.querySelectorAll(".wb-charts figure")];
  const charts = figures.map((part) => new Chart(part, redraw, say));
  const offered = (trainings) => {
    offer(metric, metricNames(trainings));
    charts[1].figure.hidden = !metric.value;
  };
  /** Draw the losses and the metric; returns the step their axes end on. */
  const draw = (trainings) => {
    const [name, end] = [metric.value, axisEnd(trainings)];
    const loss = (training) => smoothed(lossesOf(training), smoothing.valueAsNumber);
    const band = 0.2 / Math.sqrt(trainings.length || 1); // how opaque: the more there are, the less
    const losses = curvesOf(trainings, "loss", loss, { band });
    const found = curvesOf(trainings, name, (t) => byEpoch(t, name), { dots: true });
    charts[0].figure.hidden = !losses.length;
    charts[0].draw({ title: "Loss", curves: losses, end, log: log.checked });
    charts[1].draw({ title: titled(name), curves: found, end });
    find(".wb-legend").replaceChildren(...legend(losses.length ? losses : found));
    return end;
  };
  [smoothing, log, metric].forEach((control) => control.addEventListener("input", redraw));
  const resized = new ResizeObserver(redraw);
  charts.forEach(({ canvas }) => resized.observe(canvas));
  const close = () => {
    resized.disconnect();
    cancelAnimationFrame(frame);
  };
  return { charts, offer: offered, draw, redraw, close };
}

/** Offer the metrics: by a choice if there are several, by its name if there is one. */
function offer(choice, names) {
  const [title, chosen] = [choice.previousElementSibling, choice.value];
  if (names.join() !== [...choice.options].map((option) => option.value).join())
    choice.replaceChildren(...names.map((name) => new Option(titled(name), name)));
  if (names.includes(chosen)) choice.value = chosen;
  choice.hidden = names.length < 2;
  write(title, choice.hidden ? titled(choice.value) : "");
}

/** What the lines and dots of the charts stand for. */
function legend(curves) {
  const entry = (colour, look, label) => h("li", {}, swatch(colour, look), label);
  const best = curves.find((curve) => curve.best);
  const entries = curves.map((c) => entry(c.colour, c.dashed ? "dots" : "line", c.label));
  return best ? [...entries, entry(best.colour, "best", "best")] : entries;
}

// ---- How it is drawn ----------------------------------------------------------------------------

/** Curves by step on the canvas of a figure, and a cursor that reads their values. */
class Chart {
  constructor(figure, redraw, say) {
    const [canvas, tip] = [figure.querySelector("canvas"), figure.querySelector(".wb-tip")];
    Object.assign(this, { figure, canvas, tip, redraw, say, curves: [], cursor: null });
    canvas.addEventListener("pointermove", ({ offsetX }) => this.moveTo(this.plane?.step(offsetX)));
    canvas.addEventListener("pointerleave", () => this.moveTo(NaN));
    canvas.addEventListener("blur", () => this.moveTo(NaN));
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  /** Draw a scene: its curves, the step its axis ends on, and how the upright one is scaled. */
  draw(scene) {
    this.curves = scene.curves;
    this.canvas.setAttribute("aria-label", summary(scene));
    if (!this.canvas.clientWidth) return;
    this.plane = planeOf(this.canvas, scene);
    drawAxes(this.plane);
    this.curves.forEach((curve) => drawCurve(this.plane, curve));
    this.tip.hidden = !this.cursor;
    if (this.cursor) this.drawCursor(this.plane);
  }

  /** The points at which the cursor stops, each step once. */
  stops() {
    const points = this.curves.flatMap((curve) => curve.points);
    return [...new Map(points.map((point) => [point.x, point])).values()].sort((a, b) => a.x - b.x);
  }

  /** Set the cursor on the point nearest to a step; without one take it away. */
  moveTo(step) {
    this.cursor = Number.isFinite(step) ? nearest(this.stops(), step) : null;
    this.redraw();
  }

  /** Move the cursor by the keyboard, and say what it reads. */
  press(event) {
    const stops = this.stops();
    const last = stops.length - 1;
    const here = this.cursor ? stops.indexOf(nearest(stops, this.cursor.x)) : stops.length;
    const jump = Math.ceil(last / 20);
    const moves = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last, Escape: NaN };
    const there = { ...moves, PageUp: here - jump, PageDown: here + jump }[event.key];
    if (there === undefined) return;
    event.preventDefault();
    this.moveTo(stops[Math.min(Math.max(there, 0), last)]?.x);
    const values = this.readings().map((read) => `${read.label} ${read.text}${read.more}`.trim());
    this.say(this.cursor ? `${stepsOf(this.cursor)}: ${values.join(", ")}` : "");
  }

  /** What each curve says at the cursor: its nearest point, and where that is if elsewhere. */
  readings() {
    if (!this.cursor) return [];
    const { x, first, last } = this.cursor;
    return this.curves.map(({ label, colour, points }) => {
      const point = nearest(points, x);
      const { y, exact = y } = point;
      const smooth = Object.is(exact, y) ? "" : ` (smoothed ${short(y)})`;
      const where = point.last < first || point.first > last ? ` at ${stepsOf(point)}` : "";
      return { label, colour, point, text: short(exact, 3), more: smooth + where };
    });
  }

  /** A line at the cursor, a ring on each curve, and a card with the values. */
  drawCursor({ pen, ink, x, y, top, bottom, width }) {
    const middle = x(this.cursor.x);
    drawLine(pen, ink("muted"), [middle, top], [middle, bottom]);
    const lines = this.readings().map(({ label, colour, point, text, more }) => {
      drawDots(pen, x(point.x), y(point.y), [4.5, ink(`c${colour}`)], [3, ink("paper")]);
      return h("div", {}, swatch(colour), `${label} `, h("b", {}, text), h("small", {}, more));
    });
    this.tip.replaceChildren(h("small", {}, stepsOf(this.cursor)), ...lines);
    const space = this.tip.offsetWidth + 12;
    const left = middle + space < width ? middle + 12 : Math.max(0, middle - space);
    this.tip.style.left = `${left}px`;
  }
}

/** A wiped canvas: its pen and inks, its edges, and what turns steps and values into pixels. */
function planeOf(canvas, { curves, end, log, zero }) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  pen.scale(ratio, ratio);
  pen.font = `11px ${style.fontFamily}`;
  const [low, high] = extent({ curves, log, zero });
  const rows = (log ? logTicks : ticks)(low, high, height / 35);
  const left = 10 + Math.max(...rows.map(([, text]) => pen.measureText(text).width));
  const [right, top, bottom] = [width - 8, 8, height - 22];
  const up = (value) => (log ? Math.log10(Math.max(value, 1e-40)) : value);
  return {
    ...{ pen, rows, end, width, left, right, top, bottom },
    ink: (name) => style.getPropertyValue(`--wb-${name}`),
    x: (step) => left + (step / end) * (right - left),
    y: (value) => bottom - ((up(value) - up(low)) / (up(high) - up(low))) * (bottom - top),
    step: (pixel) => ((pixel - left) / (right - left)) * end,
  };
}

/** The grid, and the figures beside it. */
function drawAxes({ pen, ink, x, y, left, right, bottom, end, rows }) {
  Object.assign(pen, { fillStyle: ink("muted"), textBaseline: "middle", textAlign: "right" });
  for (const [value, text] of rows) {
    drawLine(pen, ink("grid"), [left, y(value)], [right, y(value)]);
    pen.fillText(text, left - 6, y(value));
  }
  drawLine(pen, ink("axis"), [left, bottom], [right, bottom]);
  pen.fillText("step", right, bottom + 13);
  const free = right - 2 * pen.measureText("step").width;
  pen.textAlign = "center";
  for (const [step] of ticks(0, end, (right - left) / 80)) {
    if (!Number.isInteger(step)) continue;
    drawLine(pen, ink("axis"), [x(step), bottom], [x(step), bottom + 3]);
    if (x(step) < free) pen.fillText(short(step), x(step), bottom + 13);
  }
}

/** A curve: a band from its lowest to its highest values, a line, dots, and its best point. */
function drawCurve({ pen, ink, x, y, left, right, top, bottom }, curve) {
  const { points, band, dashed, dots, best } = curve;
  const colour = ink(`c${curve.colour}`);
  const place = (key) => (point) => [x(point.x), y(point[key])];
  pen.save();
  pen.beginPath();
  pen.rect(left, top - 1, right - left, bottom - top + 2);
  pen.clip();
  Object.assign(pen, { lineCap: "round", lineJoin: "round" });
  pen.strokeStyle = pen.fillStyle = colour;
  for (const stretch of stretches(points)) {
    if (band) {
      const area = path([...stretch.map(place("high")), ...stretch.map(place("low")).reverse()]);
      Object.assign(pen, { globalAlpha: band, lineWidth: 1 });
      pen.setLineDash([]);
      pen.fill(area);
      pen.stroke(area); // else a flat one would not show
    }
    Object.assign(pen, { globalAlpha: 1, lineWidth: 1.75 });
    pen.setLineDash(dashed ? [1, 4] : []);
    pen.stroke(path(stretch.map(place("y")), "h.1")); // else a lone point would not show
  }
  pen.restore();
  const size = points.length > 60 ? 1.5 : 3;
  if (dots) points.forEach((point) => drawDots(pen, ...place("y")(point), [size, colour]));
  if (!best) return;
  drawLine(pen, ink("axis"), [x(best.x), top], [x(best.x), bottom], [4, 3]);
  drawDots(pen, x(best.x), y(best.y), [6, colour], [4.5, ink("paper")], [2.5, colour]);
}

/** A path through places. */
function path(places, end = "Z") {
  return new Path2D(`M${places.map((place) => place.join(" ")).join("L")}${end}`);
}

/** A thin line through the middle of pixels, so that it is sharp. */
function drawLine(pen, colour, from, to, dash = []) {
  const middle = (pixels) => pixels.map((pixel) => Math.round(pixel) + 0.5);
  Object.assign(pen, { strokeStyle: colour, lineWidth: 1 });
  pen.setLineDash(dash);
  pen.stroke(path([middle(from), middle(to)]));
}

/** Dots on top of each other, each with its radius and colour. */
function drawDots(pen, x, y, ...dots) {
  for (const [radius, colour] of dots) {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
  }
}

/** The stretches of points between the gaps. */
function stretches(points) {
  const found = [[]];
  for (const point of points) Number.isFinite(point.y) ? found.at(-1).push(point) : found.push([]);
  return found.filter((stretch) => stretch.length);
}

/** The point nearest to a step. */
function nearest(points, step) {
  const nearer = (a, b) => (Math.abs(b.x - step) < Math.abs(a.x - step) ? b : a);
  return points.length ? points.reduce(nearer) : null;
}

// ---- What it says ---------------------------------------------------------------------------------

/** The steps of a point. */
function stepsOf({ first, last }) {
  return first === last ? `step ${count(first)}` : `steps ${count(first)}–${count(last)}`;
}

/** What a chart shows, for those who do not see it. */
function summary({ title, curves }) {
  const value = (points) => short(points.findLast(({ y }) => Number.isFinite(y))?.y);
  const parts = curves.flatMap(({ label, points, best }) => [
    `${label} ${value(points)}`.trim(),
    ...(best ? [`best ${short(best.y)} at step ${count(best.x)}`] : []),
  ]);
  return `${title} by step: ${parts.join(", ")}`;
}
