/** A loss surface to go down on: a start to drag, sliders, four paths that grow, their losses. */
export default face("descent", (root, ask, model) => {
  const page = Math.random().toString(36).slice(2); // who tells the kernel, so as not to be told
  const parts = partsOf(root);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let [settings, surface, most, paths] = [{}, null, 1, []];
  let [frame, playing, last, told, due, unseen] = [0, false, 0, 0, 0, 0];
  let seen = null; // what the kernel has said last

  /** Draw at the next frame, once for all that has changed. */
  const redraw = () => (frame ||= requestAnimationFrame(show));

  /** Let time pass, bring the paths to the step of the settings, and draw them. */
  function show(now) {
    frame = 0;
    if (!root.isConnected) return;
    if (playing) advance(now);
    paths.forEach((path) => path.goTo(Math.floor(settings.step)));
    clearTimeout(unseen);
    if (!parts.view.clientWidth) unseen = setTimeout(redraw, 250); // as while a theme is loaded
    else if (surface) drawAll(parts, surface, settings, paths, most);
    if (playing) redraw();
  }

  /** Steps for the time since the last frame; leaps, where moving pictures are not wanted. */
  function advance(now) {
    const passed = (now - last) / 1000;
    if (still.matches && passed < 0.5) return;
    settings.step = Math.min(most, settings.step + Math.min(passed, 0.5) * settings.speed);
    last = now;
    if (settings.step >= most) play(false);
    else if (now - told > 500) tell();
  }

  /** Play, or stop. */
  function play(on) {
    if (on && settings.step >= most) settings.step = 0;
    if (!settings.step) begin();
    [playing, last] = [on, performance.now()];
    if (!on) settings.step = Math.floor(settings.step);
    write(parts.play, on ? "Pause" : "Play");
    redraw();
    tell();
  }

  /** Begin the paths anew, since something has changed that they follow from. */
  function begin() {
    paths = METHODS.map((method) => new Path(method, surface, settings));
  }

  /** Tell the kernel what is shown. */
  function tell() {
    told = performance.now();
    const step = Math.floor(settings.step);
    paths.forEach((path) => path.goTo(step));
    const reached = paths.map((path) => [path.method, [...path.places.at(-1), path.losses.at(-1)]]);
    ask("keep", { ...settings, step, page, reached: Object.fromEntries(reached) });
  }

  /** Change settings, and all that follows from them. */
  function change(more) {
    Object.assign(settings, more);
    begin();
    clearTimeout(due);
    due = setTimeout(tell, 200); // when a slider rests
    fill(parts, surface, settings);
    redraw();
  }

  wire(parts, {
    change, play: () => play(!playing),
    take: () => { play(false); change({ step: Math.min(most, settings.step + 1) }); },
    reset: () => { play(false); change({ step: 0 }); },
    settings: () => settings, surface: () => surface,
    choose: (name) => {
      const { start, x } = model.get("shown").surfaces[name];
      surface = model.get("shown").surfaces[name];
      change({ surface: name, start, batch: Math.min(settings.batch, x.length), step: 0 });
    },
  });
  const sizes = new ResizeObserver(redraw);
  sizes.observe(parts.view);
  return {
    draw(shown) {
      if (shown === seen || shown.page === page) return; // this page has told it
      seen = shown;
      [settings, most] = [{ ...shown.settings }, shown.most];
      surface = shown.surfaces[settings.surface];
      if (!parts.choice.length) parts.choice.append(...Object.keys(shown.surfaces).map((n) => new Option(n)));
      begin();
      fill(parts, surface, settings);
      redraw();
    },
    recolour() {
      parts.ground = null;
      redraw();
    },
    close() {
      cancelAnimationFrame(frame);
      [due, unseen].forEach(clearTimeout);
      sizes.disconnect();
    },
  };
});

const LOOKS = ["●", "■", "◆", "▲"]; // of the methods, beside their colours

/** The elements of the playground, by what they are for. */
function partsOf(root) {
  const range = (low, high, step) => h("input", { type: "range", min: low, max: high, step });
  const parts = {
    choice: h("select", {}), play: button("Play", () => {}), take: button("Step", () => {}),
    reset: button("Reset", () => {}), step: h("span", { class: "wb-muted wb-descent-step" }),
    speed: range(0, 3, 0.05), rate: range(-3, 0, 0.02), batch: range(1, 1, 1),
    sign: h("input", { type: "checkbox" }), rule: h("output", { class: "wb-descent-rule" }),
    size: h("output", {}), pace: h("output", {}), limit: h("span", {}),
    view: h("canvas", { role: "img", class: "wb-descent-view" }),
    handle: h("div", { class: "wb-descent-start", role: "slider", tabindex: "0", "aria-label": "Start",
      title: "Start: drag it, or move it by the arrow keys", "aria-valuemin": "0", "aria-valuemax": "1" }),
    losses: h("canvas", { role: "img" }), fit: h("canvas", { role: "img" }), rows: h("tbody", {}), ground: null,
  };
  root.append(...layout(parts));
  return parts;
}

