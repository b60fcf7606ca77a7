/**
 * A face: draws what the kernel says is to be seen, and asks it for something else.
 *
 * What is seen lies in one trait, `shown`, so that a page that is loaded anew has it at once. What
 * the page wants it asks for by name; asks of one name that come too fast give way to the last one.
 */

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
      const send = (message) => model.send(message);
      const say = (text) => write(waiting, text);
      const { ask, settle, close: giveUp } = asker(send, () => model.get("answered"), say);
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

/** Return what fills an element by `make`, unless it was filled for the same thing already. */
function filler(root, element, make) {
  let known;
  return (told, ...more) => {
    const key = JSON.stringify(told);
    if (key === known) return;
    known = key;
    keepFocus(root, () => element.replaceChildren(...make(told, ...more)));
  };
}

/**
 * Draw anew, and leave the keyboard where it was: on the control of the same name, or where that is
 * gone or cannot be pressed any more, on the next one that can.
 */
function keepFocus(root, draw) {
  if (!root.contains(document.activeElement)) return draw();
  const named = nameOf(document.activeElement);
  const place = controlsOf(root).indexOf(document.activeElement);
  draw();
  if (root.contains(document.activeElement) && !document.activeElement.disabled) return;
  const [all, can] = [controlsOf(root), (control) => !control.disabled];
  const same = all.find((control) => can(control) && nameOf(control) === named);
  const next = all.slice(Math.max(place, 0)).find(can) ?? all.findLast(can);
  (same ?? next ?? heldBy(root)).focus({ preventScroll: true });
}

/** What the keyboard can reach in an element, in its order. */
function controlsOf(root) {
  return [...root.querySelectorAll("button, select, input, summary, a[href], [tabindex]")];
}

/** The element, as one that can be given the keyboard. */
function heldBy(element) {
  element.tabIndex = -1;
  return element;
}

/** What a control is called: the words in it, of it, or around it. */
function nameOf(element) {
  const label = element.tagName === "SELECT" || element.tagName === "INPUT" ? element.closest("label") : null;
  const around = label ? [...label.childNodes].find((node) => node.nodeType === 3)?.data : "";
  return [element.tagName, element.ariaLabel ?? "", around ?? "",
    element.tagName === "BUTTON" ? element.textContent : ""].join("|");
}
