/**
 * The controls of a form: each takes a text, and tells the one that stands in it.
 */

const CONTROLS = {
  check: checkOf,
  choice: choiceOf,
  several: severalOf,
  slider: sliderOf,
  number: numberOf,
  secret: secretOf,
};

/** A field for a text. */
function textOf({ name, control }, tell, id) {
  const element = h("input", {
    type: "text",
    id,
    name,
    placeholder: control.example ?? "",
    spellcheck: "false",
  });
  element.addEventListener("input", () => tell(element.value));
  return { element, set: (text) => put(element, text) };
}

/** A field for a number. */
function numberOf({ name, control }, tell, id) {
  const element = h("input", { type: "number", id, name, step: control.step });
  element.addEventListener("input", () => tell(element.value));
  return { element, set: (text) => put(element, text) };
}

/** A field for what nobody is to read; the kernel keeps it and does not tell it. */
function secretOf({ name }, tell, id) {
  const element = h("input", { type: "password", id, name, autocomplete: "new-password" });
  element.addEventListener("change", () => tell(element.value));
  return {
    element,
    set: (_, kept) => {
      element.placeholder = kept ? "kept in the kernel" : "";
      if (!kept && document.activeElement !== element) element.value = "";
    },
  };
}

/** Yes or no. */
function checkOf({ name, control }, tell, id) {
  const [[no], [yes]] = control.options;
  const element = h("input", { type: "checkbox", id, name });
  element.addEventListener("change", () => tell(element.checked ? yes : no));
  return { element, set: (text) => (element.checked = text === yes) };
}

/** One of some. */
function choiceOf({ name, control }, tell, id) {
  const element = h("select", { id, name });
  element.append(...control.options.map(([text, words_]) => new Option(words_, text)));
  element.addEventListener("change", () => tell(element.value));
  return { element, set: (text) => (element.value = text) };
}

/** Any number of some, each to be tried. */
function severalOf({ name, control }, tell) {
  const boxes = control.options.map(([text, words_]) => {
    const box = h("input", { type: "checkbox", value: text, "aria-label": `${name} ${words_}` });
    box.addEventListener("change", () =>
      tell(
        boxes
          .filter(([other]) => other.checked)
          .map(([other]) => other.value)
          .join(","),
      ),
    );
    return [box, h("label", {}, box, words_)];
  });
  const element = h(
    "span",
    { class: "wb-asks", role: "group", "aria-label": name },
    ...boxes.map(([, label]) => label),
  );
  return {
    element,
    set: (text) => boxes.forEach(([box]) => (box.checked = `,${text},`.includes(`,${box.value},`))),
  };
}

/** A number between two limits: to be dragged, or to be written. */
function sliderOf({ name, control }, tell, id) {
  const { low, high, step, log } = control;
  const ends = log ? { min: 0, max: 100, step: 1 } : { min: low, max: high, step };
  const slider = h("input", { type: "range", "aria-label": `${name}, by dragging`, ...ends });
  const number = h("input", {
    type: "number",
    id,
    name,
    step: Number.isInteger(step) && step === 1 ? 1 : "any",
  });
  const within = (given) => Math.min(Math.max(given, low), high); // it was rounded
  const value = (place) =>
    log ? within(Number((low * (high / low) ** (place / 100)).toPrecision(2))) : Number(place);
  const place = (text) =>
    log ? (100 * Math.log(Number(text) / low)) / Math.log(high / low) : Number(text);
  const stand = (text) => {
    slider.value = place(text);
    slider.setAttribute("aria-valuetext", text); // which on a scale of powers is not its place
  };
  slider.addEventListener("input", () => {
    number.value = value(slider.valueAsNumber);
    slider.setAttribute("aria-valuetext", number.value);
    tell(number.value);
  });
  number.addEventListener("input", () => {
    stand(number.value);
    tell(number.value);
  });
  const set = (text) => {
    put(number, text);
    stand(text);
  };
  return { element: h("span", { class: "wb-asks" }, number, slider), set };
}

/** Put a text into a field, and leave the cursor where it is if it stands there already. */
function put(field, text) {
  if (field.value !== text) field.value = text;
}
