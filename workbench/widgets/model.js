/** A model to look into: its layers, what is in one of them, the flow of the gradient. */
export default face("model", (root, ask) => {
  const title = h("b", { class: "wb-title" });
  const totals = h("span", { class: "wb-muted" });
  const seen = h("span", { class: "wb-muted" });
  const stale = h("b", { role: "status" });
  const again = button("Look again", () => ask("look_again"));
  const [parts, left, right, flow] = Array.from({ length: 4 }, () => h("div", {}));
  const both = h("div", { class: "wb-both" }, left, right);
  root.append(h("div", { class: "wb-line-up" }, title, totals),
    h("div", { class: "wb-line-up" }, seen, again, stale), parts, both, flow);
  let listed = "";

  return (shown) => {
    write(title, shown.name);
    write(totals, shown.totals);
    write(seen, shown.seen);
    write(stale, shown.is_stale ? "It has learned on since." : "");
    keepFocus(root, () => {
      const open = (tab) => ask("open_tab", { tab });
      parts.replaceChildren(tabs(shown.tabs, shown.tab, open, "Parts"));
      [both.hidden, flow.hidden] = [shown.tab !== "layers", shown.tab === "layers"];
      if (shown.tab !== "layers") return flow.replaceChildren(...flowOf(shown));
      const now = JSON.stringify([shown.layers, shown.more_layers]);
      if (now !== listed) left.replaceChildren(layersOf(shown, ask)); // else it would scroll back
      listed = now;
      for (const element of left.querySelectorAll("button"))
        element.setAttribute("aria-pressed", String(element.textContent === shown.layer?.name));
      right.replaceChildren(...(shown.layer ? insideOf(shown, ask) : [h("p", {}, NOTHING)]));
    });
  };
});

const NOTHING = "No layer of this model can be seen at work: it is one program, without layers.";

/** A bar of a share from 0 to 1, beside its words. */
function share(size, text, colour = 0) {
  const style = `--share: ${size}; --bar: var(--wb-c${colour})`;
  const bar = h("span", { class: "wb-share", style });
  return h("span", { class: "wb-shared" }, bar, text);
}

// ---- All layers ---------------------------------------------------------------------------------

/** The table of layers; the name of each opens it. */
function layersOf({ layers, more_layers: more }, ask) {
  const costOf = (part) => (part ? share(part, `${short(100 * part, part < 0.1 ? 2 : 3)} %`) : "");
  const lines = layers.map((layer) => [nameOfLayer(layer, ask), layer.output,
    layer.parameters ? count(layer.parameters) : "", costOf(layer.share)]);
  const n = layers.length;
  const caption = more ? `The first ${n} of ${count(n + more)} layers` : "Layers";
  const heads = ["layer", "output", "parameters", "cost"];
  const whole = scrolled(table(caption, heads, lines), "Layers");
  whole.classList.add("wb-layers");
  return whole;
}

/** The name of a layer, which opens it, its kind where the name does not say it, and a warning. */
function nameOfLayer({ name, kind, warning, is_seen: opens }, ask) {
  const open = () => ask("open_layer", { layer: name });
  const shown = opens ? button(name, open, { class: "wb-layer" }) : name;
  const said = name.startsWith(kind) ? [] : [" ", h("small", { class: "wb-muted" }, kind)];
  return h("span", {}, shown, ...said, ...(warning ? [h("div", {}, warned(warning))] : []));
}

/** A warning, marked by more than its words. */
function warned(text) {
  return h("span", { class: "wb-warned" }, text);
}

// ---- One layer ----------------------------------------------------------------------------------

/** What is in the open layer: the chosen row, outputs, weights, how the outputs spread, words. */
function insideOf(shown, ask) {
  const { layer } = shown;
  const about = [layer.kind, layer.output && `output ${layer.output}`,
    layer.parameters && `${count(layer.parameters)} parameters`].filter(Boolean);
  return [
    h("h3", {}, layer.name, " ", h("small", { class: "wb-muted" }, about.join(" · "))),
    ...(layer.warning ? [h("p", {}, warned(layer.warning))] : []),
    rowOf(shown, ask),
    figure("Outputs for this row", shown.maps_say, outputsOf(shown)),
    figure("Weights", shown.filters_say, tiles(shown.filters, [])),
    pagerOf(shown, ask),
    figure("Outputs for all rows", "", spreadOf(layer)),
    h("ul", { class: "wb-words" }, ...layer.words.map((text) => h("li", {}, text))),
  ];
}

/** A titled part, and what it shows in words. */
function figure(title, words_, ...parts) {
  return h("figure", { class: "wb-inside" }, h("h4", {}, title),
    ...(words_ ? [h("figcaption", { class: "wb-muted" }, words_)] : []), ...parts);
}

/** The row that the model is seen at, and how to choose another. */
function rowOf({ row, rows, label, of, classes, input }, ask) {
  const turn = (to) => ask("turn", { row: to });
  const step = (text, to) => disabledIf(to < 0 || to >= rows, button(text, () => turn(to)));
  const all = [["", "all"], ...classes.map((name) => [name, name])];
  const choose = (to) => ask("choose", { of: to });
  const chosen = classes.length ? [choice("Class", all, of, choose)] : [];
  const said = classes.length ? `class ${label}` : `target ${label}`;
  const controls = h("div", { class: "wb-line-up" },
    step("Previous row", row - 1), step("Next row", row + 1), ...chosen,
    h("span", { role: "status" }, `row ${count(row + 1)} of ${count(rows)} · ${said}`));
  const shown = inputOf(input, said);
  return h("div", { class: "wb-row" }, ...(input.src ? [shown, controls] : [controls, shown]));
}

