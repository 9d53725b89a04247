// Sorts and filters the table of layers, leads from a bar to its row, and reads values off the map.
// Without it the page shows everything; only these conveniences are missing.
(() => {
  "use strict";
  const table = document.getElementById("layers-table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];

  const titles = heads.map((head) => head.textContent.trim());
  table.classList.toggle("told", titles.at(-1) === "why");
  for (const row of rows) [...row.cells].forEach((cell, i) => (cell.dataset.label = titles[i]));

  const value = (row, column) => {
    const text = row.cells[column].textContent;
    if (!heads[column].classList.contains("n") && column > 0) return text;
    const figure = parseFloat(text.replace(/,/g, "").replace("−", "-"));
    return Number.isNaN(figure) ? -Infinity : figure;
  };

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const figures = head.classList.contains("n");
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : figures;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row, place) => [value(row, column), place, row]);
      const order = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      keyed.sort((a, b) => (down ? -1 : 1) * order(a[0], b[0]) || a[1] - b[1]);
      body.append(...keyed.map((entry) => entry[2]));
    });
  });

  const form = document.querySelector(".controls");
  const [find, kind, width, count] = ["find", "of-kind", "of-width", "shown"].map((id) => document.getElementById(id));
  form.hidden = false;
  const filter = () => {
    const words = find.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !(
        row.cells[1].textContent.toLowerCase().includes(words) &&
        (!kind.value || row.cells[2].textContent === kind.value) &&
        (!width.value || row.cells[4].textContent === width.value)
      );
      shown += !row.hidden;
    }
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());

  document.querySelector(".strips").addEventListener("click", (event) => {
    const bar = event.target.closest("[data-row]");
    const row = bar && document.getElementById("l" + bar.dataset.row);
    if (!row) return;
    form.reset();
    filter();
    for (const other of rows) other.classList.toggle("shown", other === row);
    row.scrollIntoView({ block: "center" });
  });

  const picture = document.getElementById("heat");
  if (!picture) return;
  const names = [...document.getElementById("heat-names").children].map((item) => item.textContent);
  const readout = document.getElementById("heat-readout");
  const idle = (readout.textContent += " Rest the pointer on one.");
  const [largest, power] = [Number(picture.dataset.largest), Number(picture.dataset.power)];
  let pixels = null;
  const decode = async () => {
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = names.length;
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    pixels = context.getImageData(0, 0, names.length, names.length).data;
  };
  picture.addEventListener("pointermove", async (event) => {
    // Before the picture is decoded: the page may move meanwhile.
    const box = picture.getBoundingClientRect();
    const place = (offset, length) => Math.min(names.length - 1, Math.max(0, Math.floor((offset / length) * names.length)));
    const column = place(event.clientX - box.left, box.width);
    const row = place(event.clientY - box.top, box.height);
    if (row === column) {
      readout.textContent = `${names[row]} with itself`;
      return;
    }
    if (!pixels) await decode();
    const [red, , blue, opacity] = pixels.slice(4 * (row * names.length + column), 4 * (row * names.length + column) + 4);
    // The colour says the sign, the opacity the size: about, since it has few levels.
    const size = largest * (opacity / 255) ** (1 / power);
    readout.textContent = `${names[row]} and ${names[column]}: about ${blue > red ? "−" : "+"}${size.toPrecision(2)} nats`;
  });
  picture.addEventListener("pointerleave", () => (readout.textContent = idle));
})();
