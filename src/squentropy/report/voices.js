// The report's models: tiktoken's tokenizer, GPT-2 as in lm/model.py, one token at a time, and
// sampling as in sampling/generate.py. ask.js displays the output.
"use strict";

// --- tokens: bytes are stored as characters up to U+00FF, so that a token can be a map's key -------

class Vocabulary {
  constructor(tokens, pattern) {
    this.tokens = tokens;
    this.ranks = new Map(tokens.map((token, rank) => [token, rank]));
    this.endOfText = tokens.length;
    // JavaScript's \s differs slightly from that of Rust and Python.
    const exact = pattern.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}");
    this.words = new RegExp(exact, "gu");
  }

  encode(text) {
    return [...text.matchAll(this.words)].flatMap(([word]) => this.merged(word));
  }

  // Merges the pair with the lowest rank until no pair has a rank.
  merged(word) {
    const parts = Array.from(new TextEncoder().encode(word), (byte) => String.fromCharCode(byte));
    const whole = this.ranks.get(parts.join(""));
    if (whole !== undefined) return [whole];
    for (;;) {
      let [lowest, at] = [Infinity, 0];
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = this.ranks.get(parts[i] + parts[i + 1]) ?? Infinity;
        if (rank < lowest) [lowest, at] = [rank, i];
      }
      if (lowest === Infinity) return parts.map((part) => this.ranks.get(part));
      parts.splice(at, 2, parts[at] + parts[at + 1]);
    }
  }

  bytes(token) {
    return bytesOf(this.tokens[token] ?? ""); // the end-of-text token has none
  }
}

function bytesOf(characters) {
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

// --- the model -----------------------------------------------------------------------------------

function unpackedTensor({ shape: [rows, columns], int8, scales, float32 }) {
  const buffer = (base64) => bytesOf(atob(base64)).buffer;
  if (float32) return new Float32Array(buffer(float32));
  return { rows, columns, values: new Int8Array(buffer(int8)), scales: new Float32Array(buffer(scales)) };
}

class Model {
  constructor({ config, tensors }) {
    this.config = config;
    this.tensors = Object.fromEntries(
      Object.entries(tensors).map(([name, packed]) => [name, unpackedTensor(packed)]));
    const alibi = config.positions === "alibi";
    this.slopes = Array.from({ length: config.n_head }, (_, head) =>
      alibi ? 2 ** (-8 * (head + 1) / config.n_head) : 0);
    const cache = () => new Float32Array(config.block_size * config.n_embd);
    this.keys = Array.from({ length: config.n_layer }, cache);
    this.values = Array.from({ length: config.n_layer }, cache);
    this.forget();
  }

  forget() { this.length = 0; }

  // The last hidden state after one more token.
  read(token) {
    const x = this.row("wte.weight", token);
    if (this.tensors["wpe.weight"]) add(x, this.row("wpe.weight", this.length));
    for (let layer = 0; layer < this.config.n_layer; layer++) {
      const at = `h.${layer}`;
      add(x, this.attended(layer, this.linear(`${at}.attn.c_attn`, this.normed(`${at}.ln_1`, x))));
      const inner = this.linear(`${at}.mlp.c_fc`, this.normed(`${at}.ln_2`, x)).map(gelu);
      add(x, this.linear(`${at}.mlp.c_proj`, inner));
    }
    this.length++;
    return this.normed("ln_f", x);
  }

  logits(hidden) { return this.linear("wte", hidden); }

  row(name, row) {
    const { columns, values, scales } = this.tensors[name];
    const taken = values.subarray(row * columns, (row + 1) * columns);
    return Float32Array.from(taken, (value) => value * scales[row]);
  }

  linear(name, x) {
    const { rows, columns, values, scales } = this.tensors[`${name}.weight`];
    const y = new Float32Array(rows);
    for (let row = 0, at = 0; row < rows; row++) {
      let sum = 0;
      for (let column = 0; column < columns; column++) sum += values[at++] * x[column];
      y[row] = sum * scales[row];
    }
    return add(y, this.tensors[`${name}.bias`]);
  }

  normed(name, x) {
    const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
    const weight = this.tensors[`${name}.weight`];
    const y = x.map((value, i) => (value - mean) / Math.sqrt(variance + 1e-5) * weight[i]);
    return add(y, this.tensors[`${name}.bias`]);
  }

  // A layer's attention output for one token, from its queries, keys and values.
  attended(layer, qkv) {
    const { n_embd: width, n_head: heads } = this.config;
    const [keys, values, last, size] = [this.keys[layer], this.values[layer], this.length, width / heads];
    keys.set(qkv.subarray(width, 2 * width), last * width);
    values.set(qkv.subarray(2 * width), last * width);
    const mixed = new Float32Array(width);
    for (let head = 0, from = 0; head < heads; head++, from += size) {
      const scores = new Float32Array(last + 1);
      for (let t = 0; t <= last; t++) {
        let score = 0;
        for (let i = from; i < from + size; i++) score += qkv[i] * keys[t * width + i];
        scores[t] = score / Math.sqrt(size) - this.slopes[head] * (last - t);
      }
      const shares = softmax(scores, 1);
      for (let t = 0; t <= last; t++)
        for (let i = from; i < from + size; i++) mixed[i] += shares[t] * values[t * width + i];
    }
    return this.linear(`h.${layer}.attn.c_proj`, mixed);
  }
}

function add(x, y) {
  if (y) for (let i = 0; i < x.length; i++) x[i] += y[i];
  return x;
}

function softmax(logits, temperature) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const shares = Float64Array.from(logits, (logit) => Math.exp((logit - top) / temperature));
  const total = shares.reduce((sum, share) => sum + share, 0);
  return shares.map((share) => share / total);
}

