/**
 * What every face is made of: elements, words and figures, the colours of the page around it.
 *
 * Joined with the files that use it, since a widget is one module and has no build step.
 */

// ---- Words and figures --------------------------------------------------------------------------

const words = (name) => name.replaceAll("_", " ");
const titled = (name) => words(name).replace(/^.{1,3}$|^./, (start) => start.toUpperCase()); // MAE
const count = (value) => Math.round(value).toLocaleString("en-US");

/** A figure in three digits, or in all of more. */
function short(value, digits) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size < 1000 ? Number.isInteger(value) : size < 1e9) return count(value);
  if (size < 1e-3 || size >= 1e9) return value.toExponential(2).replace(/\.?0*e\+?/, "e");
  return digits ? value.toPrecision(digits) : String(Number(value.toPrecision(3)));
}

/** A time: "12 s", "3 min 20 s", "1 h 5 min". */
function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** About `count` round values from low to high (1, 2 or 5 times a power of ten apart), as text. */
function ticks(low, high, count) {
  const power = 10 ** Math.floor(Math.log10((high - low) / count));
  const apart = [1, 2, 5, 10].find((factor) => factor * power >= (high - low) / count) * power;
  const decimals = Math.max(0, -Math.floor(Math.log10(apart) + 1e-9));
  const text = (value) => (decimals > 4 || apart >= 1000 ? short(value) : value.toFixed(decimals));
  const first = Math.ceil(low / apart - 1e-9);
  const length = Math.floor(high / apart + 1e-9) - first + 1;
  return Array.from({ length }, (_, i) => [(first + i) * apart, text((first + i) * apart)]);
}

// ---- Elements -----------------------------------------------------------------------------------

/** An element with attributes and children. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  element.append(...children);
  return element;
}

/** Put a text into an element, if it is another one. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A button that puts a text where it can be pasted from; where it may not, it selects it in `shown`. */
function copier(text, label, shown) {
  const copy = h("button", { type: "button", "aria-label": label }, "Copy");
  copy.addEventListener("click", async () => {
    let done = await navigator.clipboard?.writeText(text).then(() => true, () => false);
    if (!done) {
      select(shown);
      done = document.execCommand("copy"); // where a page is not served safely
    }
    write(copy, done ? "Copied" : "Press Ctrl-C");
    setTimeout(() => write(copy, "Copy"), 2000);
  });
  return copy;
}

/** Select all of a field, or of an element's text. */
function select(shown) {
  if (shown.select) shown.select();
  else getSelection().selectAllChildren(shown);
}

/** A mark in the colour and the look of a curve. */
function swatch(colour, look = "line") {
  const style = `color: var(--wb-c${colour})`;
  return h("span", { class: "wb-swatch", "data-look": look, style });
}

// ---- The page around it -------------------------------------------------------------------------

/** Light or dark as JupyterLab is, elsewhere as the system is; returns what ends it. */
function followTheme(root, redraw) {
  const names = ["data-jp-theme-light", "data-jp-theme-name"];
  const system = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    const light = document.body.dataset.jpThemeLight ?? String(!system.matches);
    root.classList.toggle("wb-dark", light === "false");
    redraw();
  };
  const observer = new MutationObserver(follow);
  observer.observe(document.body, { attributeFilter: names });
  system.addEventListener("change", follow);
  follow();
  return () => {
    observer.disconnect();
    system.removeEventListener("change", follow);
  };
}

/** Keep plain keys from JupyterLab, which takes even a `d` that is pressed on a button. */
function keepKeys(root) {
  root.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
  });
}
