/** The runs of a home: a table to look through, some of them compared, one to go on with. */
export default face("runs", (root, ask, model) => {
  const part = (name) => h("div", { class: `wb-${name}` });
  const [head, listed, pager, more, choices] = [
    "line-up",
    "found",
    "line-up",
    "more",
    "choices",
  ].map(part);
  const bodies = { parallels: part("part-of"), curves: part("part-of"), run: part("part-of") };
  const [find, selection] = [openFind(ask), openSelection(ask)];
  root.append(head, find.element, listed, pager, more, choices, ...Object.values(bodies));

  const fillTable = filler(root, listed, (told) => [tableOf(told, selection, ask)]);
  const fillPager = filler(root, pager, (told) => pagerOf(told, selection, ask));
  const fillMore = filler(root, more, (told) => [columnsOf(told, ask, more)]);
  const fillTabs = filler(root, choices, (tab) => [
    tabs(Object.keys(TABS), tab, (to) => ask("open_tab", { tab: TABS[to] }), "Parts"),
  ]);
  const fillParallels = filler(root, bodies.parallels, (told) => comparisonOf(told, ask));
  const curves = openCurves(bodies.curves);
  const run = openRun(root, bodies.run, ask);

  const calm = calmly(root, (shown) => {
    const { total, found, rows, columns, by, down, page, pages, tab, known, served } = shown;
    const picked = selection.update(shown.picked, model.get("problem"));
    head.replaceChildren(
      h("b", { class: "wb-title" }, "Runs"),
      h("span", { class: "wb-muted", role: "status" }, `${count(found)} found of ${count(total)}`),
    );
    find.update(shown);
    fillTable({ rows, columns, by, down, picked, served });
    fillPager({ page, pages, picked, rows: rows.map(({ id }) => id) });
    fillMore({ known, columns });
    fillTabs(Object.keys(TABS).find((name) => TABS[name] === tab));
    Object.entries(bodies).forEach(([name, body]) => (body.hidden = name !== tab));
    if (tab === "parallels") fillParallels({ ...shown.part, opened: shown.opened, picked });
    if (tab === "curves") curves.update(shown.part);
    if (tab === "run") run.update(shown, model.get("report_page"));
  });
  const close = () => {
    calm.close();
    curves.close();
  };
  return { draw: calm.draw, close, recolour: curves.redraw };
});

const TABS = { "side by side": "parallels", curves: "curves", "one run": "run" };
const STATES = ["queued", "running", "done", "failed", "interrupted", "killed", "timed out"];
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
  let [picked, sent] = [[], null];
  const select = (runs) => {
    [picked, sent] = [runs, runs.join()];
    ask("select", { runs });
  };
  const toggle = (run, on) => select(on ? [...picked, run] : picked.filter((one) => one !== run));
  const update = (theirs, refused) => {
    if (sent !== null && !refused && theirs.join() !== sent) return picked;
    [picked, sent] = [theirs, null];
    return picked;
  };
  return { select, toggle, update };
}

/** The runs of a page: a box to select each, its name to open it, its figures. */
function tableOf({ rows, columns, by, down, picked }, selection, ask) {
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
    box.addEventListener("change", () => selection.toggle(row.id, box.checked));
    const name = button(row.id.slice(-4), () => ask("open_run", { run: row.id }), {
      "aria-label": `Open ${row.id.slice(-4)} of ${row.notebook}`,
      title: row.id,
    });
    const took = Number.isFinite(row.seconds) ? duration(row.seconds) : "";
    const cells = [stateOf(row), row.notebook, row.started, took, ...row.values.map(figureOf)];
    return h(
      "tr",
      {},
      h("td", {}, box),
      h("th", { scope: "row" }, name),
      ...cells.map((cell) => h("td", {}, cell)),
    );
  });
  const none = h("tr", {}, h("td", { colspan: names.length + 1 }, "No run is like that."));
  const body = h("tbody", {}, ...(lines.length ? lines : [none]));
  const head = h("thead", {}, h("tr", {}, h("td", {}), ...heads));
  return scrolled(h("table", {}, h("caption", { class: "wb-hidden" }, "Runs"), head, body), "Runs");
}

/** To turn over, and to select. */
function pagerOf({ page, pages, picked, rows }, selection, ask) {
  const steps = [
    ["First", 0],
    ["Previous", page - 1],
    ["Next", page + 1],
    ["Last", pages - 1],
  ];
  const all = [...new Set([...picked, ...rows])];
  return [
    ...steps.map(([name, to]) =>
      disabledIf(
        to < 0 || to >= pages || to === page,
        button(name, () => ask("turn", { page: to })),
      ),
    ),
    h("span", { class: "wb-muted" }, `page ${count(page + 1)} of ${count(pages)}`),
    disabledIf(
      all.length === picked.length,
      button("Select page", () => selection.select(all)),
    ),
    disabledIf(
      !picked.length,
      button("Clear selection", () => selection.select([])),
    ),
    h("span", { role: "status" }, `${count(picked.length)} selected`),
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
function comparisonOf(told, ask) {
  const { axes, lines, colours, colour, opened, picked } = told;
  const first = `the first ${count(lines.length)} runs found`;
  const of = picked.length > 1 ? `${picked.length} selected runs` : first;
  const hint = `${of}; drag along an axis to narrow them down`;
  if (axes.length < 2)
    return [h("p", {}, `In ${of} nothing differs that could be compared: find or select others.`)];
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
    parallelsOf(told, opened, narrow, (run) => ask("open_run", { run })),
  ];
}
