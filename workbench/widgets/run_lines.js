/**
 * Runs as faces show them: how they stand, what can be asked of them, where their notebooks are.
 */

/** The state of a run, with its shape. */
function stateOf({ state, place, ending }) {
  const look = { "timed out": "failed", stopped: "interrupted" }[state] ?? state;
  const more = ending ? ", ending" : place ? ` · ${place}${ordinal(place)} in line` : "";
  return h("span", { class: "wb-state", "data-state": look }, state + more);
}

/** What makes 2 the 2nd. */
function ordinal(number) {
  const last = number % 100 > 10 && number % 100 < 14 ? 0 : number % 10;
  return ["th", "st", "nd", "rd"][last] ?? "th";
}

/** Where a run is, and for how long. */
function progressOf({ state, over, cell, cells, heading, seconds }) {
  const time = Number.isFinite(seconds) ? duration(seconds) : "";
  if (state === "running" && over === cell) return `between two cells of ${cells} · ${time}`;
  if (state === "running")
    return [`cell ${cell} of ${cells}${heading ? `, ${heading}` : ""}`, time].join(" · ");
  return time && `took ${time}`;
}

/** How far it is, while it goes. */
function barOf({ id, state, over, cells }) {
  if (state !== "running") return [];
  return [
    h("progress", { max: cells || 1, value: over, "aria-label": `Cells of ${id} that are done` }),
  ];
}

/** The buttons of what can be asked of a run, and a link to its notebook. */
function buttonsOf(line, ask, more = "") {
  const texts = { stop: "Stop", resume: line.state === "queued" ? "Start" : "Resume" };
  return line.can.map((what) => {
    const text = texts[what];
    const press = () => ask(`${what}${more && `_${more}`}`, { [more || "run"]: line.id }, line.id);
    return disabledIf(line.ending, button(text, press, { "aria-label": `${text} ${line.id}` }));
  });
}

/** A number of a run in four digits, or in all of more, its zeros left out; a text as it is. */
function figureOf(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return value;
  if (Math.abs(value) >= 1000 && Math.abs(value) < 1e9) return count(value);
  const four = Number(value.toPrecision(4));
  const size = Math.abs(four);
  return Number.isInteger(four) || size < 1e-3 || size >= 1e6 ? short(four) : String(four);
}

/** Metrics with their values, in a line. */
function metricsOf(metrics) {
  return Object.entries(metrics)
    .map(([name, value]) => `${name} ${figureOf(value)}`)
    .join(" · ");
}

const wanted = new Set(); // runs of which a copy is opened as soon as it is there

/**
 * A link that opens a run's notebook in a tab of Lab; where Jupyter does not serve it, a button that
 * has it copied to where it does, or where no Jupyter is, its path to be taken elsewhere.
 */
function notebookLink({ id, notebook, state }, served, ask) {
  const link = opening(notebook, served);
  if (link === null && (served === null || ["queued", "running"].includes(state)))
    return copied(notebook, `Copy the path of ${id}`);
  if (link === null) {
    const copy = () => {
      wanted.add(id);
      ask("copy", { run: id }, id);
    };
    return button("Open a copy", copy, { "aria-label": `Open a copy of the notebook of ${id}` });
  }
  const more = { target: "_blank", rel: "noopener", "aria-label": `Open notebook of ${id}` };
  const element = h("a", { ...link, ...more }, "Open notebook");
  if (wanted.delete(id)) setTimeout(() => element.click()); // once it is in the page
  return element;
}

/** A text to be taken elsewhere, with a button that does. */
function copied(text, label) {
  const field = h("input", { readonly: "", value: text, "aria-label": `${label}: the text` });
  return h("span", { class: "wb-copied" }, field, copier(text, label, field));
}

/**
 * Draw what the kernel shows as long as somebody looks at it, but nothing while a mouse button is
 * held down, since a button that is replaced in the meantime would not be clicked.
 */
function calmly(root, ask, draw) {
  const leave = staying(root, ask);
  let [held, waiting] = [false, null];
  const hold = ({ target }) => (held = !target.closest("select")); // of a list nothing says the end
  const letGo = () =>
    setTimeout(() => {
      held = false;
      if (waiting) draw(waiting);
      waiting = null;
    });
  const ends = ["pointerup", "pointercancel"];
  root.addEventListener("pointerdown", hold);
  ends.forEach((name) => window.addEventListener(name, letGo));
  return {
    draw: (shown) => (held ? (waiting = shown) : draw(shown)),
    close() {
      leave();
      ends.forEach((name) => window.removeEventListener(name, letGo));
    },
  };
}
