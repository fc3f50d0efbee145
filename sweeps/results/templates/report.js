"use strict";
// The seeds of every configuration are in JSON and become a table when they are opened; all text is set as text, never as HTML.
for (const section of document.querySelectorAll("section.sweep")) {
  const table = section.querySelector("table.configurations");
  if (!table) continue;
  const data = JSON.parse(section.querySelector("script.seeds").textContent);
  const groups = [...table.tBodies];
  const columns = table.tHead.rows[0].cells.length;

  function key(group, column) {
    const cell = group.rows[0].cells[column];
    const text = cell.dataset.v ?? cell.textContent.trim();
    const number = text === "" ? NaN : Number(text);
    return Number.isNaN(number) ? text : number;
  }
  function unknown(value) { return value === "" || value === "\u2013"; }
  function compare(a, b, sign) {
    if (unknown(a) || unknown(b)) return unknown(a) - unknown(b); // last in both directions
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * a.localeCompare(b, "en", { numeric: true });
  }
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const header = button.parentElement;
      const falling = header.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const keyed = groups.map((group, index) => [key(group, header.cellIndex), index, group]);
      keyed.sort((a, b) => compare(a[0], b[0], falling ? -1 : 1) || a[1] - b[1]);
      table.append(...keyed.map((entry) => entry[2]));
    });
  }

  function cells(row, values, tag) {
    for (const value of values) {
      const cell = document.createElement(tag);
      cell.textContent = value ?? "\u2013";
      row.append(cell);
    }
    return row;
  }
  function shown(value) {
    if (typeof value !== "number" || Number.isInteger(value) || (Math.abs(value) >= 0.01 && Math.abs(value) < 1e6)) return value;
    return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  }
  function seedTable(entry) {
    const inner = document.createElement("table");
    cells(inner.createTHead().insertRow(), data.columns, "th");
    const body = inner.createTBody();
    for (const [fresh, seeds] of entry.entries()) {
      for (const [seed, kind, text, ...values] of seeds) {
        const row = cells(body.insertRow(), [fresh ? `${seed} (fresh)` : seed, data.kinds[kind], text, ...values.map(shown)], "td");
        row.cells[1].className = kind < data.solved ? "good" : "bad";
        row.cells[2].className = "wide";
      }
    }
    return inner;
  }
  function open(button, expanded) {
    const group = button.closest("tbody");
    if (expanded && group.rows.length === 1) {
      const row = group.insertRow();
      row.className = "seeds";
      row.id = button.getAttribute("aria-controls");
      const cell = row.insertCell();
      cell.colSpan = columns;
      cell.append(seedTable(data.seeds[groups.indexOf(group)]));
    }
    if (group.rows.length > 1) group.rows[1].hidden = !expanded;
    button.setAttribute("aria-expanded", String(expanded));
  }
  const texts = groups.map((group) => group.rows[0].textContent.toLowerCase());
  const openers = groups.map((group, index) => {
    const cell = group.rows[0].cells[0];
    const button = document.createElement("button");
    button.type = "button";
    button.className = "open";
    button.textContent = cell.textContent.trim();
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-controls", `${section.id}-${index}`);
    button.addEventListener("click", () => open(button, button.getAttribute("aria-expanded") !== "true"));
    cell.replaceChildren(button);
    return button;
  });

  const tools = section.querySelector(".tools");
  tools.hidden = false;
  const filter = tools.querySelector("input");
  const count = tools.querySelector("output");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    groups.forEach((group, index) => {
      group.hidden = !words.every((word) => texts[index].includes(word));
      left += !group.hidden;
    });
    count.textContent = words.length ? `${left} of ${groups.length} shown` : "";
  });
  tools.querySelector("button").addEventListener("click", (event) => {
    const expanded = event.target.getAttribute("aria-pressed") !== "true";
    event.target.setAttribute("aria-pressed", String(expanded));
    event.target.textContent = expanded ? "Hide all seeds" : "Show all seeds";
    for (const button of openers) if (!button.closest("tbody").hidden) open(button, expanded);
  });
}
