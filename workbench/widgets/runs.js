/** The runs of a home: a table to look through, some of them compared, one to go on with. */
export default face("runs", (root, ask, model) => {
  const part = (name) => h("div", { class: `wb-${name}` });
  const status = (look) => h("span", { class: look, role: "status" });
  const [head, listed, foot, more, choices] = [
    "line-up",
    "found",
    "line-up",
    "more",
    "choices",
  ].map(part);
  const bodies = { parallels: part("part-of"), curves: part("part-of"), run: part("part-of") };
  const [find, selection] = [openFind(ask), openSelection(ask)];
  const [counted, turned, chosen] = [status("wb-muted"), part("turned"), status("")];
  head.append(h("b", { class: "wb-title" }, "Runs"), counted);
  foot.append(turned, chosen);
  root.append(head, find.element, listed, foot, more, choices, ...Object.values(bodies));
  let pressed = ""; // the run that is to be seen once the kernel shows it
  const open = (id) => {
    pressed = id;
    ask("open_run", { run: id });
  };

  const lines = part("lines"); // replaced within what is scrolled, which stays where it was
  listed.append(scrolled(lines, "Runs"));
  const fillTable = filler(root, lines, (told) => [tableOf(told, selection, open, ask)]);
  const fillTurned = filler(root, turned, (told) => turnedOf(told, selection, ask));
  const fillMore = filler(root, more, (told) => [columnsOf(told, ask, more)]);
  const fillTabs = filler(root, choices, (tab) => [
    tabs(Object.keys(TABS), tab, (to) => ask("open_tab", { tab: TABS[to] }), "Parts"),
  ]);
  const fillParallels = filler(root, bodies.parallels, (told) => comparisonOf(told, open, ask));
  const curves = openCurves(bodies.curves);
  const run = openRun(root, bodies.run, ask);

  const calm = calmly(root, ask, (shown) => {
    const { total, found, rows, columns, by, down, page, pages, tab, known, opened } = shown;
    const picked = selection.update(shown, model.get("problem"));
    write(counted, `${count(found)} found of ${count(total)}`);
    write(chosen, `${count(shown.selected)} selected`);
    find.update(shown);
    fillTable({ rows, columns, by, down, picked, opened, total });
    fillTurned({ page, pages, picked, any: shown.selected > 0, rows: rows.map(({ id }) => id) });
    fillMore({ known, columns });
    fillTabs(Object.keys(TABS).find((name) => TABS[name] === tab));
    Object.entries(bodies).forEach(([name, body]) => (body.hidden = name !== tab));
    if (tab === "parallels") fillParallels({ ...shown.part, opened });
    if (tab === "curves") curves.update(shown.part);
    if (tab !== "run") return;
    run.update(shown, model.get("report_page"));
    if (!pressed || opened !== pressed) return;
    bodies.run.scrollIntoView({ block: "nearest" });
    pressed = "";
  });
  const close = () => {
    calm.close();
    curves.close();
  };
  return { draw: calm.draw, close, recolour: curves.redraw };
});

const TABS = { "side by side": "parallels", curves: "curves", "one run": "run" };
const STATES = ["queued", "running", "done", "failed", "interrupted", "killed", "timed out"];
const CUT = 24; // letters, of which a cell may not show all
const HEADS = {
  id: "run",
  state: "state",
  notebook: "notebook",
  started: "started (UTC)",
  seconds: "took",
};

/** What narrows the runs down. */
function openFind(ask) {
  const where = h("input", {
    type: "search",
    placeholder: "test_accuracy>=0.7, lr<0.1",
    class: "wb-where",
    spellcheck: "false",
  });
  let asked = { where: "", notebook: "", state: "" }; // what the controls say
  let told = null;
  const find = (more) => {
    asked = { ...asked, where: where.value, ...more };
    ask("find", asked);
  };
  ["change", "search"].forEach((event) => where.addEventListener(event, () => find({})));
  const choices = h("span", { class: "wb-line-up" });
  const options = (values) => [["", "all"], ...values.map((value) => [value, value])];
  const fill = filler(choices, choices, ([notebooks, { notebook, state }]) => [
    choice("Notebook", options(notebooks), notebook, (to) => find({ notebook: to })),
    choice("State", options(STATES), state, (to) => find({ state: to })),
  ]);
  const problem = h("p", { class: "wb-problem", role: "alert" });
  const update = ({ where: text, notebook, state, notebooks, refused }) => {
    write(problem, refused);
    const now = JSON.stringify({ where: text, notebook, state });
    if (now !== told) {
      // else what stands in the field was refused, or is being written
      asked = { where: text, notebook, state };
      if (document.activeElement !== where) where.value = text;
    }
    told = now;
    fill([notebooks, asked]);
  };
  const line = h("div", { class: "wb-line-up" }, h("label", {}, "Where", where), choices);
  return { element: h("div", {}, line, problem), update };
}

