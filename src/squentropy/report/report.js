// Interactive parts of the report: sortable tables, enlargeable figures, a story browser. The page
// is complete without them. Text from the results is inserted as text, never as HTML.
"use strict";

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// --- contents: open beside the text, folded above it; the section in view is marked ---------------

function contents(nav) {
  const beside = matchMedia("(min-width: 64rem)");
  const fold = () => { nav.querySelector("details").open = beside.matches; };
  beside.addEventListener("change", fold);
  fold();

  const links = [...nav.querySelectorAll("a")];
  const headings = links.map((a) => document.getElementById(decodeURIComponent(a.hash.slice(1))));
  const mark = () => {
    const passed = headings.filter((heading) => heading.getBoundingClientRect().top < 120).length;
    links.forEach((link, i) => { link.ariaCurrent = i === passed - 1 ? "location" : null; });
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

// --- tables: sorted by a column, ascending, descending, then in the original order -----------------

// The number at the start of a cell (the estimate of an interval), or NaN.
function number(cell) {
  const text = cell.textContent.trim().replaceAll("\u202f", "");
  return parseFloat(text.replace(/^< /, "").replace(/^−/, "-").replace(/^∞/, "Infinity"));
}

// Cells without a number come last in either direction.
function compare(a, b, numeric, direction) {
  if (!numeric) return direction * a.textContent.localeCompare(b.textContent, "en");
  const [x, y] = [number(a), number(b)];
  const absent = Number.isNaN(x) - Number.isNaN(y);
  return absent || (x === y || Number.isNaN(x) ? 0 : direction * (x - y));
}

function sortable(table) {
  const body = table.tBodies[0];
  const before = [...body.rows];
  if (before.length < 3) return;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = head.ariaSort ? { ascending: "descending" }[head.ariaSort] : "ascending";
      for (const other of heads) other.ariaSort = null;
      head.ariaSort = next ?? null;
      const direction = next === "descending" ? -1 : 1;
      const rows = next
        ? before.toSorted((a, b) =>
            compare(a.cells[column], b.cells[column], head.classList.contains("n"), direction))
        : before;
      body.append(...rows);
    });
  });
}

// Tables and code blocks are reachable by Tab only if they scroll.
function stops(box) {
  new ResizeObserver(() => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }).observe(box);
}

// --- figures: enlarged in a dialog, which Escape closes -------------------------------------------

function enlarging(images) {
  const close = make("button", { type: "button", textContent: "Close" });
  const place = make("div", { tabIndex: 0 });
  const dialog = make("dialog", {}, close, place);
  dialog.setAttribute("closedby", "any");
  document.body.append(dialog);
  close.addEventListener("click", () => dialog.close());
  for (const image of images) {
    const button = make("button", { type: "button", className: "enlarge" });
    image.replaceWith(button);
    button.append(image, make("span", { textContent: "Enlarge" }));
    button.addEventListener("click", () => {
      dialog.ariaLabel = image.alt;
      place.replaceChildren(image.cloneNode());
      dialog.showModal();
    });
  }
}

// --- stories: two side by side --------------------------------------------------------------------

function browse(browser, told) {
  const shared = [...browser.querySelectorAll(":scope > .choices select")];
  const sides = [...browser.querySelectorAll("fieldset")].map((side) => ({
    selects: [...side.querySelectorAll("select")],
    text: side.querySelector("p"),
    note: side.querySelector("output"),
  }));

  // Each choice limits the next ones to existing stories, so one is always found.
  function chosen(selects) {
    let left = told;
    for (const select of selects) {
      const values = [...new Set(left.map((story) => String(story[select.name])))];
      if (values.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
        const value = values.includes(select.value) ? select.value : values[0];
        select.replaceChildren(...values.map((text) => new Option(text, text)));
        select.value = value;
      }
      left = left.filter((story) => String(story[select.name]) === select.value);
    }
    return left[0];
  }

  function show() {
    for (const { selects, text, note } of sides) {
      const story = chosen([...shared, ...selects]);
      const prompt = story.text.startsWith(story.prompt) ? story.prompt : "";
      text.replaceChildren(make("b", { textContent: prompt }), story.text.slice(prompt.length));
      note.textContent = story.note;
    }
  }

  show();
  const other = sides[1]?.selects[0];
  if (other) other.selectedIndex = Math.min(1, other.length - 1);
  show();
  browser.addEventListener("change", show);
  browser.hidden = false;
  document.documentElement.classList.add("browsing");
}

// Decodes the output of markup.packed.
async function unpacked(element) {
  const bytes = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
  const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(text).json();
}

contents(document.querySelector("nav"));
document.querySelectorAll(".table, pre").forEach(stops);
document.querySelectorAll(".table table").forEach(sortable);
enlarging(document.querySelectorAll("figure img"));
const told = document.getElementById("told");
if (told) unpacked(told).then((stories) => browse(document.querySelector(".browser"), stories));
