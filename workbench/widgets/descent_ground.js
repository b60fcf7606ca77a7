/** How a loss surface looks, and what goes down on it: on canvases, each frame anew. */

const RINGS = 16; // of equal loss, denser around the minima
const SPACE = { left: 38, right: 8, top: 8, bottom: 32 };
const MOST_POINTS = 200; // of a curve, as many as its pixels can show

/** Draw all that moves; texts a few times a second. */
function drawAll(parts, surface, settings, paths, most) {
  if (isStale(parts, surface)) paintGround(parts, surface);
  const { view, plane, ground } = parts;
  const pen = sized(view);
  pen.drawImage(ground, 0, 0, view.clientWidth, view.clientHeight);
  const ink = inkOf(view);
  paths.forEach((path, i) => drawPath(pen, plane, path, ink(`c${i}`)));
  paths.forEach(({ places }, i) => {
    const [a, b] = places.at(-1);
    drawHead(pen, i, [plane.x(a), plane.y(b)], ink, plane);
  });
  const [left, top] = [plane.x(settings.start[0]), plane.y(settings.start[1])];
  Object.assign(parts.handle.style, { left: `${left}px`, top: `${top}px` });
  drawLosses(parts.losses, paths, settings.step);
  drawFit(parts.fit, surface, paths);
  tellAll(parts, surface, settings, paths, most);
}

/** The pen of a canvas as large as it is seen, wiped. */
function sized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  pen.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  return pen;
}

/** The colours of the style sheet, by name. */
function inkOf(element) {
  const style = getComputedStyle(element);
  return (name) => style.getPropertyValue(`--wb-${name}`);
}

/** Red, green and blue of a colour, whatever it is written as. */
function mixable(colour) {
  const pen = new OffscreenCanvas(1, 1).getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data;
}

// ---- The surface: painted once ------------------------------------------------------------------

/** Whether the painted ground is of another surface, another size, or of other colours. */
function isStale({ ground, view }, surface) {
  return !ground || ground.of !== surface || ground.width !== view.width || ground.height !== view.height
    || view.width !== Math.round(view.clientWidth * (window.devicePixelRatio || 1));
}

/** Paint the surface with its axes and minima into a canvas of its own. */
function paintGround(parts, surface) {
  const { view } = parts;
  sized(view);
  const ground = Object.assign(new OffscreenCanvas(view.width, view.height), { of: surface });
  const ratio = window.devicePixelRatio || 1;
  const plane = planeOn(surface, view.clientWidth, view.clientHeight);
  const ink = inkOf(view);
  const pen = ground.getContext("2d");
  const inPixels = (side) => Math.round(side * ratio);
  const [left, top] = [plane.left, plane.top].map(inPixels);
  const [width, height] = [plane.right - plane.left, plane.bottom - plane.top].map(inPixels);
  pen.putImageData(relief(levelsOf(surface, width, height), width, height, ink), left, top);
  pen.scale(ratio, ratio);
  pen.font = `11px ${getComputedStyle(view).fontFamily}`;
  drawSides(pen, plane, surface, ink);
  surface.minima.forEach(([a, b]) => drawCross(pen, plane.x(a), plane.y(b), ink("text")));
  Object.assign(parts, { ground, plane });
}

/** What turns weights into pixels, and back. */
function planeOn({ low, high }, wide, tall) {
  const [left, right, top, bottom] = [SPACE.left, wide - SPACE.right, SPACE.top, tall - SPACE.bottom];
  const at = (x, y) => [
    within(low[0] + ((x - left) / (right - left)) * (high[0] - low[0]), low[0], high[0]),
    within(low[1] + ((bottom - y) / (bottom - top)) * (high[1] - low[1]), low[1], high[1]),
  ];
  return {
    left, right, top, bottom, at,
    x: (a) => left + ((a - low[0]) / (high[0] - low[0])) * (right - left),
    y: (b) => bottom - ((b - low[1]) / (high[1] - low[1])) * (bottom - top),
  };
}

