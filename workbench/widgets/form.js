/** The parameters of a notebook as controls, and the runs that were begun with them. */
export default face("form", (root, ask, model) => {
  const [head, modes, fields] = [h("div", { class: "wb-line-up" }), h("div", {}), h("div", {})];
  const [begin, works] = [h("div", { class: "wb-begin" }), h("ul", { class: "wb-works" })];
  root.append(head, modes, fields, begin, works);
  let form = null;
  const fillWorks = filler(root, works, ([served, all]) =>
    all.map((work) => workOf(work, served, ask)),
  );

  return calmly(root, ask, (shown) => {
    const key = JSON.stringify([
      shown.mode,
      shown.fields.map(({ name, control }) => [name, control]),
    ]);
    if (key !== form?.key) {
      form = { key, ...openFields(shown, ask) };
      head.replaceChildren(
        h("b", { class: "wb-title" }, shown.name),
        h("span", { class: "wb-muted" }, `${shown.fields.length} parameters`),
      );
      const open = (words_) => ask("open_mode", { mode: words_ === MODES.run ? "run" : "sweep" });
      keepFocus(root, () => {
        modes.replaceChildren(tabs(Object.values(MODES), MODES[shown.mode], open, "What to begin"));
        fields.replaceChildren(form.element);
        begin.replaceChildren(...form.start);
      });
    }
    form.update(shown, model.get("problem"));
    fillWorks([shown.served, shown.works]);
  });
});

const MODES = { run: "one run", sweep: "several runs" };

/** The fields of one mode, and what begins it; `update` brings them up to what the kernel says. */
function openFields(shown, ask) {
  const [texts, counts] = [{}, { ...shown.counts }];
  let sent = null; // what the kernel has yet to repeat; until then the fields know better
  const said = () => JSON.stringify([texts, shown.mode === "sweep" ? counts : {}]);
  const fill = () => {
    sent = said();
    ask("fill", { mode: shown.mode, texts, counts });
  };
  const reset = (parameter) => {
    sent = null;
    ask("reset", { parameter });
  };
  const rows = shown.fields.map((field) =>
    openField(field, {
      write: (text) => {
        if (field.control.kind === "secret")
          return ask("keep", { secret: field.name, text }, field.name);
        texts[field.name] = text;
        return fill();
      },
      reset: () => reset(field.name),
    }),
  );
  const start = openStart(shown, {
    count: (name, text) => {
      counts[name] = text;
      fill();
    },
    begin: (begun) => ask("begin", { begun }),
    reset: () => reset(""),
  });
  const update = (now, trouble) => {
    const theirs = {};
    for (const { name, text, control } of now.fields)
      if (control.kind !== "secret") theirs[name] = text;
    const repeated = JSON.stringify([theirs, now.mode === "sweep" ? now.counts : {}]);
    const adopt = sent === null || sent === repeated;
    if (adopt) sent = null;
    if (adopt) (Object.assign(texts, theirs), Object.assign(counts, now.counts));
    rows.forEach((row, i) => row.update(now.fields[i], adopt));
    start.update(now, adopt, trouble);
  };
  const element = h("div", { class: "wb-fields" }, ...rows.flatMap((row) => row.elements));
  return { element, start: start.elements, update };
}

/** One parameter: its name, its control, what it is about, its default, what is wrong with it. */
function openField(field, { write: tell, reset }) {
  const { name, control } = field;
  const id = `wb-${name}-${Math.random().toString(36).slice(2)}`;
  const { element, set } = (CONTROLS[control.kind] ?? textOf)(field, tell, id);
  const back = button("Reset", reset, { "aria-label": `Reset ${name}` });
  const problem = h("p", { class: "wb-problem", role: "alert", id: `${id}-problem` });
  const help = h("p", { class: "wb-muted" });
  const about = h("div", { class: "wb-about" }, help, problem);
  const label = h(control.kind === "several" ? "span" : "label", { class: "wb-name" }, name);
  if (label.tagName === "LABEL") label.htmlFor = id;
  const part = h("div", { class: "wb-control" }, element, back);
  const takes = element.matches("input, select") ? element : element.querySelector("input, select");
  const update = ({ text, default: standard, problem: wrong, set: kept }, adopt) => {
    if (adopt) set(text, kept);
    const changed = control.kind === "secret" ? kept : text !== standard;
    back.classList.toggle("wb-unseen", !changed); // it keeps its place: nothing moves as one types
    write(help, wrong ? "" : [field.about, standard && `default ${standard}`].filter(Boolean).join(" · "));
    write(problem, wrong);
    takes.setAttribute("aria-invalid", String(Boolean(wrong)));
    takes.setAttribute("aria-describedby", problem.id);
  };
  return { elements: [label, part, about], update };
}

