/**
 * Rows of data: pages of them to turn over, and what stands in one of them.
 */

/** The buttons that turn pages, which are counted from 0; `turn` is told the one to show. */
function pager({ page, pages }, turn) {
  const steps = [["First", 0], ["Previous", page - 1], ["Next", page + 1], ["Last", pages - 1]];
  const step = ([name, to]) =>
    disabledIf(to < 0 || to >= pages || to === page, button(name, () => turn(to)));
  return steps.map(step);
}

/** The values of a row of a table. */
function featuresOf({ features, more }) {
  if (!features) return [];
  const all = features.length + more;
  const caption = more ? `The first ${features.length} of ${count(all)} columns` : `${all} columns`;
  const lines = features.map(([name, value]) => [name, wordOf(value)]);
  return [scrolled(table(caption, ["column", "value"], lines), "Columns of the row")];
}

/** A class, or a value. */
function wordOf(value) {
  return typeof value === "string" ? value : short(value ?? NaN, 4);
}
