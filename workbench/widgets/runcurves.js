/**
 * Curves of several runs over each other, by step.
 */

const CHART = (title) => `
  <figure>
    <figcaption>${title}</figcaption>
    <canvas role="img" tabindex="0"></canvas>
    <div class="wb-tip" aria-hidden="true" hidden></div>
  </figure>`;

const CURVES = `
  <p class="wb-muted"></p>
  <div class="wb-bar">
    <ul class="wb-legend"></ul>
    <div class="wb-controls">
      <label>Smoothing <input type="range" min="0" max="0.99" step="0.01" value="0.6"></label>
      <label><input type="checkbox"> Log scale</label>
    </div>
  </div>
  <div class="wb-charts">
    ${CHART("Loss")} ${CHART("<label>Metric <select></select></label>")}
  </div>
  <div class="wb-hidden" aria-live="polite"></div>`;

/** Curves of several runs over each other. */
function openCurves(body) {
  body.innerHTML = CURVES;
  const find = (selector) => body.querySelector(selector);
  const [smoothing, log, metric, said] = [
    "[type=range]",
    "[type=checkbox]",
    "select",
    "[aria-live]",
  ].map(find);
  let [trainings, frame] = [[], 0];
  const redraw = () => (frame ||= requestAnimationFrame(paint));
  const charts = [...body.querySelectorAll("figure")].map(
    (part) => new Chart(part, redraw, (text) => write(said, text)),
  );
  const paint = () => {
    frame = 0;
    const [name, end] = [metric.value, axisEnd(trainings)];
    const band = 0.2 / Math.sqrt(trainings.length || 1);
    const loss = (training) => smoothed(byStep(training, "loss"), smoothing.valueAsNumber);
    const [losses, figures] = [
      curvesOf(trainings, "loss", loss, { band }),
      curvesOf(trainings, name, (training) => byEpoch(training, name), { dots: true }),
    ];
    charts[0].figure.hidden = !losses.length;
    charts[1].figure.hidden = !figures.length;
    charts[0].draw({ title: "Loss", curves: losses, end, log: log.checked });
    charts[1].draw({ title: titled(name), curves: figures, end });
    const all = losses.length ? losses : figures;
    find(".wb-legend").replaceChildren(
      ...all.map((curve) =>
        h("li", {}, swatch(curve.colour, curve.dashed ? "dots" : "line"), curve.label),
      ),
    );
  };
  const update = ({ trainings: told, of, selected }) => {
    trainings = told.map((training) => ({
      ...training,
      curves: Object.fromEntries(
        Object.entries(training.curves).map(([name, { bucket, values }]) => [
          name,
          { bucket, values: Float32Array.from(values, (value) => value ?? NaN) },
        ]),
      ),
    }));
    const names = metricNames(trainings);
    const chosen = names.includes(metric.value) ? metric.value : names[0];
    if ([...metric.options].map(({ value }) => value).join() !== names.join())
      metric.replaceChildren(...names.map((name) => new Option(titled(name), name)));
    if (names.length) metric.value = chosen;
    find(".wb-bar").hidden = find(".wb-charts").hidden = !trainings.length;
    write(find("p"), aboutCurves(trainings.length, of, selected));
    redraw();
  };
  [smoothing, log, metric].forEach((control) => control.addEventListener("input", redraw));
  const resized = new ResizeObserver(redraw);
  charts.forEach(({ canvas }) => resized.observe(canvas));
  return { update, close: () => (resized.disconnect(), cancelAnimationFrame(frame)) };
}

/** Whose curves they are. */
function aboutCurves(shown, of, selected) {
  if (!shown) return "None of these runs has recorded anything by step.";
  const runs = selected === 1 ? "one selected run" : `${selected} selected runs`;
  if (selected) return `${count(shown)} curves of ${runs}`;
  return `The first ${shown} curves of the ${of} runs of this page; select runs to see theirs`;
}
