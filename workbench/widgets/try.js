/** A model to play with: an image is drawn or dropped, numbers are moved, and what it says. */
export default face("try", (root, ask, model) => {
  const given = model.get("given");
  const ways = h("p", { class: "wb-muted" }, titled(given.way));
  const parts = ["wb-input", "wb-seen", "wb-answer"];
  const [input, seen, answer] = parts.map((part) => h("div", { class: part }));
  root.append(
    h("div", { class: "wb-line-up" }, h("b", { class: "wb-title" }, given.name), ways),
    h("div", { class: `wb-trial wb-of-${given.kind}` }, input, seen, answer));
  const open = given.kind === "image" ? imageInput : given.sliders ? sliders : textInput;
  const show = open(input, given, ask);
  const draw = answers(answer);
  let turn = -1;

  return (shown) => {
    // What a hand moves stays as it was moved: the kernel's word comes later than the next move.
    const anew = shown.turn !== turn;
    if (anew || !root.contains(document.activeElement)) show(shown, anew);
    turn = shown.turn;
    if (given.kind === "image") {
      seenBy(seen, given, shown);
      show.complain(model.get("problem"));
    }
    draw(shown);
  };
});

// ---- Images -------------------------------------------------------------------------------------

/** Something to draw on where images are grey, a place for files, and examples to begin with. */
function imageInput(place, given, ask) {
  const pad = given.draws ? drawingPad(given, ask) : null;
  const problem = h("p", { class: "wb-problem", role: "alert" });
  const take = (file) => sendFile(file, given.most, problem, ask);
  const chooser = h("input", { type: "file", accept: "image/png,image/jpeg", class: "wb-file" });
  chooser.addEventListener("change", () => {
    if (chooser.files.length) take(chooser.files[0]);
    chooser.value = ""; // the same one may be chosen again; what is seen bears its name
  });
  const drop = h("div", { class: "wb-drop" },
    ...(pad ? [pad.element] : []),
    h("label", { class: "wb-upload" }, "A PNG or JPEG, which may be dropped here", chooser),
    problem);
  for (const name of ["dragover", "dragleave", "drop"])
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      event.stopPropagation(); // JupyterLab would take it for a file to be opened
      drop.classList.toggle("wb-over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
    });
  place.append(drop, examplesOf(given, ask));
  const show = (shown, anew) => {
    if (anew) pad?.load(shown.seen, shown.turn > 1);
  };
  let told = "";
  const complain = (text) => { // of the kernel; what the page itself has found stays until then
    if (text !== told) write(problem, text);
    told = text;
  };
  return Object.assign(show, { complain });
}

/** Read a file and ask about it, unless it is too large to be sent. */
function sendFile(file, most, problem, ask) {
  const size = (file.size / 2 ** 20).toFixed(1);
  write(problem, file.size > most
    ? `${file.name} has ${size} MiB, expected at most ${most / 2 ** 20}: make it smaller.` : "");
  if (file.size > most) return;
  const reader = new FileReader();
  reader.onload = () => ask("upload", { file: file.name, content: reader.result.split(",")[1] });
  reader.readAsDataURL(file);
}

/** Examples as they are, each a button that asks about it. */
function examplesOf({ thumbs }, ask) {
  const items = thumbs.map((src, i) => {
    const label = `Example ${i + 1}`;
    const named = { "aria-label": label, title: label };
    const one = button("", () => ask("pick", { example: i }), named);
    one.append(h("img", { src, alt: "", class: "wb-pixels" }));
    return h("li", {}, one);
  });
  return h("ul", { class: "wb-thumbs", "aria-label": "Examples" }, ...items);
}

const HOW = "Draw with the mouse, a finger or a pen. By keyboard: arrow keys move the pen, the " +
  "space bar puts it down or lifts it, and Delete clears.";

