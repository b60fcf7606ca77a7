/** The rows behind a figure of an evaluation: a page of them, and one alone. */

const ALWAYS = ["mistakes", "largest"]; // what is open without having been asked for

/** The rows that are open, a page of them, and beside them the one that is looked at alone. */
function rowsOf(shown, ask, keep) {
  const { open, alone } = shown;
  if (!open && !alone) return [];
  const some = open ? [keep("some", [open, alone?.row], () => someOf(shown, ask))] : [];
  const one = alone ? [keep("one", alone, () => oneOf(shown, ask))] : [];
  const both = keep("rows", [], () => h("div", { class: "wb-beside wb-part" }));
  arrange(both, [...some, ...one]);
  return [both];
}

/** A page of rows: a grid of images, or a table. */
function someOf(shown, ask) {
  const { open, kind, classes } = shown;
  const none = open.kind === "mistakes" ? "No row was answered wrongly." : "No such rows.";
  const where = open.pages > 1 ? `page ${count(open.page + 1)} of ${count(open.pages)} · ` : "";
  const found = h("span", { class: "wb-muted", role: "status" }, where + rowCount(open.found));
  const content = kind === "image" ? gridOf : listOf;
  const heading = h("b", {}, headingOf(open, classes));
  return h("div", { class: "wb-some" },
    h("p", { class: "wb-line-up" }, heading, found, ...closeOf(open, ask)),
    open.rows.length ? content(shown, ask) : h("p", {}, none), ...pagerOf(open, ask));
}

/** What closes the rows, unless they are always there. */
function closeOf({ kind }, ask) {
  return ALWAYS.includes(kind) ? [] : [button("Close rows", () => ask("shut_rows"))];
}

/** The buttons that turn the pages, where there are some. */
function pagerOf({ page, pages }, ask) {
  const turn = (to) => ask("turn", { page: to });
  return pages > 1 ? [h("div", { class: "wb-line-up" }, ...pager({ page, pages }, turn))] : [];
}

/** What the rows are that are open. */
function headingOf({ kind, of }, classes) {
  if (kind === "cell") {
    const [true_, said] = of.map((i) => classes[i]);
    const what = of[0] === of[1] ? `${true_}, rightly said` : `${true_} said to be ${said}`;
    return `${what}: the surest first`;
  }
  if (kind === "group") return titled(of[0]);
  if (kind === "bin") return "Said with this confidence, the surest first";
  return kind === "mistakes" ? "The most surely wrong first" : "The largest residuals first";
}

/** Images, each a button that opens it. */
function gridOf({ open, pixels, alone }, ask) {
  const item = (row) => {
    const image = h("img", { src: row.src, alt: "", class: pixels ? "wb-pixels" : "" });
    const side = (i) => (row.said.length > 1 ? ["1st ", "2nd "][i] : "");
    const said = row.said.map((answer, i) =>
      sureLine(`${side(i)}${markOf(answer)}${wordOf(answer.said)}`, answer.p_predicted));
    const is = sureLine(`is ${wordOf(row.true)}`, row.said[0].p_true);
    return h("li", {}, rowButton({ row, alone, style: "wb-example" }, ask, image, ...said, is));
  };
  return h("ul", { class: "wb-examples" }, ...open.rows.map(item));
}

/** A word, cut where it is too long, and how sure that was. */
function sureLine(word, p) {
  const sure = p === undefined ? [] : [h("span", { class: "wb-muted" }, percent(p))];
  return h("span", { class: "wb-sure" }, h("span", {}, word), ...sure);
}

/** Rows of a table, each with a button that opens it alone. */
function listOf({ open, columns, more_columns: more, alone, classes }, ask) {
  const line = (row) => [
    rowButton({ row, alone, style: "" }, ask, count(row.row)), wordOf(row.true),
    ...row.said.flatMap(answerCells), ...row.values.map((value) => wordOf(value)),
  ];
  const all = columns.length + more;
  const caption = more ? `The first ${columns.length} of ${count(all)} columns` : `${all} columns`;
  const heads = ["row", "true", ...answerHeads(open.rows[0], classes), ...columns];
  return scrolled(table(caption, heads, open.rows.map(line)), "Rows");
}

