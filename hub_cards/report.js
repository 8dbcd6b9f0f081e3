"use strict";
(() => {
  const table = document.querySelector("#rows table");
  if (!table) return;
  document.documentElement.classList.add("js");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const search = document.getElementById("search");
  const order = document.getElementById("order");
  const status = document.getElementById("status");
  const none = document.getElementById("none");
  const places = [...document.querySelectorAll("[data-place]")];
  let place = "best";
  let sorted = { key: "rank", up: true };

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const inPlace = place === "all" || row.dataset.places.split(" ").includes(place);
      const found = words.every((word) => texts.get(row).includes(word));
      row.hidden = !(inPlace && found);
      if (!row.hidden) shown += 1;
    }
    for (const button of places) button.setAttribute("aria-pressed", String(button.dataset.place === place));
    status.textContent = `${shown} of ${rows.length} rows shown`;
    none.style.display = shown ? "none" : "block";
  }

  function value(row) {
    const text = row.querySelector(`[data-key="${sorted.key}"]`).dataset.sort;
    return text === "" ? null : Number(text);
  }

  function compare(left, right) {
    const a = value(left), b = value(right);
    if (a === null || b === null) return (a === null) - (b === null);
    return sorted.up ? a - b : b - a;
  }

  function sort(key, up) {
    sorted = { key, up };
    body.append(...rows.sort(compare));
    for (const head of table.tHead.querySelectorAll("[data-head]")) {
      if (head.dataset.head === key) head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    order.value = `${key} ${up ? "up" : "down"}`;
  }

  for (const button of places) {
    button.addEventListener("click", () => { place = button.dataset.place; filter(); });
  }
  for (const head of table.tHead.querySelectorAll("[data-head]")) {
    head.querySelector("button").addEventListener("click", () => {
      const key = head.dataset.head;
      sort(key, !(sorted.key === key && sorted.up));
    });
  }
  search.addEventListener("input", filter);
  order.addEventListener("change", () => {
    const [key, way] = order.value.split(" ");
    sort(key, way === "up");
  });
  sort("rank", true);
  filter();
})();
