// The section "Ask the models": the reader begins a story, and every loss continues it. The models
// run in voices.js; `make` comes from report.js. All text is inserted as text, never as HTML.
"use strict";

const SLICE = 12; // milliseconds of work before yielding to the page

// As markup.visible: characters that could hide or reorder text are shown as visible signs.
function visible(text) {
  return text.replace(/(?![\t\n\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");
}

function percent(share) {
  return share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

// The output of one loss; a token is inspected by pointing at it or with the slider.
class Place {
  constructor(section, temperature) {
    const [text, shown, source] = section.querySelectorAll("p");
    const [story, note, panel, slider, list] = [".story", "footer", ".token", "input", "ol"].map(
      (what) => section.querySelector(what));
    Object.assign(this, { section, temperature, text, shown, source, story, note, panel, slider, list });
    slider.addEventListener("input", () => this.look(slider.valueAsNumber - 1));
    text.addEventListener("pointerover", ({ target }) => {
      const at = [...text.children].indexOf(target) - 1;
      if (at >= 0) this.look(at);
    });
  }

  // `exact`: for each next token, its probability under the grammar and the most likely tokens.
  begin(vocabulary, prompt, exact = []) {
    Object.assign(this, { vocabulary, exact, judged: [], utf8: new TextDecoder("utf-8", { ignoreBOM: true }) });
    this.text.replaceChildren(make("b", { textContent: visible(prompt) }));
    this.note.textContent = "";
    this.story.ariaBusy = "true"; // otherwise screen readers announce every token
    this.panel.hidden = true;
    this.section.hidden = false;
  }

  hear(drawn) {
    this.judged.push(judged(drawn, this.temperature));
    // A character appears once its last byte is known.
    const text = this.utf8.decode(this.vocabulary.bytes(drawn.token), { stream: true });
    this.text.append(make("span", { textContent: visible(text) }));
    this.slider.max = this.judged.length;
    if (this.judged.length === 1) this.look(0);
  }

  end(how) {
    this.text.append(this.utf8.decode());
    this.story.ariaBusy = null;
    const ended = this.judged.at(-1)?.token === this.vocabulary.endOfText;
    const whole = this.exact.length ? "read to the end" : "ended by itself";
    this.note.textContent = `${this.judged.length - ended} tokens, ${ended ? whole : how}`;
  }

  look(at) {
    const { token, share, likeliest } = this.judged[at];
    const drawn = this.named([token, share]);
    const others = likeliest.map((each) => this.named(each));
    const exact = this.exact[at] ? this.exactly(token, ...this.exact[at]) : "";
    this.panel.hidden = false;
    this.slider.value = at + 1;
    this.slider.ariaValueText = `${drawn}; likeliest: ${others.join(", ")}${exact && `; ${exact}`}`;
    this.source.textContent = exact;
    this.shown.textContent = drawn;
    this.list.replaceChildren(...others.map((textContent) => make("li", { textContent })));
    this.text.querySelector(".looked")?.classList.remove("looked");
    this.text.children[at + 1].classList.add("looked");
  }

  exactly(token, share, likeliest) {
    const whole = (each) => this.named(each).replaceAll(" ", "\u00a0"); // no line break inside
    return `the grammar: ${whole([token, share])}; likeliest: ${likeliest.map(whole).join(", ")}`;
  }

  named([token, share]) {
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.vocabulary.bytes(token));
    const ends = token === this.vocabulary.endOfText;
    return `${ends ? "end of story" : `“${visible(text).replaceAll("\n", "↵")}”`} ${percent(share)}`;
  }
}

function asking(box, held) {
  const [beginning, temperature] = box.querySelectorAll("[type=text], [type=number]");
  const wanted = [...box.querySelectorAll("[type=checkbox]")];
  const [button, reader] = box.querySelectorAll("button");
  let [opened, running, stopped, seed] = [null, false, false, 0];

  function open() { // on first use, since most readers never open the section
    if (opened) return;
    const { vocabulary, pattern, models, story, ...sampling } = JSON.parse(held.textContent);
    const sections = box.querySelectorAll("section");
    const voices = models.map((packed, i) => (
      { model: new Model(packed), place: new Place(sections[i], packed.temperature) }));
    opened = { vocabulary: new Vocabulary(vocabulary, pattern), voices, story, sampling };
  }

  // Each loss continues the beginning, all with the same random draws.
  function tell({ model, place }) {
    const { vocabulary, sampling } = opened;
    const how = { ...sampling, temperature: temperature.valueAsNumber, draw: drawing(seed) };
    place.begin(vocabulary, beginning.value);
    return telling(model, vocabulary.encode(beginning.value), vocabulary.endOfText, how);
  }

  // Each loss reads the same test story, whose exact probabilities are known.
  function read({ model, place }) {
    const { vocabulary, story } = opened;
    place.begin(vocabulary, "", story.exact);
    return reading(model, story.ids, vocabulary.endOfText);
  }

  // One token per story in turn, so that they grow side by side.
  async function show(what) {
    open();
    const going = new Set(opened.voices.filter(({ place }, i) => {
      place.section.hidden = true;
      return wanted[i].checked;
    }));
    for (const voice of going) voice.steps = what(voice);
    for (let until = performance.now() + SLICE; going.size && !stopped;) {
      for (const voice of going) {
        const { value, done } = voice.steps.next();
        if (value) voice.place.hear(value);
        if (done) voice.place.end("cut at the limit");
        if (done) going.delete(voice);
      }
      if (performance.now() > until) {
        await new Promise((resolve) => setTimeout(resolve));
        until = performance.now() + SLICE;
      }
    }
    for (const { place } of going) place.end("stopped");
  }

  async function start(what) {
    if (running || none() || !temperature.reportValidity()) return;
    [running, stopped, button.textContent] = [true, false, "Stop"];
    settle();
    seed += 1;
    await show(what);
    [running, button.textContent] = [false, "Tell"];
    settle();
  }

  function stop() { stopped = true; }

  function settle() {
    button.disabled = !running && none();
    if (reader) reader.disabled = running || none();
  }

  function none() { return !wanted.some((each) => each.checked); }

  button.addEventListener("click", () => (running ? stop() : start(tell)));
  reader?.addEventListener("click", () => start(read));
  box.addEventListener("focusin", open);
  box.addEventListener("change", settle);
  box.addEventListener("keydown", ({ key, target }) => {
    if (key === "Escape") stop();
    if (key === "Enter" && (target === beginning || target === temperature)) start(tell);
  });
  box.previousElementSibling.remove(); // the note for readers without JavaScript
  box.hidden = false;
}

const voices = document.getElementById("voices");
if (voices) asking(document.querySelector(".ask"), voices);
