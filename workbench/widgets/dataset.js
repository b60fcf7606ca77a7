/** A dataset to browse in: its rows, the balance of its classes, what is usual, augmentation. */
export default face("dataset", (root, ask) => {
  const head = h("div", { class: "wb-line-up" });
  const [about, parts, found] = [h("p", { class: "wb-muted" }), h("div", {}), h("div", {})];
  const controls = h("div", { class: "wb-line-up" });
  root.append(head, about, parts, controls, found);
  const search = h("input", { type: "search", placeholder: "row, class, or x1 > 1.5" });
  let now = {};
  const choose = (more) => {
    now = { ...now, ...more }; // at once: the next choice may come before the answer to this one
    ask("choose", { split: now.split, of: now.of, search: search.value });
  };
  search.addEventListener("change", () => choose({}));

  return (shown) => {
    const first = now.name === undefined;
    now = shown;
    if (first) {
      head.append(h("b", { class: "wb-title" }, shown.name), h("span", { class: "wb-muted" }, sizes(shown)));
      write(about, shown.card.join(" · "));
    }
    if (document.activeElement !== search) search.value = shown.search;
    keepFocus(root, () => {
      parts.replaceChildren(tabs(shown.tabs, shown.tab, (tab) => ask("open_tab", { tab }), "Parts"));
      controls.replaceChildren(...narrowing(shown, choose, search));
      found.replaceChildren(...PARTS[shown.tab](shown, ask));
    });
  };
});

const PARTS = { rows: rowsOf, balance: balanceOf, statistics: statisticsOf, augmentation: variedOf };

/** How large it is, in words. */
function sizes({ splits, shape, classes, fingerprint }) {
  const rows = splits.map(([name, size]) => `${count(size)} ${name}`).join(", ");
  const kind = classes.length ? `${classes.length} classes` : "regression";
  return `${rows} · rows of ${shape} · ${kind} · ${fingerprint}`;
}

/** What narrows the rows down. */
function narrowing({ tab, splits, split, classes, of }, choose, search) {
  const chosen = choice("Split", splits.map(([name]) => [name, name]), split, (to) => choose({ split: to }));
  if (tab === "balance") return [];
  if (tab === "statistics") return [chosen];
  const all = [["", "all"], ...classes.map((name) => [name, name])];
  const some = classes.length ? [choice("Class", all, of, (to) => choose({ of: to }))] : [];
  return [chosen, ...some, h("label", {}, "Search", search)];
}

/** A page of rows: a grid of images, or a table to read. */
function rowsOf(shown, ask) {
  const { rows, kind, found, page, pages, columns, more_columns: more, alone } = shown;
  const turning = h("div", { class: "wb-line-up wb-pager" },
    ...pager({ page, pages }, (to) => ask("turn", { page: to })),
    h("span", { class: "wb-muted", role: "status" },
      `page ${count(page + 1)} of ${count(pages)} · ${count(found)} rows found`));
  if (!rows.length) return [h("p", { class: "wb-part" }, "No row is like that."), turning];
  const open = (row, content) => {
    const isOpen = alone?.row === row;
    const element = button("", () => ask("open_row", { row: isOpen ? -1 : row }),
      { title: `row ${count(row)}`, "aria-pressed": String(isOpen) });
    element.append(content);
    return element;
  };
  const one = alone ? [aloneOf(shown, ask)] : [];
  if (kind === "image") {
    const images = rows.map((row) => imageOf(row, shown.pixels, open));
    return [h("ul", { class: "wb-images" }, ...images), turning, ...one];
  }
  const lines = rows.map(({ row, label, values }) =>
    [open(row, count(row)), label, ...values.map((v) => short(v ?? NaN, 4))]);
  const caption = more ? `Rows, and the first ${columns.length} of ${columns.length + more} columns` : "Rows";
  return [scrolled(table(caption, ["row", "target", ...columns], lines), "Rows"), turning, ...one];
}

/** One image with what it is; it opens alone. */
function imageOf({ row, label, src }, pixels, open) {
  const image = h("img", { src, alt: `row ${row}: ${label}`, class: lookOf(pixels) });
  return h("li", {}, open(row, image), h("span", {}, label));
}

/** One row alone: large, or with all its columns. */
function aloneOf({ alone, pixels }, ask) {
  const name = `Row ${count(alone.row)}: ${alone.label}`;
  const image = () => h("img", { src: alone.src, alt: name, class: lookOf(pixels) });
  return h("div", { class: "wb-part wb-one" },
    h("p", { class: "wb-line-up" }, h("b", {}, name), button("Close row", () => ask("open_row", { row: -1 }))),
    ...(alone.src ? [image()] : []), ...featuresOf(alone));
}

/** How images are drawn: each pixel is seen, or they are smooth where they were made smaller. */
function lookOf(pixels) {
  return pixels ? "wb-pixels" : "";
}

