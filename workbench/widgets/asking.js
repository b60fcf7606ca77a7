/**
 * Asks: what a page wants of the kernel, sent one by one, and again where no answer comes.
 */

const APART = 200; // milliseconds between two asks: a slider that is dragged makes hundreds
const PATIENCE = 1500; // milliseconds, after which a kernel counts as busy
const BUSY = "The kernel is busy with a cell, or gone: if it is gone, run the cell again.";
const STAY = 20_000; // milliseconds between two words of a page that somebody looks at

/**
 * Send asks one by one and not too fast; say so where the kernel does not answer, and ask it again,
 * ever more seldom: what is sent while a page is connecting may never arrive.
 *
 * `ask(name, what, of)`: of what waits, one of the same name gives way to a later one, but where it
 * is `of` something else: to stop one run is not to stop another. `answered()` says by asker the
 * number of the last ask that was done, `settle` takes note of it.
 */
function asker(send, answered, say) {
  const own = Math.random().toString(36).slice(2); // each output of a view counts for itself
  const waiting = new Map(); // what is to be asked next, in this order
  let [sent, busy, last, timer, patience, closed] = [0, false, 0, 0, 0, false];
  const next = () => {
    timer = 0;
    if (busy || !waiting.size) return;
    const wait = last + APART - Date.now();
    if (wait > 0) {
      timer ||= setTimeout(next, wait);
      return;
    }
    const [key, { name, what }] = waiting.entries().next().value;
    waiting.delete(key);
    [busy, last, sent] = [true, Date.now(), sent + 1];
    tell({ ask: name, asker: own, number: sent, ...what }, PATIENCE);
  };
  const tell = (message, long) => {
    try {
      send(message);
    } catch {
      long = PATIENCE; // the kernel was restarted, and knows nothing of this view
    }
    if (closed) return; // the last word of an output that hears no answer any more
    patience = setTimeout(() => {
      if (message.ask !== "stay" || waiting.size) say(BUSY); // nobody waits for the other
      tell(message, 2 * long);
    }, long);
  };
  const ask = (name, what = {}, of = "") => {
    const key = `${name} ${of}`;
    waiting.delete(key); // the last one asked comes last
    waiting.set(key, { name, what });
    next();
  };
  const settle = () => {
    if (!busy || answered()?.[own] !== sent) return;
    busy = false;
    clearTimeout(patience);
    say("");
    next();
  };
  const close = () => {
    closed = true;
    clearTimeout(patience);
  };
  return { ask, settle, close };
}

/** Ask the kernel to go on looking for as long as an element is seen; returns what ends that. */
function staying(root, ask) {
  const stay = () => document.hidden || !root.clientWidth || ask("stay");
  const timer = setInterval(stay, STAY);
  const seen = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && stay());
  seen.observe(root);
  document.addEventListener("visibilitychange", stay);
  return () => {
    clearInterval(timer);
    seen.disconnect();
    document.removeEventListener("visibilitychange", stay);
  };
}
