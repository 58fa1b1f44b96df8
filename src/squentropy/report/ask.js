// The section "Ask the models": the reader begins a story, and every loss goes on with it. What the
// models compute is in voices.js; `make` is of report.js. All text is written as text alone.
"use strict";

const SLICE = 12; // milliseconds of work before the page may do something else

// As markup.visible: what could hide or reorder other text is a visible sign.
function visible(text) {
  return text.replace(/(?![\t\n\u200c\u200d])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");
}

function percent(share) {
  return share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

// Where a loss's story appears, and one of its tokens is looked at, by pointing or by the slider.
class Place {
  constructor(section, temperature) {
    const [text, shown] = section.querySelectorAll("p");
    const [story, note, panel, slider, list] = [".story", "footer", ".token", "input", "ol"].map(
      (what) => section.querySelector(what));
    Object.assign(this, { section, temperature, text, shown, story, note, panel, slider, list });
    slider.addEventListener("input", () => this.look(slider.valueAsNumber - 1));
    text.addEventListener("pointerover", ({ target }) => {
      const at = [...text.children].indexOf(target) - 1;
      if (at >= 0) this.look(at);
    });
  }

  begin(vocabulary, prompt) {
    Object.assign(this, { vocabulary, judged: [], utf8: new TextDecoder("utf-8", { ignoreBOM: true }) });
    this.text.replaceChildren(make("b", { textContent: visible(prompt) }));
    this.note.textContent = "";
    this.story.ariaBusy = "true"; // or each token would be read out by itself
    this.panel.hidden = true;
    this.section.hidden = false;
  }

  hear(drawn) {
    this.judged.push(judged(drawn, this.temperature));
    // A character appears with the last of its bytes.
    const text = this.utf8.decode(this.vocabulary.bytes(drawn.token), { stream: true });
    this.text.append(make("span", { textContent: visible(text) }));
    this.slider.max = this.judged.length;
    if (this.judged.length === 1) this.look(0);
  }

  end(how) {
    this.text.append(this.utf8.decode());
    this.story.ariaBusy = null;
    const ended = this.judged.at(-1)?.token === this.vocabulary.endOfText;
    this.note.textContent = `${this.judged.length - ended} tokens, ${ended ? "ended by itself" : how}`;
  }

  look(at) {
    const { token, share, likeliest } = this.judged[at];
    const drawn = this.named([token, share]);
    const others = likeliest.map((each) => this.named(each));
    this.panel.hidden = false;
    this.slider.value = at + 1;
    this.slider.ariaValueText = `${drawn}; likeliest: ${others.join(", ")}`;
    this.shown.textContent = drawn;
    this.list.replaceChildren(...others.map((textContent) => make("li", { textContent })));
    this.text.querySelector(".looked")?.classList.remove("looked");
    this.text.children[at + 1].classList.add("looked");
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
  const button = box.querySelector("button");
  let [opened, running, stopped, seed] = [null, false, false, 0];

  function open() { // by who turns to the section, since most readers of the page do not
    if (opened) return;
    const { vocabulary, pattern, models, ...sampling } = JSON.parse(held.textContent);
    const sections = box.querySelectorAll("section");
    const voices = models.map((packed, i) => (
      { model: new Model(packed), place: new Place(sections[i], packed.temperature) }));
    opened = { vocabulary: new Vocabulary(vocabulary, pattern), voices, sampling };
  }

  // A token of each story in turn, so that they grow side by side.
  async function tell() {
    open();
    const { vocabulary, voices, sampling } = opened;
    const prompt = vocabulary.encode(beginning.value);
    seed += 1;
    const going = new Set(voices.filter(({ place }, i) => {
      place.section.hidden = true;
      return wanted[i].checked;
    }));
    for (const voice of going) {
      const how = { ...sampling, temperature: temperature.valueAsNumber, draw: drawing(seed) };
      voice.steps = telling(voice.model, prompt, vocabulary.endOfText, how);
      voice.place.begin(vocabulary, beginning.value);
    }
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

  async function start() {
    if (running || none() || !temperature.reportValidity()) return;
    [running, stopped, button.textContent] = [true, false, "Stop"];
    await tell();
    [running, button.disabled, button.textContent] = [false, none(), "Tell"];
  }

  function stop() { stopped = true; }

  function none() { return !wanted.some((each) => each.checked); }

  button.addEventListener("click", () => (running ? stop() : start()));
  box.addEventListener("focusin", open);
  box.addEventListener("change", () => { button.disabled = !running && none(); });
  box.addEventListener("keydown", ({ key, target }) => {
    if (key === "Escape") stop();
    if (key === "Enter" && (target === beginning || target === temperature)) start();
  });
  box.previousElementSibling.remove(); // which says that this needs a script
  box.hidden = false;
}

const voices = document.getElementById("voices");
if (voices) asking(document.querySelector(".ask"), voices);
