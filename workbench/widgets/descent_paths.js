/**
 * Four kinds of descent on the loss surface of a model with two weights.
 *
 * The same as `descents.py` says in NumPy, so that a page moves without asking the kernel.
 */

const METHODS = ["gradient descent", "SGD", "momentum", "Adam"];
const [BETA, SQUARES, EPSILON] = [0.9, 0.999, 1e-8];
const LOST = 1e6; // a loss above which a path ends

/** What the model of a surface predicts of x. */
function predict({ kind }, a, b, x) {
  return kind === "line" ? a + b * x : b * Math.tanh(a * x);
}

/** The mean squared error of the weights a and b. */
function lossAt(surface, a, b) {
  const { x, y } = surface;
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += (predict(surface, a, b, x[i]) - y[i]) ** 2;
  return sum / x.length;
}

/** The gradient of the loss of some rows, which begin somewhere in an order. */
function gradientAt({ kind, x, y }, a, b, order, from, size) {
  let [first, second] = [0, 0];
  for (let k = from; k < from + size; k++) {
    const i = order[k];
    const bent = kind === "line" ? 0 : Math.tanh(a * x[i]);
    const wrong = (kind === "line" ? a + b * x[i] : b * bent) - y[i];
    first += kind === "line" ? wrong : wrong * b * x[i] * (1 - bent * bent);
    second += wrong * (kind === "line" ? x[i] : bent);
  }
  return [(2 * first) / size, (2 * second) / size];
}

/** Uniform numbers of the generator Mulberry32. */
function mulberry(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const orders = new Map();

/** The rows in the order of an epoch: shuffled by Fisher and Yates. */
function orderOf(count, epoch) {
  const key = `${count} ${epoch}`;
  if (!orders.has(key)) {
    const [rows, draw] = [Array.from({ length: count }, (_, i) => i), mulberry(epoch)];
    for (let last = count - 1; last > 0; last--) {
      const other = Math.floor(draw() * (last + 1));
      [rows[last], rows[other]] = [rows[other], rows[last]];
    }
    orders.set(key, rows);
  }
  return orders.get(key);
}

/** The path of one method, which grows step by step. */
class Path {
  constructor(method, surface, { start, rate, batch, uphill }) {
    Object.assign(this, { method, surface, batch, shift: uphill ? rate : -rate });
    this.memory = [0, 0, 0, 0]; // momentum or means, then the means of squares
    this.places = [start];
    this.losses = [lossAt(surface, ...start)];
  }

  get steps() {
    return this.places.length - 1;
  }

  get isLost() {
    return !(this.losses.at(-1) <= LOST);
  }

  /** Take steps until there are so many, or the path is lost. */
  goTo(steps) {
    while (this.steps < steps && !this.isLost) {
      const [a, b] = this.places.at(-1);
      const [p, q] = this.direction(this.gradient(a, b), this.steps + 1);
      this.places.push([a + this.shift * p, b + this.shift * q]);
      this.losses.push(lossAt(this.surface, ...this.places.at(-1)));
    }
  }

  /** The gradient of the next step's rows: of all, or of a batch. */
  gradient(a, b) {
    const count = this.surface.x.length;
    if (this.method === "gradient descent") return gradientAt(this.surface, a, b, rowsOf(count), 0, count);
    const each = Math.ceil(count / this.batch);
    const from = (this.steps % each) * this.batch;
    const order = orderOf(count, Math.floor(this.steps / each));
    return gradientAt(this.surface, a, b, order, from, Math.min(this.batch, count - from));
  }

  /** What the learning rate is multiplied with. */
  direction(gradient, step) {
    const { memory, method } = this;
    if (method === "momentum") return gradient.map((g, i) => (memory[i] = BETA * memory[i] + g));
    if (method !== "Adam") return gradient;
    return gradient.map((g, i) => {
      memory[i] = BETA * memory[i] + (1 - BETA) * g;
      memory[i + 2] = SQUARES * memory[i + 2] + (1 - SQUARES) * g * g;
      const square = memory[i + 2] / (1 - SQUARES ** step);
      return memory[i] / (1 - BETA ** step) / (Math.sqrt(square) + EPSILON);
    });
  }
}

/** All rows as they stand. */
function rowsOf(count) {
  return Array.from({ length: count }, (_, i) => i);
}

/** What has become of a path, in words; nothing where it simply goes on. */
function fateOf(path, { rate, batch, uphill }) {
  const { surface, losses, places, steps, method } = path;
  if (path.isLost) return `diverged at step ${count(steps)}: ${causeOf(method, surface, rate, batch, uphill)}`;
  if (steps && places.at(-1).every((value, i) => value === places.at(-2)[i])) return "stands still";
  if (uphill && losses.at(-1) > losses[0]) return "climbs: the sign is wrong";
  const [a, b] = places.at(-1);
  const { low, high } = surface;
  return a < low[0] || a > high[0] || b < low[1] || b > high[1] ? "outside the picture" : "";
}

/** Why a path is lost: the sign, or a learning rate above what the steepest place allows. */
function causeOf(method, { limits }, rate, batch, uphill) {
  if (uphill) return "the sign is wrong";
  const whole = method === "gradient descent" || batch === limits.length;
  const [factor, words_] = method === "momentum" ? [1 + BETA, "2(1+β)/λmax"] : [1, "2/λmax"];
  const limit = factor * (whole ? limits.at(-1) : limits[batch - 1]);
  if (method === "Adam" || !(rate > limit)) return `α = ${short(rate)} is too large here`;
  return `α above ${words_} = ${short(limit)}${whole ? "" : " of the steepest batch"}`;
}
