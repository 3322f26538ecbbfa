"use strict";
// Tables: sorted by a click on a head, filtered by words. Figures: larger by a click.

const collator = new Intl.Collator("en", { numeric: true });

function key(cell, numeric) {
  if ("missing" in cell.dataset) return null;
  return numeric ? Number(cell.dataset.value) : cell.textContent;
}

function compare(a, b, numeric) {
  return numeric ? (a > b) - (a < b) : collator.compare(a, b);
}

function sort(table, head) {
  const down = head.getAttribute("aria-sort") === "ascending";
  const numeric = head.classList.contains("number");
  const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[head.cellIndex], numeric), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // undefined last, both ways
    return down ? compare(b, a, numeric) : compare(a, b, numeric);
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.classList.add("sorted");
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const section of document.querySelectorAll("section.table")) {
  const table = section.querySelector("table");
  const filter = section.querySelector("input[type=search]");
  const all = section.querySelector("input[type=checkbox]");
  const said = section.querySelector("output");
  const texts = new Map();
  for (const row of table.tBodies[0].rows) {
    texts.set(row, [...row.cells].map((cell) => cell.textContent).join("\n").toLowerCase());
  }
  const show = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of texts) {
      // Words are looked for in all rows, also in those that are not seen at first.
      const wanted = words.length || !all || all.checked || !("later" in row.dataset);
      row.hidden = !(wanted && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    said.textContent = `showing ${shown} of ${texts.size} rows`;
  };
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button").addEventListener("click", () => sort(table, head));
  }
  filter.addEventListener("input", show);
  if (all) all.addEventListener("change", show);
  show();
}

const large = document.querySelector("dialog");
for (const figure of document.querySelectorAll("figure")) {
  const picture = figure.querySelector("img");
  figure.querySelector("button").addEventListener("click", () => {
    large.querySelector("img").src = picture.src;
    large.querySelector("img").alt = picture.alt;
    large.querySelector("p").textContent = picture.alt;
    large.showModal();
  });
}
large.addEventListener("click", () => large.close());