/** Where they stand. */
function layout(p) {
  const label = (text, ...inner) => h("label", {}, text, ...inner);
  const columns = ["method", "θ₀", "θ₁", "loss", "what became of it"];
  const heads = columns.map((text) => h("th", { scope: "col" }, text));
  return [
    h("div", { class: "wb-line-up" }, h("b", { class: "wb-title" }, "Gradient descent"),
      label("Surface", p.choice), p.play, p.take, p.reset, p.step),
    h("div", { class: "wb-line-up wb-descent-sliders" },
      label("Learning rate α", p.rate, p.rule), label("Batch size", p.batch, p.size),
      label("Speed", p.speed, p.pace), h("label", {}, p.sign, "Sign error: θ ← θ + α∇L"), p.limit),
    h("div", { class: "wb-descent-plots" },
      h("div", { class: "wb-descent-ground" }, p.view, p.handle),
      h("div", { class: "wb-descent-side" },
        h("figure", {}, h("figcaption", { class: "wb-muted" }, "Loss by step"), p.losses),
        h("figure", {}, h("figcaption", { class: "wb-muted" }, "What each predicts"), p.fit))),
    h("div", { class: "wb-tables", tabindex: "0", role: "group", "aria-label": "Where each method is" },
      h("table", {}, h("caption", { class: "wb-hidden" }, "Where each method is"),
        h("thead", {}, h("tr", {}, ...heads)), p.rows)),
  ];
}

/** What the controls do. */
function wire(parts, { change, play, take, reset, choose, settings, surface }) {
  const on = (element, name, act) => element.addEventListener(name, act);
  on(parts.choice, "change", () => choose(parts.choice.value));
  [["play", play], ["take", take], ["reset", reset]].forEach(([name, act]) => on(parts[name], "click", act));
  on(parts.rate, "input", () => change({ rate: Number((10 ** parts.rate.value).toPrecision(3)) }));
  on(parts.speed, "input", () => change({ speed: Math.round(10 ** parts.speed.value) }));
  on(parts.batch, "input", () => change({ batch: Number(parts.batch.value) }));
  on(parts.sign, "change", () => change({ uphill: parts.sign.checked }));
  const ground = parts.view.parentElement;
  const moveTo = (event) => {
    const { left, top } = parts.view.getBoundingClientRect();
    change({ start: parts.plane.at(event.clientX - left, event.clientY - top) });
  };
  on(ground, "pointerdown", (event) => {
    if (event.button || !parts.plane) return;
    ground.setPointerCapture(event.pointerId);
    event.preventDefault(); // no text is chosen
    parts.handle.focus({ preventScroll: true });
    moveTo(event);
  });
  on(ground, "pointermove", (event) => ground.hasPointerCapture(event.pointerId) && moveTo(event));
  on(parts.handle, "keydown", (event) => {
    const to = moved(event, settings().start, surface());
    if (!to) return;
    event.preventDefault();
    change({ start: to });
  });
}

/** Where the start is after a key: a hundredth of the picture away, a tenth with Shift. */
function moved({ key, shiftKey }, start, { low, high }) {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
  const far = shiftKey ? 10 : 100;
  return way && start.map((value, i) => within(value + (way[i] * (high[i] - low[i])) / far, low[i], high[i]));
}

/** A value, or the end of the range that it is beyond. */
function within(value, low, high) {
  return Number(Math.min(high, Math.max(low, value)).toFixed(4));
}

/** Write the settings into the controls and beside them. */
function fill(parts, surface, { surface: name, rate, batch, uphill, speed }) {
  const [all, whole] = [surface.x.length, surface.limits.at(-1)];
  parts.choice.value = name;
  parts.batch.max = all;
  Object.assign(parts.sign, { checked: uphill });
  [["rate", Math.log10(rate)], ["batch", batch], ["speed", Math.log10(speed)]].forEach(([key, value]) => {
    if (document.activeElement !== parts[key] || key === "batch") parts[key].value = value;
  });
  parts.rate.setAttribute("aria-valuetext", `α = ${short(rate)}`);
  parts.speed.setAttribute("aria-valuetext", `${speed} steps a second`);
  write(parts.rule, `θ ← θ ${uphill ? "+" : "−"} ${short(rate)} ∇L`);
  write(parts.size, batch === all ? `all ${all} points` : `${batch} of ${all} points`);
  write(parts.pace, `${speed} steps/s`);
  const above = rate > whole;
  parts.limit.className = above || uphill ? "wb-note wb-descent-limit" : "wb-muted wb-descent-limit";
  const bowl = `Gradient descent diverges with α above 2/λmax = ${short(whole)}${above ? ": it does" : ""}.`;
  const shape = surface.limits.length ? bowl : "No bowl: two minima, a saddle between them.";
  write(parts.limit, uphill ? "Every step goes uphill." : shape);
}
