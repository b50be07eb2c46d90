// Long tables can be sorted: a click on a column's head orders the rows by it, a second one the other way round.
for (const table of document.querySelectorAll(".ntk-long table")) {
  const body = table.tBodies[0], first = [...body.rows];
  const value = (row, i) => {
    const text = row.cells[i].textContent.trim();
    const number = parseFloat(text.replaceAll(",", "").replaceAll("−", "-"));
    return Number.isNaN(number) ? text : number;
  };
  const order = (a, b) => (typeof a === typeof b ? (a < b ? -1 : +(a > b)) : typeof a === "number" ? -1 : 1);
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const turn = { none: "descending", descending: "ascending", ascending: "none" }[head.ariaSort ?? "none"];
      for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
      head.ariaSort = turn;
      const rows = turn === "none" ? first : [...first].sort((a, b) => order(value(a, i), value(b, i)) * (turn === "ascending" ? 1 : -1));
      body.append(...rows);
    });
  });
}