/** A canvas to draw on by mouse, touch, pen or keyboard, asked about as the drawing grows. */
function drawingPad({ canvas: size, dark }, ask) {
  const canvas = h("canvas", {
    width: size, height: size, tabindex: "0", role: "application", "aria-label": `Drawing. ${HOW}`,
  });
  const nib = h("span", { class: "wb-nib", hidden: "" });
  const fit = h("input", { type: "checkbox" });
  fit.checked = true;
  const paper = penOn(canvas, dark);
  let [waiting, chosen] = [0, true];
  const send = () => { // not for each of a hundred moves a second
    waiting = 0;
    ask("draw_on", { canvas: canvas.toDataURL("image/png").split(",")[1], fit: fit.checked });
  };
  const later = () => { waiting ||= setTimeout(send, 80); };
  const wipe = () => {
    chosen = fit.checked = true;
    paper.clear();
  };
  const clear = () => {
    wipe();
    clearTimeout(waiting);
    waiting = 0;
    ask("clear");
  };
  const stroke = (from, to) => {
    if (!chosen) wipe(); // what nobody has chosen gives way to the first stroke
    paper.stroke(from, to);
  };
  const pen = { stroke, clear };
  byHand(canvas, pen, later);
  byKeys(canvas, nib, pen, later);
  fit.addEventListener("change", later);
  const element = h("div", {},
    h("div", { class: "wb-pad", title: HOW }, canvas, nib),
    h("div", { class: "wb-line-up" }, button("Clear", clear), h("label", {}, fit, "scale and centre")));
  const load = (src, wasChosen) => { // what is not drawn lies there to be drawn on, as it is
    paper.clear();
    [fit.checked, chosen] = [!src, wasChosen];
    if (src) paper.put(src);
  };
  paper.clear();
  return { element, load };
}

/** What leaves strokes on a canvas, light on dark or the other way round. */
function penOn(canvas, dark) {
  const paper = canvas.getContext("2d");
  const [width, size] = [canvas.width / 11, canvas.width];
  const clear = () => {
    paper.fillStyle = dark ? "#000" : "#fff";
    paper.fillRect(0, 0, size, size);
  };
  const stroke = ([x, y], [u, v]) => {
    const strokeStyle = dark ? "#fff" : "#000";
    Object.assign(paper, { lineWidth: width, lineCap: "round", strokeStyle });
    paper.beginPath();
    paper.moveTo(x, y);
    paper.lineTo(u, v);
    paper.stroke();
  };
  const put = (src) => {
    const image = new Image();
    image.onload = () => {
      paper.imageSmoothingEnabled = false;
      paper.drawImage(image, 0, 0, size, size);
    };
    image.src = src;
  };
  return { clear, stroke, put };
}

/** Strokes where a pointer is pressed and moves. */
function byHand(canvas, pen, changed) {
  let last = null;
  const at = (event) => {
    const { left, top, width } = canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top].map((to) => (to * canvas.width) / width);
  };
  const draw = (event) => {
    if (!last) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const move of moves.length ? moves : [event]) {
      pen.stroke(last, at(move));
      last = at(move);
    }
    changed();
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    draw(event);
  });
  canvas.addEventListener("pointermove", draw);
  const lift = () => { last = null; };
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, lift);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Strokes by the arrow keys, while the space bar has put the pen down. */
function byKeys(canvas, nib, pen, changed) {
  const size = canvas.width;
  let [spot, down] = [[size / 2, size / 4], false];
  const show = () => {
    nib.hidden = document.activeElement !== canvas || !canvas.matches(":focus-visible");
    nib.dataset.down = String(down);
    nib.style.left = `${(100 * spot[0]) / size}%`;
    nib.style.top = `${(100 * spot[1]) / size}%`;
  };
  const to = (next) => {
    if (down) pen.stroke(spot, next);
    if (down) changed();
    spot = next;
  };
  canvas.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    const press = () => { down = !down; to(spot); };
    const other = { " ": press, Delete: pen.clear, Backspace: pen.clear }[event.key];
    if (!arrow && !other) return;
    event.preventDefault();
    if (arrow) to(spot.map((x, i) => Math.min(size, Math.max(0, x + (arrow[i] * size) / 20))));
    else other();
    show();
  });
  const lift = () => { down = false; show(); };
  for (const name of ["focus", "blur"]) canvas.addEventListener(name, lift);
}

/** What the model sees, enlarged, and what it is made of. */
function seenBy(place, { shape }, { seen, origin }) {
  const size = `${shape[1]} × ${shape[0]}`;
  const alt = `What the model sees: ${origin}`;
  const image = seen ? [h("img", { src: seen, alt, class: "wb-pixels" })] : [];
  place.replaceChildren(h("h3", {}, `What it sees, ${size}`), ...image,
    h("p", { class: "wb-muted" }, origin || "nothing yet: draw, or take an example"));
}

// ---- Numbers ------------------------------------------------------------------------------------

