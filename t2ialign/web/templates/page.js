"use strict";
// An image in .zoom is shown large in a dialog: by a click or Enter; Esc, or a click on it, closes it.
document.addEventListener("click", event => {
  const zoom = event.target.closest(".zoom");
  if (!zoom || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const image = zoom.querySelector("img"), dialog = document.createElement("dialog");
  const large = document.createElement("img"), words = document.createElement("p"), close = document.createElement("button");
  large.src = zoom.href || image.src;
  large.alt = image.alt;
  large.className = image.className;
  words.textContent = image.alt;
  close.textContent = "Close";
  dialog.setAttribute("aria-label", image.alt);
  dialog.append(large, words, close);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
});

// A click on the head of a column sorts the rows by it: by data-sort where a cell has it, else by its text.
function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
}
function sortBy(table, head, column) {
  const falls = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
  const key = row => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const order = (one, other) => {
    const a = key(one), b = key(other);
    if (a === "" || b === "") return (a === "") - (b === ""); // what is missing stands last either way
    return falls ? compare(b, a) : compare(a, b);
  };
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falls ? "descending" : "ascending");
  body.append(...[...body.rows].sort(order));
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (!head.textContent.trim()) return; // bars, which the column beside them sorts
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head, column));
    head.append(button);
  });
}
