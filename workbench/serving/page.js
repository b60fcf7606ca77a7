// The form of each model: it is asked as anybody else asks it, with the cookie of the sign-in.
"use strict";

const root = new URL(".", document.baseURI); // of the server, also below a proxy's path
const SHOWN = 10; // classes that get a bar
const pictures = new WeakMap(); // of each form, what was chosen, dropped or pasted

for (const form of document.querySelectorAll("form[data-kind]")) attach(form);
fillAddresses();

function attach(form) {
  const fieldset = form.querySelector("fieldset");
  fieldset.disabled = false;
  if (form.dataset.kind === "image") attachPicture(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = form.nextElementSibling;
    answer.replaceChildren();
    complain(form, "");
    fieldset.disabled = true;
    try {
      answer.append(...told(await ask(form)));
    } catch (error) {
      complain(form, error.message);
    } finally {
      fieldset.disabled = false;
      form.querySelector(".ask").focus({ preventScroll: true });
    }
  });
}

async function ask(form) {
  const [type, body] = sent(form);
  const started = performance.now();
  const headers = { "Content-Type": type };
  const answer = await fetched(form.action, { method: "POST", headers, body });
  const said = await answer.json().catch(() => ({}));
  return { ...said, milliseconds: performance.now() - started };
}

// What the service answers; where it does not, or refuses, an error that says so.
async function fetched(address, options) {
  const answer = await fetch(address, options).catch(() => null);
  if (!answer) throw new Error("The service does not answer: it may have been stopped.");
  if (answer.ok) return answer;
  if (answer.status === 401) throw new Error("The sign-in has ended: reload the page.");
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? `The service answered with status ${answer.status}.`);
}

// What is sent, and the type it is sent as.
function sent(form) {
  const { kind } = form.dataset;
  if (kind === "image") return [pictures.get(form).type, pictures.get(form)];
  if (kind === "text") return ["text/plain; charset=utf-8", form.elements.input.value];
  if (kind === "json") return ["application/json", form.elements.input.value];
  const fields = [...form.querySelectorAll(".fields input")];
  const named = form.querySelector(".fields").dataset.row === "names";
  const row = fields.map((field) => [field.name, field.valueAsNumber]);
  // Written by hand: an object of ours would put a feature named by digits before the others.
  const pairs = row.map(([name, value]) => `${JSON.stringify(name)}: ${value}`);
  return ["application/json", named ? `{${pairs}}` : JSON.stringify(row.map(([, value]) => value))];
}

function attachPicture(form) {
  const chooser = form.querySelector("input[type=file]");
  const drop = form.querySelector(".drop");
  chooser.addEventListener("change", () => chooser.files.length && take(form, chooser.files[0]));
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) take(form, event.dataTransfer.files[0]);
    });
  }
  form.querySelector(".example")?.addEventListener("click", (event) => {
    const data = event.currentTarget.querySelector("img").src.split(",")[1];
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    take(form, new Blob([bytes], { type: "image/png" }));
  });
  // A pasted picture goes to the form in use, else to the first one.
  document.addEventListener("paste", (event) => {
    const forms = [...document.querySelectorAll("form[data-kind=image]")];
    const used = forms.find((other) => other.contains(document.activeElement)) ?? forms[0];
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (used === form && file) take(form, file);
  });
}

function take(form, picture) {
  pictures.set(form, picture);
  form.querySelector("input[type=file]").required = false;
  const preview = form.querySelector(".preview");
  URL.revokeObjectURL(preview.src);
  preview.onload = () => preview.classList.toggle("small", preview.naturalWidth < 128);
  preview.src = URL.createObjectURL(picture);
  preview.hidden = false;
  form.nextElementSibling.replaceChildren();
  complain(form, "");
}

function complain(form, message) {
  const place = form.querySelector(".wrong");
  place.textContent = message;
  place.hidden = !message;
}

// What was answered, as elements; all text of it stays text.
function told({ model, rows, milliseconds, ...notes }) {
  const parts = rows.flatMap((row) => toldRow(row));
  const size = notes.resized_from;
  const noted = size ? `, resized from ${size[1]} × ${size[0]}` : "";
  return [...parts, element("p", "told", `${model} in ${milliseconds.toFixed(0)} ms${noted}`)];
}

function toldRow(row) {
  const parts = [];
  if ("label" in row) parts.push(element("p", "label", String(row.label)));
  else if ("value" in row) parts.push(element("p", "label", String(row.value)));
  if (row.probabilities) parts.push(bars(Object.entries(row.probabilities)));
  const values = Object.values(row);
  if (values.length === 1 && typeof values[0] === "string") return [element("p", "said", values[0])];
  return parts.length ? parts : [element("pre", "", JSON.stringify(row, null, 1))];
}

function bars(classes) {
  const list = element("ol", "bars");
  const ordered = classes.sort(([, one], [, other]) => other - one);
  for (const [name, share] of ordered.slice(0, SHOWN)) {
    const item = element("li");
    const bar = element("span", "bar");
    bar.setAttribute("aria-hidden", "true");
    bar.append(element("span"));
    bar.firstChild.style.width = `${100 * share}%`;
    item.append(element("span", "", name), element("span", "", `${(100 * share).toFixed(1)} %`), bar);
    list.append(item);
  }
  if (ordered.length > SHOWN) {
    list.append(element("li", "told", `and ${ordered.length - SHOWN} more classes`));
  }
  return list;
}

function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

// The commands name this page's own address. Below another path a proxy wants Authorization itself.
function fillAddresses() {
  for (const place of document.querySelectorAll(".address")) {
    const path = place.dataset.path ?? place.textContent;
    place.textContent = new URL(path, root).href.replace(/\/$/, "");
  }
  if (root.pathname === "/") return;
  for (const place of document.querySelectorAll(".header")) place.textContent = "X-Workbench-Token:";
  for (const note of document.querySelectorAll(".proxied")) note.hidden = false;
}
