// What only the page, once laid out, can say.
// A formula that is wider than its line of text cannot break: it alone gets a scrollbar, and no other one does.
const LINE = "p, li, td, th, dd, dt, figcaption, h1, h2, h3, h4, summary";
const look = () => {
  // first all writes, then all reads, then all writes: in turns the page would be laid out once for every formula
  for (const formula of document.querySelectorAll("mjx-container.ntk-too-wide")) formula.classList.remove("ntk-too-wide");
  const wide = [...document.querySelectorAll("mjx-container:not([display])")].filter((formula) => {
    const line = formula.closest(LINE);
    return line && line.clientWidth && formula.getBoundingClientRect().width > line.clientWidth + 1;
  });
  for (const formula of wide) formula.classList.add("ntk-too-wide");
};
// A cell of a sentence is not squeezed to a word a line.
for (const cell of document.querySelectorAll(".bd-article table:not(.dataTable) td")) if (cell.textContent.length > 60) cell.classList.add("ntk-long-words");
const whenSet = () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(look);
addEventListener("load", whenSet);
addEventListener("resize", look);
document.addEventListener("toggle", look, true);  // what was folded had no width
document.addEventListener("click", () => setTimeout(look, 300));