/** What begins a run or a sweep, how many there will be, and the same as a command. */
function openStart(shown, { count: tell, begin, reset }) {
  const sweeps = shown.mode === "sweep";
  const inputs = sweeps
    ? ["samples", "seeds"].map((name) => {
        const field = h("input", { type: "number", min: 1, step: 1, name });
        field.addEventListener("input", () => tell(name, field.value));
        return [name, field, h("p", { class: "wb-problem", role: "alert" })];
      })
    : [];
  let begun = 0; // what a second press, too early to see the first one's run, counts from too
  const go = button(sweeps ? "Sweep" : "Run", () => begin(begun), { class: "wb-go" });
  const [points, whole] = [
    h("span", { role: "status" }),
    h("p", { class: "wb-problem", role: "alert" }),
  ];
  const command = h("code", {});
  const HELP = {
    samples: "points to draw from each range",
    seeds: "seeds that each point is run with",
  };
  const counts = inputs.map(([name, field, problem]) =>
    h(
      "div",
      {},
      h("label", {}, titled(name), field, h("span", { class: "wb-muted" }, HELP[name])),
      problem,
    ),
  );
  const elements = [
    ...(sweeps
      ? [h("p", { class: "wb-muted" }, SEVERAL), h("div", { class: "wb-line-up" }, ...counts)]
      : []),
    h("div", { class: "wb-line-up" }, go, button("Reset all", reset), points),
    whole,
    h("p", { class: "wb-command" }, "The same from the command line: ", command),
  ];
  const update = (now, adopt, trouble) => {
    for (const [name, field, problem] of inputs) {
      if (adopt) put(field, now.counts[name]);
      write(problem, now.problems[name]);
    }
    write(whole, now.problems[""] || trouble);
    go.disabled = !now.ready;
    begun = now.begun;
    const runs =
      now.points === null ? "" : `${count(now.points)} ${now.points === 1 ? "run" : "runs"}; `;
    write(points, `${runs}${now.at_once} go at once, what is more waits for its turn`);
    write(command, now.command);
  };
  return { elements, update };
}

const SEVERAL =
  "A field takes several values, as in 0.01,0.1 or (1, 2),(3, 4); of a range, as in " +
  "0.01..0.1 or log:1e-4..0.1, so many samples are drawn. Each combination is a run.";

/** A run, or a sweep with its table: how it stands, what came out, what can be asked of it. */
function workOf(work, served, ask) {
  const sweeps = work.kind === "sweep";
  const asks = h("span", { class: "wb-asks" }, ...buttonsOf(work, ask, sweeps ? "sweep" : ""));
  if (!sweeps) asks.append(notebookLink(work, served, ask));
  const title = h("span", { class: "wb-id" }, sweeps ? `sweep ${work.id}` : work.id);
  const parts = sweeps ? sweepOf(work, served, ask) : runOf(work);
  const trouble = work.trouble ? [h("p", { class: "wb-note" }, work.trouble)] : [];
  return h(
    "li",
    { class: "wb-work" },
    h("div", { class: "wb-line-up" }, stateOf(work), title, asks),
    ...parts,
    ...trouble,
  );
}

/** What a run was given, how far it is, and what it has recorded. */
function runOf(work) {
  const given = Object.entries(work.given)
    .map(([name, value]) => `${name}=${value}`)
    .join(", ");
  const lines = [given || "all defaults", progressOf(work)].filter(Boolean).join(" · ");
  return [
    ...barOf(work),
    h("p", { class: "wb-muted" }, lines),
    h("p", {}, metricsOf(work.metrics)),
  ];
}

/** How many runs of a sweep stand how, and each of them. */
function sweepOf({ id, state, counts, total, names, metrics, rows, over_seeds: means }, served, ask) {
  const parts = Object.entries(counts)
    .map(([of, n]) => `${count(n)} ${of}`)
    .join(", ");
  const over = total - (counts.queued ?? 0) - (counts.running ?? 0);
  const lines = rows.map((row) => [
    row.id.slice(-4),
    stateOf(row),
    ...row.values,
    ...row.metrics.map(figureOf),
    row.notebook && row.state !== "queued" ? notebookLink(row, served, ask) : "",
  ]);
  const seeds = means
    ? [table("Mean and spread over the seeds", means.columns, means.rows.map((row) => row.map(figureOf)))]
    : [];
  const caption = rows.length < total ? `The first ${rows.length}` : "Each of them";
  return [
    ...barOf({ id, state, over, cells: total }),
    h("p", { class: "wb-muted" }, `${total} runs: ${parts}`),
    scrolled(
      h("div", {}, ...seeds, table(caption, ["run", "state", ...names, ...metrics, "notebook"], lines)),
      `Runs of sweep ${id}`,
    ),
  ];
}
