// What only the page, once laid out, can say.
// A formula that is wider than its line of text cannot break: it alone gets a scrollbar, and no other one does.
const look = () => {
  for (const formula of document.querySelectorAll("mjx-container:not([display])")) {
    formula.classList.remove("ntk-too-wide");
    const line = formula.closest("p, li, td, th, dd, dt, figcaption, h1, h2, h3, h4, summary");
    if (line && line.clientWidth && formula.getBoundingClientRect().width > line.clientWidth + 1) formula.classList.add("ntk-too-wide");
  }
};
// A cell of a sentence is not squeezed to a word a line.
for (const cell of document.querySelectorAll(".bd-article td")) if (cell.textContent.length > 60) cell.classList.add("ntk-long-words");
const whenSet = () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(look);
addEventListener("load", whenSet);
addEventListener("resize", look);
document.addEventListener("toggle", look, true);  // what was folded had no width
document.addEventListener("click", () => setTimeout(look, 300));
