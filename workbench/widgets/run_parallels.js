/**
 * Runs as lines through parallel axes, coloured by one of them; an axis is narrowed by dragging.
 */

const PLANE = { width: 900, height: 300, top: 44, bottom: 16, side: 90 };

/** The picture of parallel axes; `narrow` is told an axis and two places, `open` a run. */
function parallelsOf({ axes, lines, colour }, opened, narrow, open) {
  const { width, height, top, bottom, side } = PLANE;
  const across = (i) => side + (i / (axes.length - 1)) * (width - 2 * side);
  const up = (place) => height - bottom - place * (height - top - bottom);
  const by = axes.findIndex(({ name }) => name === colour);
  const names = axes.map(({ name }) => name).join(", ");
  const picture = s("svg", {
    class: "wb-plot wb-parallels",
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "img",
    "aria-label": `${count(lines.length)} runs as lines through ${names}`,
  });
  const ordered = [...lines].sort((a, b) => (a.run === opened) - (b.run === opened)); // last
  picture.append(...ordered.map((line) => lineOf(line, { across, up, by, opened, open })));
  const room = Math.min(side, across(1) - across(0));
  picture.append(...axes.flatMap((axis, i) => axisOf(axis, across(i), up, i, room)));
  picture.append(...axes.map((axis, i) => brushOf(picture, axis, across(i), up, narrow)));
  return picture;
}

/** A run's line, as far as it has values; wide where it is the one that is opened. */
function lineOf({ run, places }, { across, up, by, opened, open }) {
  const points = places.map((place, i) => (place === null ? null : `${across(i)} ${up(place)}`));
  let path = "";
  points.forEach((point, i) => (path += point ? `${i && points[i - 1] ? "L" : "M"}${point}` : ""));
  const line = s("path", {
    d: path,
    fill: "none",
    stroke: inkOf(places[by]),
    class: run === opened ? "wb-opened" : "",
    ...(places[by] == null && { "stroke-dasharray": "3 4" }),
  });
  line.addEventListener("click", () => open(run));
  return titledMark(line, run);
}

/** The colour of a place, from the lowest to the highest; grey without one. */
function inkOf(place) {
  if (place == null) return "var(--wb-muted)";
  return `color-mix(in oklch, var(--wb-c1) ${Math.round(100 * place)}%, var(--wb-c0))`;
}

/** An axis: its name above, and what stands at some places, as far as there is `room` for it. */
function axisOf({ name, marks }, x, up, i, room) {
  const text = (place, look, whole, letters) =>
    titledMark(s("text", { ...place, class: look }, cutOf(whole, letters)), whole);
  const above = { x, y: i % 2 ? 14 : 28, "text-anchor": "middle" };
  const letters = Math.floor(room / LETTER) - 1;
  return [
    text(above, "wb-axis-name", name, 18),
    s("line", { class: "wb-axis", x1: x, x2: x, y1: up(0), y2: up(1) }),
    ...marks.map(([at, whole]) => text({ x: x + 5, y: up(at) + 4 }, "wb-mark", whole, letters)),
  ];
}

/** A text of so many letters at most. */
function cutOf(text, letters) {
  return text.length > letters ? `${text.slice(0, letters - 1)}…` : text;
}

/** What takes a drag along an axis, and shows how far it went. */
function brushOf(picture, { name }, x, up, narrow) {
  const [top, bottom] = [up(1), up(0)];
  const band = s("rect", { class: "wb-band", x: x - 8, width: 16, y: 0, height: 0 });
  const area = s("rect", {
    class: "wb-brush",
    x: x - 14,
    width: 28,
    y: top - 6,
    height: bottom - top + 12,
  });
  const place = ({ clientY }) => {
    const { top: edge, height } = picture.getBoundingClientRect();
    const y = ((clientY - edge) / height) * PLANE.height;
    return Math.min(1, Math.max(0, (bottom - y) / (bottom - top)));
  };
  let from = null;
  area.addEventListener("pointerdown", (event) => {
    from = place(event);
    area.setPointerCapture(event.pointerId);
  });
  area.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const [low, high] = [from, place(event)].sort((a, b) => a - b);
    band.setAttribute("y", up(high));
    band.setAttribute("height", up(low) - up(high));
  });
  area.addEventListener("pointerup", (event) => {
    const [low, high] = [from, place(event)].sort((a, b) => a - b);
    from = null;
    band.setAttribute("height", 0);
    if (high - low > 0.02) narrow(name, low, high);
  });
  return s("g", {}, band, titledMark(area, `Drag along ${name} to find the runs between`));
}

/** What the colours stand for. */
function coloursOf({ axes, colour }) {
  const { marks } = axes.find(({ name }) => name === colour) ?? {};
  if (!marks) return "";
  return h(
    "span",
    { class: "wb-scale" },
    marks[0][1],
    h("span", { class: "wb-ramp" }),
    marks.at(-1)[1],
  );
}
