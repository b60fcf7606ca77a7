/**
 * Curves of several runs over each other, by step.
 */

const CURVES = `
  <p class="wb-muted"></p>
  <div class="wb-panel">${CHARTS(0.6)}</div>
  <div class="wb-hidden" aria-live="polite"></div>`;

/** Curves of several runs over each other. */
function openCurves(body) {
  body.innerHTML = CURVES;
  const find = (selector) => body.querySelector(selector);
  const say = (text) => write(find("[aria-live]"), text);
  let trainings = [];
  const panel = openCharts(find(".wb-panel"), say, () => panel.draw(trainings));
  const update = ({ trainings: told, of, selected }) => {
    trainings = told.map((training) => ({ ...training, curves: numbersOf(training.curves) }));
    panel.offer(trainings);
    find(".wb-panel").hidden = !trainings.length;
    write(find("p"), aboutCurves(trainings.length, of, selected));
    panel.redraw();
  };
  return { update, redraw: panel.redraw, close: panel.close };
}

/** Curves with numbers in the place of what JSON has for those that are none. */
function numbersOf(curves) {
  const numbers = ({ bucket, values }) => ({ bucket, values: Float32Array.from(values, (v) => v ?? NaN) });
  return Object.fromEntries(Object.entries(curves).map(([name, curve]) => [name, numbers(curve)]));
}

/** Whose curves they are. */
function aboutCurves(shown, of, selected) {
  if (!shown) return "None of these runs has recorded anything by step.";
  const curves = shown === 1 ? "1 curve" : `${count(shown)} curves`;
  const runs = selected === 1 ? "one selected run" : `${selected} selected runs`;
  if (selected) return `${curves} of ${runs}`;
  return `The first ${curves} of the ${of} runs of this page; select runs to see theirs`;
}
