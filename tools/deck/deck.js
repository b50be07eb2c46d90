// Formulas first, while every slide has its size; then slides; then whatever is too large for its slide is made smaller.
(() => {
  const shrink = (box, inner, least, high = true) => {
    // by steps: what is inside wraps anew at each size
    let size = parseFloat(getComputedStyle(inner).fontSize);
    const over = () => box.scrollWidth > box.clientWidth + 1 || (high && box.scrollHeight > box.clientHeight + 1);
    while (size > least && over()) {
      size *= 0.96;
      inner.style.fontSize = `${size}px`;
    }
  };
  const fit = () => {
    for (const section of document.querySelectorAll(".slides > section")) {
      const before = section.getAttribute("style");
      section.style.cssText = "display:flex;position:absolute;visibility:hidden;width:100%;height:100%";
      for (const formula of section.querySelectorAll(".formula")) shrink(formula, formula, 10, false);
      const body = section.querySelector(".body");
      if (body) shrink(body, body, 14);
      if (before === null) section.removeAttribute("style");
      else section.setAttribute("style", before);
    }
  };
  const begin = () => {
    const options = { ...window.NTK_SIZE, margin: 0.02, center: false, controls: false, display: "flex", hash: true, slideNumber: "c/t",
      transition: "none", viewDistance: 3, pdfSeparateFragments: false, pdfMaxPagesPerSlide: 1, plugins: [RevealNotes] };
    Reveal.on("ready", () => { if (!Reveal.isPrintView?.()) fit(); document.body.dataset.ready = "1"; });
    const print = /print-pdf/.test(location.search);
    if (print) fitBeforePrint();
    Reveal.initialize(options);
  };
  const fitBeforePrint = () => {
    // the print view takes slides out of their frame: sizes are found in a frame of the same size first
    const slides = document.querySelector(".slides");
    slides.style.cssText = `position:relative;width:${window.NTK_SIZE.width}px;height:${window.NTK_SIZE.height}px`;
    fit();
    slides.removeAttribute("style");
  };
  window.MathJax = {
    tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]] },
    svg: { fontCache: "global" },
    options: { enableMenu: false },
    startup: { pageReady: () => MathJax.startup.defaultPageReady().then(begin) },
  };
})();