/** The height of each pixel, in rings: 0 at the lowest, and slower the higher it is. */
function levelsOf(surface, width, height) {
  const { low, high } = surface;
  const levels = new Float64Array(width * height);
  let [least, top] = [Infinity, 0];
  for (let j = 0, i = 0; j < height; j++) {
    const b = high[1] - ((j + 0.5) / height) * (high[1] - low[1]);
    for (let k = 0; k < width; k++, i++) {
      const value = lossAt(surface, low[0] + ((k + 0.5) / width) * (high[0] - low[0]), b);
      levels[i] = value;
      least = Math.min(least, value);
      top = Math.max(top, value);
    }
  }
  const scale = 1000 / (top - least);
  return levels.map((value) => (RINGS * Math.log1p(scale * (value - least))) / Math.log1p(1000));
}

/** An image of levels: each ring a shade, and a thin line around it. */
function relief(levels, width, height, ink) {
  const [paper, tint, line] = ["paper", "c5", "axis"].map((name) => mixable(ink(name)));
  const image = new ImageData(width, height);
  for (let j = 0, i = 0; j < height; j++)
    for (let k = 0; k < width; k++, i++) {
      const level = levels[i];
      const across = levels[k + 1 < width ? i + 1 : i - 1] - level;
      const down = levels[j + 1 < height ? i + width : i - width] - level;
      const away = Math.abs(level - Math.round(level)) / (Math.hypot(across, down) + 1e-9);
      const [shade, edge] = [(0.4 * Math.floor(level + 0.5)) / RINGS, 0.7 * Math.max(0, 1 - away)];
      for (let c = 0; c < 3; c++) {
        const ground = paper[c] + shade * (tint[c] - paper[c]);
        image.data[4 * i + c] = ground + edge * (line[c] - ground);
      }
      image.data[4 * i + 3] = 255;
    }
  return image;
}

/** The figures at the sides, and what they are of. */
function drawSides(pen, plane, { low, high }, ink) {
  const { left, right, top, bottom, x, y } = plane;
  Object.assign(pen, { fillStyle: ink("muted"), textBaseline: "middle", textAlign: "center" });
  ticks(low[0], high[0], 6).forEach(([value, text]) => {
    drawLine(pen, ink("axis"), [x(value), bottom], [x(value), bottom + 3]);
    if (x(value) < right - 4) pen.fillText(text, x(value), bottom + 11);
  });
  pen.fillText("θ₀", (left + right) / 2, bottom + 25);
  pen.textAlign = "right";
  ticks(low[1], high[1], 6).forEach(([value, text]) => {
    drawLine(pen, ink("axis"), [left - 3, y(value)], [left, y(value)]);
    pen.fillText(text, left - 6, Math.max(top + 6, y(value)));
  });
  pen.textAlign = "left";
  pen.fillText("θ₁", 0, (top + bottom) / 2);
}

/** A cross where the loss is least. */
function drawCross(pen, x, y, colour) {
  Object.assign(pen, { strokeStyle: colour, lineWidth: 2 });
  pen.setLineDash([]);
  pen.stroke(new Path2D(`M${x - 4} ${y - 4}l8 8M${x - 4} ${y + 4}l8 -8`));
}

// ---- What goes down on it -----------------------------------------------------------------------

/** Draw a path, within the surface. */
function drawPath(pen, plane, { places }, colour) {
  pen.save();
  pen.beginPath();
  pen.rect(plane.left, plane.top, plane.right - plane.left, plane.bottom - plane.top);
  pen.clip();
  Object.assign(pen, { strokeStyle: colour, lineWidth: 1.75, lineJoin: "round" });
  pen.setLineDash([]);
  pen.beginPath();
  // a place far outside is drawn where it still has a direction, since pixels have bounds
  const near = (pixel) => Math.min(1e5, Math.max(-1e5, pixel));
  places.forEach(([a, b], i) => pen[i ? "lineTo" : "moveTo"](near(plane.x(a)), near(plane.y(b))));
  pen.stroke();
  pen.restore();
}

