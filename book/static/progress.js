// What a reader has done, kept in this browser and nowhere else: a tick for each chapter read and each exercise solved.
(() => {
  const KEY = "ntk-course-progress";
  const load = () => { try { return JSON.parse(localStorage.getItem(KEY)) ?? {}; } catch { return {}; } };
  let done = load();
  const set = (name, value) => {
    done = load();  // another tab may have ticked something
    if (value) done[name] = 1; else delete done[name];
    try { localStorage.setItem(KEY, JSON.stringify(done)); } catch { /* a browser that keeps nothing: ticks last as long as the page */ }
    show();
  };
  const box = (name, words) => {
    const label = document.createElement("label"), input = document.createElement("input");
    label.className = "ntk-tick";
    input.type = "checkbox";
    input.dataset.ntk = name;
    input.addEventListener("change", () => set(name, input.checked));
    label.append(input, ` ${words}`);
    return label;
  };
  // the place of a page in the site, as "book/06_forgetting"
  const place = (url) => new URL(url, location.href).pathname.match(/(book|solutions)\/(\d\d_\w+)\.html$/);
  const here = place(location.href), article = document.querySelector("article.bd-article");
  const numbered = (text) => text.trim().match(/^(?:Exercise )?(\d+\.\d+)\b/)?.[1];

  if (here?.[1] === "book") article?.append(box(`read ${here[2]}`, "I have read this chapter (the tick is kept in this browser only)"));
  if (here?.[1] === "solutions") {
    for (const title of article?.querySelectorAll(".exercise > .admonition-title") ?? []) {
      const number = numbered(title.textContent);
      if (number) title.after(box(`solved ${number}`, "solved"));
    }
  }

  const links = [...document.querySelectorAll(".bd-sidebar-primary a.internal")];
  const sheet = {};  // stem -> numbers of its exercises, where the table of all exercises is on the page
  for (const link of article?.querySelectorAll("td a[href*='solutions/']") ?? []) {
    const number = numbered(link.textContent), stem = place(link.href)?.[2];
    if (number && stem) (sheet[stem] ??= []).push([number, link]);
  }
  const mark = (link, on, words) => {
    link.querySelector(".ntk-done")?.remove();
    if (on) link.insertAdjacentHTML("beforeend", `<span class="ntk-done" role="img" aria-label="${words}"> ✓</span>`);
  };
  let forget = null;
  const show = () => {
    for (const input of document.querySelectorAll("input[data-ntk]")) input.checked = input.dataset.ntk in done;
    for (const link of links) {
      const at = place(link.href);
      if (at?.[1] === "book") mark(link, `read ${at[2]}` in done, "read");
      if (at?.[1] === "solutions") {
        const chapter = Number(at[2].slice(0, 2)), count = Object.keys(done).filter((n) => n.startsWith(`solved ${chapter}.`)).length;
        mark(link, count > 0, `${count} solved`);
        if (count) link.querySelector(".ntk-done").textContent = ` ✓ ${count}`;
      }
    }
    for (const numbers of Object.values(sheet)) for (const [number, link] of numbers) mark(link, `solved ${number}` in done, "solved");
    const total = Object.values(sheet).flat().length;
    if (total && article) {
      forget ??= article.querySelector("h1").insertAdjacentElement("afterend", document.createElement("p"));
      const solved = Object.values(sheet).flat().filter(([number]) => `solved ${number}` in done).length;
      forget.className = "ntk-progress";
      forget.textContent = `You have ticked ${solved} of ${total} exercises in this browser. `;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Forget all ticks";
      button.addEventListener("click", () => { if (confirm("Forget every tick of this site in this browser?")) { localStorage.removeItem(KEY); done = {}; show(); } });
      if (Object.keys(done).length) forget.append(button);
    }
  };
  show();
  addEventListener("storage", (event) => { if (event.key === KEY) { done = load(); show(); } });
})();