/** How many rows of each class, or how the targets are distributed, in each split. */
function balanceOf({ classes, counts, edges, splits }) {
  const names = splits.map(([name]) => name);
  if (classes.length) {
    const totals = names.map((name) => counts[name].reduce((sum, n) => sum + n, 0));
    const lines = classes.map((of, i) => [of, ...names.map((name, k) => share(counts[name][i], totals[k]))]);
    return [scrolled(table("Rows of each class", ["class", ...names], lines), "Rows of each class")];
  }
  return names.map((name, i) => histogram(`Targets of ${name}`, edges, { [name]: counts[name] }, "target", i));
}

/** A count and its share, as a figure and as a bar. */
function share(n, total) {
  const bar = h("span", { class: "wb-share", style: `--share: ${total ? n / total : 0}` });
  const text = `${count(n)} (${((100 * n) / (total || 1)).toFixed(1)} %)`;
  return h("span", { class: "wb-shared" }, bar, h("span", {}, text));
}

/** What is usual: mean images and grey levels, or each column's figures and one's histogram. */
function statisticsOf(shown, ask) {
  const { means, edges, counts, table: lines, column, names, more_columns: more } = shown;
  if (means) {
    const look = lookOf(shown.pixels);
    const items = Object.entries(means).map(([name, src]) =>
      h("li", {}, h("img", { src, alt: `mean of ${name}`, class: look }), h("span", {}, name)));
    const [, mean, sd, top] = shown.values;
    const all = shown.classes.length;
    const each = all > shown.told ? `the first ${shown.told} of ${count(all)} classes` : "each class";
    return [
      h("h3", {}, `Mean image of ${each}`), h("ul", { class: "wb-images" }, ...items),
      h("p", {}, `Values: mean ${short(mean)}, standard deviation ${short(sd)}, largest ${short(top)}.`),
      histogram("Values of pixels", edges, counts, "value", 0),
    ];
  }
  const figures = lines.map(([name, ...values]) => [
    button(name, () => ask("examine", { column: name }), { "aria-pressed": String(name === column) }),
    ...values.map((value) => short(value, 4))]);
  const heads = ["column", "mean", "sd", "min", "median", "max"];
  const all = names.length + more;
  const caption = more ? `The first ${names.length} of ${count(all)} columns` : "Columns";
  return [
    more ? columnField(shown, ask)
      : choice("Column", names.map((name) => [name, name]), column, (to) => ask("examine", { column: to })),
    histogram(`Values of ${column}`, edges, counts, column, 0),
    scrolled(table(caption, heads, figures), "Columns"),
  ];
}

/** A column of very many, by its name. */
function columnField({ column }, ask) {
  const field = h("input", { type: "search", value: column });
  field.addEventListener("change", () => ask("examine", { column: field.value }));
  return h("label", {}, "Column", field);
}

/** Bars of one distribution or of some, beneath each other. */
function histogram(title, edges, counts, label, colour) {
  const middles = edges.slice(1).map((edge, i) => (edge + edges[i]) / 2);
  const wide = edges[1] - edges[0];
  const each = Object.entries(counts).map(([of, values], i, all) => {
    const points = middles.map((middle, k) => [middle, values[k]]);
    const text = all.length > 1 ? `${title}, ${of}` : title;
    const picture = plot({
      label: `${text}: most rows at ${short(middles[values.indexOf(Math.max(...values))])}`,
      x: { label, low: edges[0], high: edges.at(-1) }, y: { label: "rows", low: 0 },
      bars: [{ points, width: wide, colour: colour + i }], size: [390, 180],
    });
    return h("figure", {}, h("figcaption", { class: "wb-muted" }, text), picture);
  });
  return h("div", { class: "wb-plots" }, ...each);
}

/** Some images as they are, and as they are seen in five epochs. */
function variedOf({ known, augment, originals, labels, epochs, pixels }, ask) {
  const toggle = (name) => {
    const element = h("input", { type: "checkbox" });
    element.checked = augment.includes(name);
    element.addEventListener("change", () => ask("vary", {
      augment: known.filter((other) => (other === name ? element.checked : augment.includes(other))),
    }));
    return h("label", {}, element, name);
  };
  const image = (src, alt) => h("img", { src, alt, class: lookOf(pixels) });
  const lines = originals.map((src, i) => [
    labels[i], image(src, `${labels[i]} as it is`),
    ...epochs.map((made, e) => image(made[i], `${labels[i]} in epoch ${e + 1}`))]);
  const heads = ["class", "as it is", ...epochs.map((_, e) => `epoch ${e + 1}`)];
  const quoted = augment.map((name) => `"${name}"`).join(", ");
  const code = augment.length === 1 ? quoted : `(${quoted})`;
  return [
    h("div", { class: "wb-line-up", role: "group", "aria-label": "Augmentations" }, ...known.map(toggle),
      h("code", {}, `wb.fit(model, data, augment=${code})`)),
    scrolled(table("What fit sees", heads, lines), "What fit sees"),
  ];
}