// With the error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
function gelu(x) {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * z);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741
    + t * (-1.453152027 + t * 1.061405429))));
  return 0.5 * x * (1 + Math.sign(x) * (1 - series * Math.exp(-z * z)));
}

// --- stories -------------------------------------------------------------------------------------

// Continues a prompt; yields null after each token that the model reads, and each sampled token with
// the logits that it was drawn from.
function* telling(model, prompt, endOfText, { temperature, top_k, max_tokens, draw }) {
  const block = model.config.block_size;
  const story = [endOfText, ...prompt];
  let step = story.slice(-block);
  model.forget();
  for (let left = max_tokens; left > 0; left--) {
    if (model.length === block) { // slide the window by half a block
      step = story.slice(-Math.floor(block / 2));
      model.forget();
    }
    let hidden;
    for (const token of step) {
      hidden = model.read(token);
      yield null;
    }
    const logits = model.logits(hidden);
    const token = chosen(logits, temperature, top_k, draw);
    yield { token, logits };
    if (token === endOfText) return;
    story.push(token);
    step = [token];
  }
}

// Reads a whole story; yields each token with the logits that predict it.
function* reading(model, story, endOfText) {
  model.forget();
  let hidden = model.read(endOfText);
  for (const token of story) {
    yield { token, logits: model.logits(hidden) };
    if (token !== endOfText) hidden = model.read(token);
  }
}

// Inverts the cumulative distribution at a uniform draw; keeps ties with the last of the top k.
function chosen(logits, temperature, top_k, draw) {
  if (temperature === 0) return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  const floor = top_k > 0 && top_k < logits.length ? logits.toSorted().at(-top_k) : -Infinity;
  const shares = softmax(logits.map((logit) => (logit < floor ? -Infinity : logit)), temperature);
  let sum = 0;
  const cumulative = shares.map((share) => (sum += share));
  const at = draw() * sum;
  return cumulative.findIndex((value) => value > at);
}

// Seeded uniform random numbers (mulberry32).
function drawing(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

// A token's probability, and the five most likely tokens with theirs.
function judged({ token, logits }, temperature) {
  const shares = softmax(logits, temperature);
  const fifth = shares.toSorted().at(-5);
  const likeliest = [...shares.keys()].filter((each) => shares[each] >= fifth)
    .sort((a, b) => shares[b] - shares[a]).slice(0, 5).map((each) => [each, shares[each]]);
  return { token, share: shares[token], likeliest };
}
