"use strict";
// Without this script the page shows everything, unfiltered. The page's policy allows it by its hash.
for (const command of document.querySelectorAll(".command")) {
  const button = document.createElement("button"), text = command.querySelector("code");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(text);
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  command.prepend(button);
}
for (const box of document.querySelectorAll(".documents")) {
  const body = box.querySelector("tbody"), rows = [...body.rows], texts = rows.map(row => row.textContent.toLowerCase());
  const tools = box.querySelector(".tools"), search = tools.querySelector("input");
  const count = tools.querySelector("output"), buttons = [...tools.querySelectorAll("button")];
  let outcome = "";
  const filter = () => {
    const words = search.value.toLowerCase();
    rows.forEach((row, i) => {
      row.hidden = (outcome !== "" && row.dataset.outcome !== outcome) || !texts[i].includes(words);
    });
    count.value = `${rows.filter(row => !row.hidden).length} of ${rows.length} shown`;
    buttons.forEach(button => button.setAttribute("aria-pressed", button.value === outcome));
  };
  buttons.forEach(button => button.addEventListener("click", () => { outcome = button.value; filter(); }));
  search.addEventListener("input", filter);
  box.querySelectorAll("thead th").forEach((header, column, headers) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headers.forEach(each => each.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", order);
      const key = row => row.cells[column].textContent.trim();
      const number = text => text === "" ? NaN : Number(text.replace("\u2212", "-"));
      const compare = (a, b) => {
        const difference = number(a) - number(b);
        return Number.isNaN(difference) ? a.localeCompare(b, undefined, {numeric: true}) : difference;
      };
      const sorted = [...rows].sort((a, b) => compare(key(a), key(b)));
      body.append(...(order === "ascending" ? sorted : sorted.reverse()));
    });
  });
  tools.hidden = false;
  filter();
}