/** The raw row: an image, or its values. */
function inputOf({ src, values }, said) {
  if (src) return h("img", { src, alt: `the row: ${said}`, class: "wb-pixels wb-input" });
  const bold = (value) => h("b", {}, short(value, 4));
  const pairs = values.map(([name, value]) => h("span", {}, `${name} `, bold(value)));
  const named = { role: "group", "aria-label": "The row's values" };
  return h("div", { class: "wb-values", tabindex: "0", ...named }, ...pairs);
}

/** The outputs for the row: maps, or a bar for each unit. */
function outputsOf({ maps, bars, layer, units }) {
  if (!bars.length) return tiles(maps, layer.dead);
  const points = bars.map((value, unit) => [unit, value]).filter(([, value]) => value !== null);
  const known = points.map(([, value]) => value);
  const [unit, most] = points.reduce((a, b) => (b[1] > a[1] ? b : a), [0, known[0]]);
  const title = points.map(([of, value]) => `unit ${of}: ${short(value)}`);
  return plot({
    label: `Outputs of ${count(units)} units: largest at unit ${unit}, ${short(most)}`,
    x: { label: "unit", low: -0.5, high: bars.length - 0.5 },
    y: { label: "output", low: Math.min(0, ...known), high: Math.max(0, ...known) },
    bars: [{ points, title }], size: [400, 150],
  });
}

/** Small pictures with their numbers, and which is dead; or heat maps, as large as they need. */
function tiles(list, dead) {
  const numbered = list.every(({ name }) => /\d$/.test(name) && !name.includes("_"));
  if (!numbered) return h("ul", { class: "wb-tiles wb-alone" }, ...list.map(heatMap));
  const one = ({ name, src, width, height }) => {
    const number = name.split(" ").at(-1);
    const said = dead.includes(Number(number)) ? " dead" : "";
    const cell = 52 / Math.max(width, height);
    return h("li", {}, pixels(src, `${name}${said}`, width * cell, height * cell),
      h("small", {}, `${number}${said}`));
  };
  return h("ul", { class: "wb-tiles" }, ...list.map(one));
}

/** A heat map of a matrix, or of one row. */
function heatMap({ name, src, width, height }, _, all) {
  const cell = Math.min(12, Math.max(1, 380 / width));
  const title = all.length > 1 ? [h("small", {}, name)] : [];
  const high = Math.max(10, height * cell);
  return h("li", {}, pixels(src, `heat map of ${name}`, width * cell, high), ...title);
}

/** An image whose pixels are seen. */
function pixels(src, alt, width, height) {
  const style = `width: ${Math.round(width)}px; height: ${Math.round(height)}px`;
  return h("img", { src, alt, title: alt, style, class: "wb-pixels" });
}

/** How to come to the other filters and maps where there are many. */
function pagerOf({ units, first, at_once: most, filters, maps }, ask) {
  const many = Math.max(filters.length, maps.length) === most || first > 0;
  if (!many || units <= most) return "";
  const last = Math.min(first + most, units) - 1;
  const to = (start) => ask("show_units", { first: start });
  return h("div", { class: "wb-line-up" },
    disabledIf(first === 0, button("Previous units", () => to(Math.max(0, first - most)))),
    disabledIf(first + most >= units, button("Next units", () => to(first + most))),
    h("span", { class: "wb-muted" }, `units ${first} to ${last} of ${count(units)}`));
}

/** The histogram of a layer's outputs. */
function spreadOf({ counts, ends: [low, high] }) {
  if (low === null || high === null) return h("p", {}, "They are not all numbers.");
  const wide = (high - low) / counts.length || 1;
  const points = counts.map((n, i) => [low + (i + 0.5) * wide, n]);
  const [most] = points.reduce((a, b) => (b[1] > a[1] ? b : a));
  return plot({
    label: `Outputs for all rows: from ${short(low)} to ${short(high)}, most at ${short(most)}`,
    x: { label: "output", low, high: high > low ? high : low + wide },
    y: { label: "outputs", low: 0 },
    bars: [{ points, width: wide }], size: [400, 150],
  });
}

// ---- The gradient -------------------------------------------------------------------------------

/** The gradient of each layer as bars on logarithmic scales, and of each parameter as figures. */
function flowOf({ words: said, flow, scales, each }) {
  const paragraphs = said.map((text) => h("p", {}, text));
  if (!flow.length) return paragraphs;
  const lines = flow.map(({ layer, gradient_norm: gradient, weight_norm: weight, ratio, bars }) => [
    layer, share(bars[0], short(gradient, 3), 0), short(weight, 3),
    share(bars[1], short(ratio, 3), 1)]);
  const scale = ([low, high]) => `bar from ${short(low)} to ${short(high)}`;
  const heads = ["layer", `gradient (${scale(scales[0])})`, "weights",
    `gradient / weights (${scale(scales[1])})`];
  const norms = table("Norms by layer; bars on logarithmic scales", heads, lines);
  const whole = scrolled(norms, "Gradient by layer");
  whole.classList.add("wb-flow");
  const figures = each.map(([name, size, gradient, weight, ratio, note]) =>
    [name, count(size), short(gradient, 3), short(weight, 3), short(ratio, 3), note]);
  const columns = ["parameter", "size", "gradient", "weights", "ratio", "note"];
  const parameters = table("Parameters", columns, figures);
  return [...paragraphs, whole,
    h("details", {}, h("summary", {}, "Every parameter"), scrolled(parameters, "Parameters"))];
}
