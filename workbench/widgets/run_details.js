/**
 * One run: how it stands, what can be asked of it, its figures, its report.
 */

/** One run: how it stands, what can be asked of it, all that it was given and has recorded. */
function openRun(root, body, ask) {
  const part = () => h("div", {});
  const [line, asks, facts, verdict, promotion, page] = Array.from({ length: 6 }, part);
  body.append(line, asks, verdict, promotion, facts, page);
  const fillLine = filler(root, line, (told) => standingOf(told));
  const fillAsks = filler(root, asks, ([told, served, folder, again]) =>
    asksOf(told, served, folder, again, ask),
  );
  const fillFacts = filler(root, facts, (told) => factsOf(told));
  const fillVerdict = filler(root, verdict, ([told, again, trouble]) =>
    verdictOf(told, again, trouble),
  );
  const fillPromotion = filler(root, promotion, ([published, aliases, note]) =>
    promotionOf(published, aliases, note, ask),
  );
  const fillPage = filler(root, page, (text) => (text ? reportOf(text, ask) : []));
  return {
    update: ({ part: told, served }, report) => {
      const is = Boolean(told.line);
      [asks, facts, verdict, promotion].forEach((element) => (element.hidden = !is));
      fillPage(is ? report : "");
      fillLine(told.line ?? null);
      if (!is) return;
      fillAsks([told.line, served, told.folder, told.again]);
      fillFacts([told.source, told.is_behind, told.parameters, told.metrics, told.folder, served]);
      fillVerdict([told.verification, told.again, told.trouble]);
      fillPromotion([told.published, told.aliases, told.note]);
    },
  };
}

/** How a run stands, in some lines. */
function standingOf(told) {
  if (!told) return [h("p", {}, "Open a run: press its name in the table.")];
  const title = h(
    "div",
    { class: "wb-line-up" },
    stateOf(told),
    h("span", { class: "wb-id" }, told.id),
  );
  const trouble = told.trouble ? [h("p", { class: "wb-note" }, told.trouble)] : [];
  return [title, ...barOf(told), h("p", { class: "wb-muted" }, progressOf(told)), ...trouble];
}

/** What can be asked of a run. */
function asksOf(told, served, folder, again, ask) {
  const verify = button("Verify", () => ask("verify", { run: told.id }, told.id));
  const report = button("Show report", () => ask("show_report", { run: told.id }));
  return [
    h(
      "div",
      { class: "wb-line-up wb-asked" },
      notebookLink(told, served, ask),
      report,
      again.going
        ? button("Stop verifying", () => ask("stop_verification", { run: told.id }, told.id))
        : disabledIf(told.state !== "done", verify),
      ...buttonsOf(told, ask),
      copied(folder, `Copy the folder of ${told.id}`),
    ),
  ];
}

/** What came out when it was run again. */
function verdictOf({ verdict, time, told }, { going, place }, trouble) {
  const lines = told.map((text) => h("li", {}, text));
  const look = { class: "wb-state", "data-state": verdict === "identical" ? "done" : "failed" };
  const when = verdict && ` at ${time.slice(0, 16).replace("T", " ")} UTC`;
  const said = () => h("p", {}, "Verified ", h("span", look, verdict), when);
  const kept = verdict ? [said(), h("ul", { class: "wb-told" }, ...lines)] : [];
  const turn = `Verification waits its turn: ${place}${ordinal(place)} in line`;
  const text = place ? turn : "Being verified: it is run again from the top";
  const now = going ? [h("p", { role: "status" }, text)] : [];
  const wrong = trouble && !going ? [h("p", { class: "wb-note" }, trouble)] : [];
  return [...now, ...wrong, ...kept];
}

/** The versions that it published, and a form that moves an alias to one of them. */
function promotionOf(published, aliases, note, ask) {
  if (!published.length) return [];
  const on = Object.entries(aliases).flatMap(([name, known]) =>
    Object.entries(known).map(([alias, version]) => `${name}@${alias} is ${name}@${version}`),
  );
  let ref = published.at(-1);
  const alias = h("input", { type: "text", value: "champion", size: 14 });
  const why = h("input", { type: "text", placeholder: "better on the hard ones", size: 28 });
  const press = () => ask("promote", { ref, alias: alias.value, why: why.value });
  const others = on.filter((text) => text !== note).join(", ");
  return [
    h(
      "div",
      { class: "wb-line-up wb-asked" },
      choice(
        "Published",
        published.map((one) => [one, one]),
        ref,
        (to) => (ref = to),
      ),
      h("label", {}, "Alias", alias),
      h("label", {}, "Why", why),
      button("Promote", press),
    ),
    h("p", { role: "status" }, note),
    h("p", { class: "wb-muted" }, others || (note ? "" : "no alias yet")),
  ];
}

/** What it was given, and what it has recorded. */
function factsOf([source, behind, parameters, metrics, folder, served]) {
  const given = parameters.map(([name, value, is]) => [name, value, is ? "given" : "default"]);
  const figures = metrics.map(([name, value]) => [name, String(value)]);
  const tables = [
    ...(figures.length ? [table("Metrics", ["name", "value"], figures)] : []),
    ...(given.length ? [table("Parameters", ["name", "value", "from"], given)] : []),
  ];
  return [
    h("p", { class: "wb-muted" }, `of ${source}${behind ? ", which has changed since" : ""}`),
    h("div", { class: "wb-facts" }, ...tables.map((one) => scrolled(one, one.caption.textContent))),
  ];
}

/** The report of a run, in a frame in which nothing runs. */
function reportOf(text, ask) {
  const frame = h("iframe", { sandbox: "", title: "Report of the run", class: "wb-report" });
  frame.srcdoc = text;
  return [button("Close report", () => ask("close_report")), frame];
}
