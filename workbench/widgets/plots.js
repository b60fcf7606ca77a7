/**
 * Plots that stand still between two answers: lines, dots and bars as SVG, in the page's colours.
 */

const MARGIN = { right: 12, top: 10, bottom: 34 };
const [LABEL, LETTER] = [24, 6.5]; // pixels that the name of the upright axis takes, and a figure

/**
 * Return a plot as an SVG element.
 *
 * `lines`, `dots` and `bars` are lists of `{ points: [[x, y], ...], colour, dashed, label }`; the bars
 * of a list stand on `floor` and are `width` wide. Ranges are found where they are not given.
 */
function plot({ label, x = {}, y = {}, lines = [], dots = [], bars = [], size = [360, 240] }) {
  const points = [...lines, ...dots, ...bars].flatMap((series) => series.points);
  const [xs, ys] = [rangeOf(x, points.map(([value]) => value)), rangeOf(y, points.map(([, value]) => value))];
  const [width, height] = size;
  const rows = y.ticks ?? ticks(ys[0], ys[1], height / 45);
  const left = LABEL + LETTER * Math.max(...rows.map(([, text]) => text.length));
  const across = (value) =>
    left + ((value - xs[0]) / (xs[1] - xs[0])) * (width - left - MARGIN.right);
  const up = (value) =>
    height - MARGIN.bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (height - MARGIN.top - MARGIN.bottom);
  const picture = s("svg", {
    class: "wb-plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label,
  });
  picture.append(...grid({ x, y, xs, rows, across, up, left, width, height }));
  for (const { points: list, colour = 0, width: wide = 1, floor = 0, title } of bars)
    picture.append(...list.map((point, i) => bar(point, { across, up, colour, wide, floor, title: title?.[i] })));
  for (const { points: list, colour = 0, dashed } of lines)
    picture.append(s("path", {
      d: `M${list.map(([a, b]) => `${across(a)} ${up(b)}`).join("L")}`, fill: "none", "stroke-width": 1.75,
      stroke: `var(--wb-c${colour})`, ...(dashed && { "stroke-dasharray": "4 4" }),
    }));
  for (const { points: list, colour = 0, radius = 3, title } of dots)
    picture.append(...list.map(([a, b], i) => titledMark(
      s("circle", { cx: across(a), cy: up(b), r: radius, fill: `var(--wb-c${colour})` }), title?.[i])));
  return picture;
}

/** An element of SVG. */
function s(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  element.append(...children);
  return element;
}

/** From the lowest to the highest value, or what was given of both. */
function rangeOf({ low, high }, values) {
  const finite = values.filter(Number.isFinite);
  const [from, to] = [low ?? Math.min(...finite), high ?? Math.max(...finite)];
  if (!(from <= to)) return [0, 1]; // as of no values at all
  return from === to ? [from - 0.5, to + 0.5] : [from, to];
}

/** The grid, the figures beside it, and what the axes are. */
function grid({ x, y, xs, rows, across, up, left, width, height }) {
  const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
  const text = (words_, attributes) => s("text", attributes, words_);
  const lines = rows.flatMap(([value, words_]) => [
    s("line", { class: "wb-grid", x1: left, x2: right, y1: up(value), y2: up(value) }),
    text(words_, { x: left - 6, y: up(value) + 4, "text-anchor": "end" }),
  ]);
  const columns = (x.ticks ?? ticks(xs[0], xs[1], width / 80)).map(([value, words_]) =>
    text(words_, { x: across(value), y: bottom + 14, "text-anchor": "middle" }));
  const middle = (bottom + MARGIN.top) / 2;
  return [
    ...lines, ...columns,
    s("line", { class: "wb-axis", x1: left, x2: right, y1: bottom, y2: bottom }),
    text(x.label ?? "", { x: (left + right) / 2, y: height - 4, "text-anchor": "middle" }),
    text(y.label ?? "", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }),
  ];
}

/** A bar on its floor, around its place. */
function bar([x, y], { across, up, colour, wide, floor, title }) {
  const [left, right] = [across(x - wide / 2), across(x + wide / 2)];
  const [low, high] = [up(Math.min(y, floor)), up(Math.max(y, floor))];
  const shape = { x: left, y: high, width: Math.max(1, right - left - 1), height: Math.max(0, low - high) };
  return titledMark(s("rect", { ...shape, fill: `var(--wb-c${colour})` }), title);
}

/** A mark that says what it is where the mouse rests on it. */
function titledMark(mark, title) {
  if (title) mark.append(s("title", {}, title));
  return mark;
}