/** A slider and a field for each number. */
function sliders(place, { features, ranges, examples }, ask) {
  const fields = [];
  const valueOf = ({ field: { valueAsNumber: value } }) => (Number.isFinite(value) ? value : null);
  const moved = () => ask("move", { values: fields.map(valueOf) });
  const rows = features.map((name, i) => {
    const field = h("input", { type: "number", step: "any", "aria-label": name });
    const [low, high, step] = ranges[i] ?? [];
    const label = `${name}, slider`;
    const range = { type: "range", min: low, max: high, step, "aria-label": label };
    const slider = ranges[i] && h("input", range);
    field.addEventListener("input", () => { if (slider) slider.value = field.value; moved(); });
    slider?.addEventListener("input", () => { field.value = slider.value; moved(); });
    fields.push({ field, slider });
    const title = slider ? `${name}: ${short(low)} to ${short(high)} in rows that it knows` : name;
    const feature = h("span", { class: "wb-feature", title }, name);
    return h("div", { class: "wb-slide" }, feature, slider ?? h("span", {}), field);
  });
  const all = h("div", { class: "wb-sliders", role: "group", "aria-label": "Numbers" }, ...rows);
  place.append(examplePicker(examples, ask), all);
  return ({ values }) => fields.forEach(({ field, slider }, i) => {
    field.value = values[i];
    if (slider) slider.value = values[i];
  });
}

/** Many numbers as a text. */
function textInput(place, { shape, examples }, ask) {
  const area = h("textarea", { rows: "8", spellcheck: "false" });
  area.addEventListener("change", () => ask("fill", { text: area.value }));
  const told = `${count(shape[0])} numbers, apart by commas or blanks`;
  const send = button("Ask", () => ask("fill", { text: area.value }));
  const label = h("label", { class: "wb-text" }, told, area);
  place.append(examplePicker(examples, ask), label, h("div", {}, send));
  return ({ values }) => { area.value = values.join(", "); };
}

/** A choice of rows that the model knows. */
function examplePicker(examples, ask) {
  if (!examples) return h("span", {});
  const names = Array.from({ length: examples }, (_, i) => `Example ${i + 1}`);
  const buttons = names.map((name, i) =>
    button(String(i + 1), () => ask("pick", { example: i }), { "aria-label": name }));
  return h("div", { class: "wb-line-up wb-picker", role: "group", "aria-label": "Examples" },
    h("span", { class: "wb-muted" }, "Examples"), ...buttons);
}

// ---- Answers ------------------------------------------------------------------------------------

/** What was said: the likeliest class and a bar for each, or values; who said so, and how fast. */
function answers(place) {
  const label = h("p", { class: "wb-label", role: "status" });
  const [list, told] = [h("ol", { class: "wb-bars" }), h("p", { class: "wb-muted" })];
  place.append(h("h3", {}, "What it says"), label, list, told);
  return ({ answer, learns }) => {
    place.classList.toggle("wb-nothing", !answer);
    if (!answer) return;
    const { bars, values, more, who, ms } = answer;
    write(label, bars ? answer.label : values.slice(0, 1).map(figure).join());
    const rest = more ? [h("li", { class: "wb-muted" }, `and ${count(more)} more`)] : [];
    const lines = bars ? bars.map((bar) => shareOf(bar, answer.label)) : valuesOf(values);
    list.replaceChildren(...lines, ...rest);
    write(told, `${who}, in ${short(ms)} ms${learns ? ", and learns on" : ""}`);
  };
}

/** One class: its name, its probability in words and as a bar. */
function shareOf([name, share], label) {
  const wide = h("span", { class: "wb-wide", style: `--share: ${share ?? 0}` });
  const said = share === null ? "no number" : `${(100 * share).toFixed(1)} %`;
  const best = name === label ? { class: "wb-best" } : {};
  const parts = [h("span", { class: "wb-of", title: name }, name), wide];
  return h("li", best, ...parts, h("span", { class: "wb-said" }, said));
}

/** Several values, numbered; a single one stands above. */
function valuesOf(values) {
  if (values.length < 2) return [];
  const line = (value, i) => [String(i + 1), "", figure(value)].map((text) => h("span", {}, text));
  return values.map((value, i) => h("li", {}, ...line(value, i)));
}

const figure = (value) => (value === null ? "no number" : short(value, 5));