/** Which runs are selected: what was clicked counts until the kernel has repeated it. */
function openSelection(ask) {
  const clicked = new Map(); // by run, whether it is to be
  const tick = (runs, on) => {
    runs.forEach((run) => clicked.set(run, on));
    ask("tick", { runs, on }, runs.join());
  };
  const clear = (rows) => {
    rows.forEach((run) => clicked.set(run, false));
    ask("select", { runs: [] });
  };
  const update = ({ rows, picked }, refused) => {
    const runs = rows.map(({ id }) => id);
    const stands = (run) => clicked.get(run) !== picked.includes(run) && runs.includes(run);
    [...clicked.keys()].forEach((run) => (!refused && stands(run)) || clicked.delete(run));
    return runs.filter((run) => clicked.get(run) ?? picked.includes(run));
  };
  return { tick, clear, update };
}

/** The runs of a page: a box to select each, its name to open it, its figures. */
function tableOf({ rows, columns, by, down, picked, opened, total }, selection, open, ask) {
  const names = [...Object.keys(HEADS), ...columns];
  const heads = names.map((name) => {
    const sorted = name === by ? (down ? "descending" : "ascending") : "none";
    const press = () => ask("order", { by: name, down: name === by ? !down : true });
    const arrow = name === by ? (down ? " ↓" : " ↑") : "";
    const label = button((HEADS[name] ?? name) + arrow, press, {
      "aria-label": `Sort by ${HEADS[name] ?? name}`,
    });
    return h("th", { scope: "col", "aria-sort": sorted }, label);
  });
  const lines = rows.map((row) => {
    const box = h("input", { type: "checkbox", "aria-label": `Select ${row.id}` });
    box.checked = picked.includes(row.id);
    box.addEventListener("change", () => selection.tick([row.id], box.checked));
    const name = button(row.id.slice(-4), () => open(row.id), {
      "aria-label": `Open ${row.id.slice(-4)} of ${row.notebook}`,
      "aria-pressed": String(row.id === opened),
      title: row.id,
    });
    const took = Number.isFinite(row.seconds) ? duration(row.seconds) : "";
    const texts = [row.notebook, row.started, took, ...row.values.map(figureOf)];
    const cells = texts.map((text) => h("td", text.length > CUT ? { title: text } : {}, text));
    return h(
      "tr",
      {},
      h("td", {}, box),
      h("th", { scope: "row" }, name),
      h("td", {}, stateOf(row)),
      ...cells,
    );
  });
  const none = h("tr", {}, h("td", { colspan: names.length + 1 }, total ? "No run is like that." : NOTHING));
  const body = h("tbody", {}, ...(lines.length ? lines : [none]));
  const head = h("thead", {}, h("tr", {}, h("td", {}), ...heads));
  return h("table", {}, h("caption", { class: "wb-hidden" }, "Runs"), head, body);
}

/** To turn over, and to select. */
function turnedOf({ page, pages, picked, any, rows }, selection, ask) {
  return [
    ...pager({ page, pages }, (to) => ask("turn", { page: to })),
    h("span", { class: "wb-muted" }, `page ${count(page + 1)} of ${count(pages)}`),
    disabledIf(
      rows.length === picked.length,
      button("Select page", () => selection.tick(rows, true)),
    ),
    disabledIf(
      !any,
      button("Clear selection", () => selection.clear(rows)),
    ),
  ];
}

/** Which parameters and metrics are columns. */
function columnsOf({ known, columns }, ask, around) {
  let now = columns;
  const boxes = known.map((name) => {
    const box = h("input", { type: "checkbox" });
    box.checked = columns.includes(name);
    box.addEventListener("change", () => {
      now = box.checked ? [...now, name] : now.filter((one) => one !== name);
      ask("show_columns", { columns: now });
    });
    return h("label", {}, box, name);
  });
  const element = h(
    "details",
    {},
    h("summary", {}, "Columns"),
    h("div", { class: "wb-line-up", role: "group", "aria-label": "Columns" }, ...boxes),
  );
  element.open = around.querySelector("details")?.open ?? false;
  return element;
}

/** The runs that are compared, as lines through parallel axes. */
function comparisonOf(told, open, ask) {
  const { axes, whose, colours, colour, opened } = told;
  const hint = `${whose}; drag along an axis to narrow them down`;
  const alike = `In ${whose} nothing differs that could be compared: find or select others.`;
  if (axes.length < 2) return [h("p", {}, alike)];
  const narrow = (axis, low, high) => ask("narrow", { axis, low, high });
  return [
    h(
      "div",
      { class: "wb-line-up" },
      h("span", { class: "wb-muted" }, hint),
      choice(
        "Colour",
        colours.map((name) => [name, name]),
        colour,
        (by) => ask("colour", { by }),
      ),
      coloursOf(told),
    ),
    parallelsOf(told, opened, narrow, open),
  ];
}

const NOTHING = "Nothing was run yet: workbench run NOTEBOOK, or a form's button, begins a run.";
