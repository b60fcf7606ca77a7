/** The confusion matrix of an evaluation, whose cells open their rows. */

const FEW = 10; // classes, of which each cell has room for count and share

/** The confusion matrix, and of several classes what was confused most often. */
function confusionOf(shown, ask, keep) {
  const { classes, pairs } = shown;
  const open = (i, j) => ask("open_cell", { true: classes[i], predicted: classes[j] });
  const pair = ([i, j, n]) => h("li", {},
    button(`${classes[i]} said to be ${classes[j]}: ${count(n)}`, () => open(i, j)));
  const most = () => h("div", { class: "wb-confused" }, "Confused most often:",
    h("ul", { class: "wb-line-up" }, ...pairs.map(pair)));
  const matrix = matrixOf(shown, ask, keep);
  return pairs.length ? [matrix, keep("pairs", [classes, pairs], most)] : [matrix];
}

/** The confusion matrix: each cell with rows is a button; arrow keys go from one to the next. */
function matrixOf({ classes, confusion, block, totals, pairs, open }, ask, keep) {
  const matrix = keep("matrix", [classes, confusion, block, totals], () => {
    const name = (of) => h("th", { scope: "col" }, h("span", {}, classes[of]));
    const cells = (row, i) =>
      row.map((n, j) => cellOf({ classes, n, all: totals[i], i: block[i], j: block[j] }, ask));
    const rows = confusion.map((row, i) =>
      h("tr", {}, h("th", { scope: "row" }, classes[block[i]]), ...cells(row, i)));
    const element = h("table", { class: "wb-matrix", "data-many": String(classes.length > FEW) },
      h("thead", {}, h("tr", {}, h("td", {}, "true \\ said"), ...block.map(name))),
      h("tbody", {}, ...rows));
    element.addEventListener("keydown", (event) => walk(element, event));
    const most = pairs.length ? "that are confused most" : "of which none is confused";
    const part = `The ${block.length} of ${count(classes.length)} classes ${most}. `;
    const hint = "Rows by true class and by what was said. Cells open; arrow keys go on.";
    const caption = (block.length < classes.length ? part : "") + hint;
    return captioned(scrolled(element, "Confusion matrix"), caption);
  });
  press(matrix, open?.kind === "cell" ? open.of : null);
  return matrix;
}

/** One cell: how many rows, and what share of the true class; the larger, the darker. */
function cellOf({ classes, n, all, i, j }, ask) {
  const share = n / (all || 1);
  const style = `--wb-share: ${Math.sqrt(share)}; --wb-hue: var(--wb-c${i === j ? 0 : 1})`;
  if (!n) return h("td", { style }, h("span", { class: "wb-muted" }, "0"));
  const [of, said] = [classes[i], classes[j]];
  const label = `${of} said to be ${said}: ${rowCount(n)}, ${percent(share)}`;
  const toggle = ({ currentTarget }) => (currentTarget.ariaPressed === "true"
    ? ask("shut_rows") : ask("open_cell", { true: of, predicted: said }));
  const cell = button(count(n), toggle, {
    "aria-label": label, title: label, "aria-pressed": "false", tabindex: "-1",
    "data-cell": `${i} ${j}`,
  });
  if (classes.length <= FEW) cell.append(h("small", {}, percent(share)));
  return h("td", { style, class: i === j ? "wb-right" : "" }, cell);
}

/** Mark the cell that is open; it, or the first one, is where the keyboard comes in. */
function press(matrix, cell) {
  const now = cell && matrix.querySelector(`[data-cell="${cell.join(" ")}"]`);
  matrix.querySelector('[aria-pressed="true"]')?.setAttribute("aria-pressed", "false");
  now?.setAttribute("aria-pressed", "true");
  const door = matrix.querySelector('[data-cell][tabindex="0"]');
  if (now || !door) enter(matrix, now ?? matrix.querySelector("[data-cell]"));
}

/** Let the keyboard come in at a cell. */
function enter(matrix, cell) {
  matrix.querySelector('[data-cell][tabindex="0"]')?.setAttribute("tabindex", "-1");
  cell?.setAttribute("tabindex", "0");
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** Go to the nearest cell with rows in the direction of an arrow key. */
function walk(matrix, event) {
  const step = STEPS[event.key];
  if (!step || !event.target.dataset.cell) return;
  event.preventDefault();
  const placed = ({ parentElement: cell }) => [cell.parentElement.rowIndex, cell.cellIndex];
  const [i, j] = placed(event.target);
  const away = (cell) => {
    const [a, b] = placed(cell);
    const [along, aside] = step[0] ? [(a - i) * step[0], b - j] : [(b - j) * step[1], a - i];
    return { cell, along, far: Math.abs(aside) * 1000 + along };
  };
  const cells = [...matrix.querySelectorAll("[data-cell]")].map(away);
  const ahead = cells.filter(({ along }) => along > 0);
  if (!ahead.length) return;
  const { cell } = ahead.reduce((best, one) => (one.far < best.far ? one : best));
  enter(matrix, cell);
  cell.focus();
}