/** What opens a row alone, or closes it. */
function rowButton({ row, alone, style }, ask, ...content) {
  const pressed = alone?.row === row.row;
  const label = `row ${row.row}: ${trueOf(row)}, said: ${row.said.map(saidOf).join(", ")}`;
  const more = { class: style, "aria-pressed": String(pressed), "aria-label": label };
  const element = button("", () => ask("open_row", { row: pressed ? -1 : row.row }), more);
  element.replaceChildren(...content);
  return element;
}

/** What a row is, and how likely that was said to be. */
function trueOf({ true: value, said: [first] }) {
  return wordOf(value) + ("p_true" in first ? ` (${percent(first.p_true)})` : "");
}

/** What was said, and how surely. */
function saidOf(answer) {
  const sure = "p_predicted" in answer ? ` (${percent(answer.p_predicted)})` : "";
  return `${markOf(answer)}${wordOf(answer.said)}${sure}`;
}

/** Whether it was right, of a class. */
function markOf({ right }) {
  return right === undefined ? "" : right ? "✓ " : "✗ ";
}

/** The columns of what each side said. */
function answerHeads({ said }, classes) {
  const sure = (answer) => ("p_true" in answer ? ["p of said", "p of true"] : []);
  const each = (answer) => (classes.length ? ["said", ...sure(answer)] : ["predicted", "residual"]);
  const side = (name, i) => (said.length > 1 ? `${name}, ${["first", "second"][i]}` : name);
  return said.flatMap((answer, i) => each(answer).map((name) => side(name, i)));
}

/** What one side said, in as many cells. */
function answerCells(answer) {
  if ("residual" in answer) return [wordOf(answer.said), wordOf(answer.residual)];
  const sure = "p_true" in answer ? [percent(answer.p_predicted), percent(answer.p_true)] : [];
  return [markOf(answer) + answer.said, ...sure];
}

/** One row alone: what it looks like, and all that was said of it. */
function oneOf(shown, ask) {
  const { alone, classes, pixels } = shown;
  const name = `Row ${count(alone.row)}: ${wordOf(alone.true)}`;
  const image = () => h("img", { src: alone.src, alt: name, class: pixels ? "wb-pixels" : "" });
  const sides = alone.said.length > 1 ? [", first", ", second"] : [""];
  return h("div", { class: "wb-one" },
    h("p", { class: "wb-line-up" }, h("b", {}, name),
      button("Close row", () => ask("open_row", { row: -1 }))),
    ...(alone.src ? [image()] : []),
    ...(classes.length ? chancesOf(alone, sides) : outputsOf(alone, sides)), ...featuresOf(alone));
}

/** How likely each class was said to be. */
function chancesOf({ chances, true: true_ }, sides) {
  const line = ([name, ...p]) => [name === true_ ? `${name} (true)` : name, ...p.map(barOf)];
  const lines = chances.map(line);
  const made = () => table("Likeliest classes", ["class", ...sides.map((of) => `p${of}`)], lines);
  return lines.length ? [scrolled(made(), "Likeliest classes")] : [];
}

/** The true and the predicted value of each output. */
function outputsOf({ outputs, more_outputs: more }, sides) {
  const heads = ["output", "true", ...sides.flatMap((of) => [`predicted${of}`, `residual${of}`])];
  const lines = outputs.map((figures, i) => [String(i), ...figures.map(wordOf)]);
  const caption = more ? `The first ${lines.length} of ${lines.length + more} outputs` : "Outputs";
  return [scrolled(table(caption, heads, lines), "Outputs of the row")];
}

/** A share as a bar and as a figure. */
function barOf(value) {
  const bar_ = h("span", { class: "wb-bar", style: `--wb-share: ${value ?? 0}` });
  return h("span", { class: "wb-scored" }, bar_, h("span", {}, percent(value)));
}