/** The head of a path: each method has a shape, as beside its name. */
function drawHead(pen, method, [x, y], ink, inside) {
  if (inside && (x < inside.left || x > inside.right || y < inside.top || y > inside.bottom)) return;
  const shapes = [
    `M${x - 5} ${y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z`,
    `M${x - 4.5} ${y - 4.5}h9v9h-9Z`,
    `M${x} ${y - 6.5}l6 6.5l-6 6.5l-6 -6.5Z`,
    `M${x} ${y - 6}l6 10.5h-12Z`,
  ];
  Object.assign(pen, { fillStyle: ink(`c${method}`), strokeStyle: ink("paper"), lineWidth: 1.5 });
  pen.setLineDash([]);
  pen.fill(new Path2D(shapes[method]));
  pen.stroke(new Path2D(shapes[method]));
}

/** The loss of each method by step, on a logarithmic scale. */
function drawLosses(canvas, paths, step) {
  const [pen, ink] = [sized(canvas), inkOf(canvas)];
  const known = paths.flatMap(({ losses }) => losses).filter((loss) => loss > 0 && loss < Infinity);
  const low = Math.log10(Math.min(...known)) - 0.1;
  const high = Math.max(Math.log10(Math.max(...known)) + 0.1, low + 1);
  const end = Math.max(10, step);
  const [left, right, top, bottom] = [46, canvas.clientWidth - 10, 6, canvas.clientHeight - 20];
  const x = (value) => left + (value / end) * (right - left);
  const y = (power) => bottom - ((power - low) / (high - low)) * (bottom - top);
  const rows = powersOf(low, high).map(([power]) => [power, short(10 ** power)]);
  drawScale(pen, ink, { left, right, bottom, x, y }, ticks(0, end, 5), rows);
  paths.forEach(({ losses }, i) => {
    const apart = Math.ceil(losses.length / MOST_POINTS);
    const last = losses.length - 1;
    const height = (k) => y(Math.log10(Math.max(losses[k], 1e-40)));
    Object.assign(pen, { strokeStyle: ink(`c${i}`), lineWidth: 1.75, lineJoin: "round" });
    pen.beginPath();
    for (let k = 0; k < losses.length; k += apart) pen[k ? "lineTo" : "moveTo"](x(k), height(k));
    pen.lineTo(x(last), height(last));
    pen.stroke();
    drawHead(pen, i, [x(last), height(last)], ink);
  });
}

/** Where figures stand on a logarithmic scale, as powers of ten: seldom, where those are many. */
function powersOf(low, high) {
  if (high - low > 6) return ticks(low, high, 4).filter(([power]) => Number.isInteger(power));
  return logTicks(10 ** low, 10 ** high, 4).map(([value]) => [Math.log10(value)]);
}

/** The points, and what the model predicts with the weights of each method. */
function drawFit(canvas, surface, paths) {
  const [pen, ink] = [sized(canvas), inkOf(canvas)];
  const range = (values, more) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return [low - more * (high - low), high + more * (high - low)];
  };
  const [[fromX, toX], [fromY, toY]] = [range(surface.x, 0.08), range(surface.y, 0.35)];
  const [left, right, top, bottom] = [30, canvas.clientWidth - 8, 6, canvas.clientHeight - 20];
  const x = (value) => left + ((value - fromX) / (toX - fromX)) * (right - left);
  const y = (value) => bottom - ((value - fromY) / (toY - fromY)) * (bottom - top);
  drawScale(pen, ink, { left, right, bottom, x, y }, ticks(fromX, toX, 6), ticks(fromY, toY, 4));
  pen.save();
  pen.beginPath();
  pen.rect(left, top, right - left, bottom - top);
  pen.clip();
  surface.x.forEach((value, i) => drawDots(pen, x(value), y(surface.y[i]), [2.5, ink("muted")]));
  const columns = Array.from({ length: 41 }, (_, i) => fromX + (i / 40) * (toX - fromX));
  paths.forEach(({ places }, i) => {
    const height = (value) => Math.min(1e5, Math.max(-1e5, y(predict(surface, ...places.at(-1), value))));
    Object.assign(pen, { strokeStyle: ink(`c${i}`), lineWidth: 1.75 });
    pen.beginPath();
    columns.forEach((value, k) => pen[k ? "lineTo" : "moveTo"](x(value), height(value)));
    pen.stroke();
    const own = columns[8 + 8 * i]; // its shape, elsewhere than the others'
    drawHead(pen, i, [x(own), height(own)], ink);
  });
  pen.restore();
}

