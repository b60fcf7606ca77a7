/**
 * A face: draws what the kernel says is to be seen, and asks it for something else.
 *
 * What is seen lies in one trait, `shown`, so that a page that is loaded anew has it at once. What
 * the page wants it asks for by name; asks of one name that come too fast give way to the last one.
 */

const APART = 200; // milliseconds between two asks: a slider that is dragged makes hundreds
const PATIENCE = 1500; // milliseconds, after which a kernel counts as busy

/**
 * Return a widget whose every output is opened by `open(root, ask, model)`; that returns what draws
 * a `shown` into it, or `{ draw, close, recolour }` where something is to be ended, or is drawn in
 * the page's colours on a canvas.
 */
function face(name, open) {
  return {
    render({ model, el }) {
      const root = h("section", { class: `wb-face wb-${name}` });
      const body = h("div", {});
      const problem = h("p", { class: "wb-problem", role: "alert" });
      const waiting = h("p", { class: "wb-muted", role: "status" });
      root.append(body, problem, waiting);
      el.replaceChildren(root);
      keepKeys(root);
      const { ask, settle, close: giveUp } = asker(model, (text) => write(waiting, text));
      const opened = open(body, ask, model);
      const { draw, close = () => {}, recolour = () => {} } = opened.draw ? opened : { draw: opened };
      const update = () => {
        settle();
        write(problem, model.get("problem"));
        const shown = model.get("shown");
        root.setAttribute("aria-label", shown.title ?? name);
        draw(shown);
      };
      const forgetTheme = followTheme(root, recolour);
      model.on("change", update);
      update();
      return () => {
        model.off("change", update);
        forgetTheme();
        giveUp();
        close();
      };
    },
  };
}

/**
 * Send asks one by one and not too fast; say so where the kernel does not answer, and ask it again,
 * ever more seldom: what is sent while a page is connecting may never arrive.
 *
 * `ask(name, what, of)`: of what waits, one of the same name gives way to a later one, but where it
 * is `of` something else: to stop one run is not to stop another.
 */
function asker(model, say) {
  const own = Math.random().toString(36).slice(2); // each output of a view counts for itself
  const waiting = new Map(); // what is to be asked next, in this order
  let [sent, busy, last, timer, patience, closed] = [0, false, 0, 0, 0, false];
  const next = () => {
    timer = 0;
    if (busy || !waiting.size) return;
    const wait = last + APART - Date.now();
    if (wait > 0) {
      timer ||= setTimeout(next, wait);
      return;
    }
    const [key, { name, what }] = waiting.entries().next().value;
    waiting.delete(key);
    [busy, last, sent] = [true, Date.now(), sent + 1];
    send({ ask: name, asker: own, number: sent, ...what }, PATIENCE);
  };
  const send = (message, long) => {
    model.send(message);
    if (closed) return; // the last word of an output that hears no answer any more
    patience = setTimeout(() => {
      say(BUSY);
      send(message, 2 * long);
    }, long);
  };
  const ask = (name, what = {}, of = "") => {
    const key = `${name} ${of}`;
    waiting.delete(key); // the last one asked comes last
    waiting.set(key, { name, what });
    next();
  };
  const settle = () => {
    if (!busy || model.get("answered")[own] !== sent) return;
    busy = false;
    clearTimeout(patience);
    say("");
    next();
  };
  const close = () => {
    closed = true;
    clearTimeout(patience);
  };
  return { ask, settle, close };
}

const BUSY = "The kernel is busy with a cell, or gone: if it is gone, run the cell again.";

/** A row of choices of which one is pressed; `choose` is told the new one. */
function tabs(names, chosen, choose, label) {
  const button = (name) => {
    const element = h("button", { type: "button", "aria-pressed": String(name === chosen) }, titled(name));
    element.addEventListener("click", () => choose(name));
    return element;
  };
  return h("div", { class: "wb-tabs", role: "group", "aria-label": label }, ...names.map(button));
}

/** A choice among values, each with its words. */
function choice(label, options, chosen, choose) {
  const select = h("select", {});
  select.append(...options.map(([value, text]) => new Option(text, value)));
  select.value = chosen;
  select.addEventListener("change", () => choose(select.value));
  return h("label", {}, label, select);
}

/** A button that says what it does. */
function button(text, press, more = {}) {
  const element = h("button", { type: "button", ...more }, text);
  element.addEventListener("click", press);
  return element;
}

/** A table of texts and elements; the first cell of a row is its header. */
function table(caption, columns, rows) {
  const head = columns.map((column) => h("th", { scope: "col" }, column));
  const cells = (row) => row.map((cell, i) => (i ? h("td", {}, cell) : h("th", { scope: "row" }, cell)));
  const body = rows.map((row) => h("tr", {}, ...cells(row)));
  const parts = [h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...body)];
  return h("table", {}, h("caption", {}, caption), ...parts);
}

/** A part that scrolls by itself, also by the keyboard. */
function scrolled(element, label) {
  return h("div", { class: "wb-tables", tabindex: "0", role: "group", "aria-label": label }, element);
}

/** The element, disabled where that holds. */
function disabledIf(condition, element) {
  element.disabled = condition;
  return element;
}

/** Draw anew, and leave the keyboard where it was: on the control of the same name. */
function keepFocus(root, draw) {
  const held = root.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  draw();
  if (held === null || root.contains(document.activeElement)) return;
  const same = [...root.querySelectorAll("button, select, input, summary, [tabindex]")];
  same.find((element) => !element.disabled && nameOf(element) === held)?.focus({ preventScroll: true });
}

/** What a control is called: the words in it, of it, or around it. */
function nameOf(element) {
  const label = element.tagName === "SELECT" || element.tagName === "INPUT" ? element.closest("label") : null;
  const around = label ? [...label.childNodes].find((node) => node.nodeType === 3)?.data : "";
  return [element.tagName, element.ariaLabel ?? "", around ?? "",
    element.tagName === "BUTTON" ? element.textContent : ""].join("|");
}
