/** Home: the notebooks of the path as cards, and what was run, published and serves. */
export default face("home", (root, ask, model) => {
  const parts = {
    folder: h("p", { class: "wb-muted" }), cards: h("ul", { class: "wb-home-cards" }),
    runs: h("div", {}), models: h("div", {}), services: h("div", {}), problem: h("div", {}),
    panel: h("div", { class: "wb-home-panel" }),
  };
  const part = (title, inner) =>
    h("section", { class: "wb-part", "aria-label": title }, h("h3", {}, title), inner);
  root.append(
    h("div", { class: "wb-line-up" }, h("h2", { class: "wb-title" }, "Workbench"), parts.folder), parts.cards,
    h("div", { class: "wb-home-lists" }, part("Recent runs", parts.runs), part("Models", parts.models),
      part("Services", parts.services)), parts.panel, parts.problem);
  const leave = staying(root, ask);
  const panel = openPanel(parts.panel, model, () => ask("close_panel"));
  let cards = null;
  return {
    draw(shown) {
      if (cards !== model.get("path")) {
        cards = model.get("path");
        keepFocus(parts.cards, () => parts.cards.replaceChildren(...cardsOf(cards, shown.served, ask)));
      }
      panel.show(model.get("panel"));
      write(parts.folder, shown.folder);
      for (const [name, list] of Object.entries(LISTS)) {
        if (parts[name].told === JSON.stringify([shown[name], minute()])) continue;
        parts[name].told = JSON.stringify([shown[name], minute()]);
        keepFocus(parts[name], () => parts[name].replaceChildren(...list(shown, ask)));
      }
      parts.problem.replaceChildren(...shown.problems.map((text) => h("p", { class: "wb-note" }, text)));
    },
    close() {
      leave();
      panel.show("");
    },
  };
});

/** A place for another view, with a button that closes it. */
function openPanel(place, model, leave) {
  let [shown, view] = ["", null];
  const show = async (id) => {
    if (shown === id) return;
    shown = id;
    view?.remove(); // which ends what it asks
    view = null;
    keepFocus(place, () => place.replaceChildren());
    if (!id) return;
    const manager = model.widget_manager;
    const made = await manager.create_view(await manager.get_model(id));
    if (shown !== id) return made.remove(); // another one was opened meanwhile
    view = made;
    place.replaceChildren(button("Close the panel", leave), view.el);
    place.scrollIntoView({ block: "nearest" });
  };
  return { show };
}

const LISTS = { runs: runsOf, models: modelsOf, services: servicesOf };

/** The minute it is: what says how long ago something was is written anew each. */
const minute = () => Math.floor(Date.now() / 60_000);

/** A card for each notebook, or what to do where there is none. */
function cardsOf(cards, served, ask) {
  if (!cards.length) return [h("li", { class: "wb-muted" }, "No notebook is in this folder yet.")];
  return cards.map(({ file, path, title, about, minutes, result, src, alt }) => {
    const link = h("a", { class: "wb-home-card", ...opening(path, served) });
    if (src) link.append(h("img", { src, alt }));
    link.append(h("b", {}, title));
    if (minutes) link.append(h("span", { class: "wb-home-minutes" }, `${minutes} min`));
    const texts = [about && h("p", { title: about }, about), result && h("p", { class: "wb-home-result" }, result)];
    const run = button("Run…", () => ask("set_up", { file }, file), { "aria-label": `Run ${title}` });
    return h("li", {}, link, ...texts.filter(Boolean), h("p", { class: "wb-home-run" }, run));
  });
}

/** The last runs: the notebook, how it stands, since when, and its figures. */
function runsOf({ runs, all_runs: all }, ask) {
  if (!runs.length) return [empty("Nothing was run yet:", "workbench run NOTEBOOK")];
  const rows = runs.map(({ id, notebook, state, began, seconds, figures }) => [
    button(notebook, () => ask("open_runs", { run: id }), { title: id, "aria-label": `Open run ${id}` }), h("span", { class: "wb-state", "data-state": state }, state),
    ago(began), seconds === null ? "" : duration(seconds), figuresOf(figures)]);
  const found = scrolled(table("Recent runs", ["notebook", "state", "begun", "took", "figures"], rows), "Recent runs");
  return [found, button(`All ${count(all)} runs`, () => ask("open_runs"))];
}

/** Models by name: which version is champion, how many there are. */
function modelsOf({ models }, ask) {
  if (!models.length) return [empty("Nothing was published yet:", 'wb.publish(model, "name")')];
  const rows = models.map(({ name, versions, champion, newest, created, figures }) => [
    name, button("Serve", () => ask("serve", { model: name }, name), { "aria-label": `Serve ${name}` }),
    champion ? `@${champion}` : "none", `@${newest}`, count(versions), ago(created), figuresOf(figures)]);
  const heads = ["model", "serve", "champion", "newest", "versions", "published", "figures"];
  return [scrolled(table("Models", heads, rows), "Models")];
}

/** What answers, and where. */
function servicesOf({ services }, ask) {
  if (!services.length) return [empty("No service runs:", "workbench serve NAME")];
  const address = (url) => h("a", { href: url, target: "_blank", rel: "noopener" }, url);
  const watch = (name) =>
    button("Watch", () => ask("watch", { service: name }), { "aria-label": `Watch ${name}` });
  const rows = services.map(({ name, url, model }) => [name, watch(name), address(url), model]);
  return [scrolled(table("Services", ["service", "panel", "address", "answers with"], rows), "Services")];
}

/** What to do where there is nothing to list. */
function empty(text, code) {
  return h("p", { class: "wb-muted" }, `${text} `, h("code", {}, code));
}

/** Figures in a line. */
function figuresOf(figures) {
  return figures.map(([name, value]) => `${words(name)} ${short(value)}`).join(", ");
}

/** How long ago a moment was. */
function ago(moment) {
  const seconds = (Date.now() - Date.parse(moment)) / 1000;
  if (!Number.isFinite(seconds)) return "";
  const steps = [[60, "now"], [3600, "min", 60], [86_400, "h", 3600], [Infinity, "days", 86_400]];
  const [, unit, one] = steps.find(([end]) => seconds < end);
  const number = Math.floor(seconds / (one ?? 1));
  const text = one ? `${count(number)} ${number === 1 && unit === "days" ? "day" : unit} ago` : "just now";
  return h("time", { datetime: moment, title: new Date(moment).toLocaleString() }, text);
}