/** A grid with figures for the plot of the points. */
function drawScale(pen, ink, { left, right, bottom, x, y }, columns, rows) {
  Object.assign(pen, { fillStyle: ink("muted"), textBaseline: "middle", textAlign: "right" });
  rows.forEach(([value, text]) => {
    drawLine(pen, ink("grid"), [left, y(value)], [right, y(value)]);
    pen.fillText(text, left - 5, y(value));
  });
  drawLine(pen, ink("axis"), [left, bottom], [right, bottom]);
  pen.textAlign = "center";
  columns.forEach(([value, text]) => pen.fillText(text, x(value), bottom + 11));
}

// ---- What it says -------------------------------------------------------------------------------

/** Write where each method is, five times a second at most, and the last time for certain. */
function tellAll(parts, surface, settings, paths, most) {
  clearTimeout(parts.telling);
  const wait = 200 - (performance.now() - (parts.toldAt ?? 0));
  const tell = () => {
    parts.toldAt = performance.now();
    const step = Math.floor(settings.step);
    const at = settings.start.map((value) => value.toFixed(2));
    write(parts.step, `step ${count(step)} of ${count(most)}`);
    const lines = paths.map((path, i) => lineOf(path, i, settings));
    parts.rows.replaceChildren(...lines);
    const losses = paths.map(({ method, losses: l }) => `${method} ${short(l.at(-1))}`).join(", ");
    parts.view.setAttribute("aria-label", `Loss surface at step ${step}: ${losses}`);
    parts.losses.setAttribute("aria-label", `Loss by step up to step ${step}: ${losses}`);
    parts.fit.setAttribute("aria-label", `${count(surface.x.length)} points and ${surface.formula} of each method`);
    parts.handle.setAttribute("aria-valuetext", `θ₀ = ${at[0]}, θ₁ = ${at[1]}`);
    parts.handle.setAttribute("aria-valuenow", share(settings.start[0], surface.low[0], surface.high[0]));
  };
  if (wait <= 0) tell();
  else parts.telling = setTimeout(tell, wait);
}

/** How far a value is from the low to the high end. */
function share(value, low, high) {
  return String(Number(((value - low) / (high - low)).toFixed(3)));
}

/** A row of the table: what one method has come to. */
function lineOf(path, i, settings) {
  const style = `color: var(--wb-c${i})`;
  const mark = h("span", { class: "wb-descent-mark", style, "aria-hidden": "true" }, LOOKS[i]);
  const place = path.places.at(-1).map((value) => h("td", {}, figure(value)));
  return h("tr", {}, h("th", { scope: "row" }, mark, path.method), ...place,
    h("td", {}, short(path.losses.at(-1))), h("td", { class: "wb-descent-fate" }, fateOf(path, settings)));
}

/** A weight in four decimals, so that the column stands still; a huge one by its power. */
function figure(value) {
  const text = Math.abs(value) < 1e4 ? (Number(value.toFixed(4)) || 0).toFixed(4) : value.toExponential(1);
  return text.replace("-", "−");
}
