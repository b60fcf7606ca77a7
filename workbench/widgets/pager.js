/**
 * Pages to turn over, where there are more things than are seen at once.
 */

/** The buttons that turn pages, which are counted from 0; `turn` is told the one to show. */
function pager({ page, pages }, turn) {
  const steps = [["First", 0], ["Previous", page - 1], ["Next", page + 1], ["Last", pages - 1]];
  const step = ([name, to]) =>
    disabledIf(to < 0 || to >= pages || to === page, button(name, () => turn(to)));
  return steps.map(step);
}
