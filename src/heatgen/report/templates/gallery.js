
const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs, better = data.better, columns = Object.fromEntries(data.columns);
const body = document.querySelector(".runs tbody"), rows = [...body.rows];
const heads = [...document.querySelectorAll(".runs th[aria-sort]")];
const search = document.getElementById("search"), metric = document.getElementById("metric"), sort = document.getElementById("sort");
const groups = [...document.querySelectorAll("[data-group]")];
const section = document.getElementById("compare"), sides = document.getElementById("sides");
const MOST = 4;
for (const row of rows)  // the picture that stands in a row is in the page once
  for (const [key, source, own = runs[row.dataset.run].pictures] of Object.entries(runs[row.dataset.run].pictures))
    if (source === null) own[key] = row.querySelector("img").src;

// The rows by a column; those without a value come last, whichever way it goes.
function sortBy(key, way) {
  const cell = row => row.querySelector(`[data-key="${CSS.escape(key)}"]`).dataset.value;
  const numbers = key in columns;
  const compared = (a, b) => numbers ? a - b : a.localeCompare(b, undefined, { numeric: true });
  rows.sort((one, other) => {
    const [a, b] = [cell(one), cell(other)];
    return a === "" || b === "" ? (a === "") - (b === "") : way * compared(a, b);
  });
  body.append(...rows);
  for (const head of heads)
    head.setAttribute("aria-sort", head.dataset.key !== key ? "none" : way > 0 ? "ascending" : "descending");
  sort.value = JSON.stringify([key, way]);
}

function filter() {
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows)
    row.hidden = !wanted.every(word => row.dataset.text.includes(word))
      || groups.some(group => group.value && row.dataset[group.dataset.group] !== group.value)
      || (metric.value !== "" && !(metric.value in runs[row.dataset.run].values));
  const shown = rows.filter(row => !row.hidden).length;
  document.getElementById("count").textContent = shown === rows.length ? `All ${shown} runs.` : `${shown} of ${rows.length} runs.`;
}

for (const head of heads) {
  const key = head.dataset.key, name = head.textContent, numbers = key in columns;
  for (const way of [1, -1]) {
    const words = numbers ? ["smallest", "largest"] : key === "started" ? ["oldest", "newest"] : ["A to Z", "Z to A"];
    sort.append(make("option", { value: JSON.stringify([key, way]) }, `${name}, ${words[way > 0 ? 0 : 1]} first`));
  }
  head.querySelector("button").onclick = () => {
    const before = head.getAttribute("aria-sort");
    sortBy(key, before === "none" ? (better[key] > 0 ? -1 : 1) : before === "ascending" ? -1 : 1);
  };
}
sort.onchange = () => sortBy(...JSON.parse(sort.value));
search.oninput = filter;
for (const group of groups) group.onchange = filter;
metric.onchange = () => {
  filter();
  if (metric.value) sortBy(metric.value, better[metric.value] > 0 ? -1 : 1);
};

// two to four runs side by side -----------------------------------------------------------------------------------------

const picked = new Set();

function pick() {
  for (const row of rows) {
    const box = row.querySelector("input"), own = picked.has(row.dataset.run);
    box.checked = own;
    box.disabled = !own && picked.size >= MOST;
    row.classList.toggle("picked", own);
  }
  const enough = picked.size > 1;
  document.getElementById("bar").hidden = picked.size === 0;
  document.getElementById("picked").textContent = enough ? `${picked.size} runs ticked.` : "1 run ticked; tick another.";
  document.getElementById("show").disabled = !enough;
  if (!section.hidden) enough ? draw() : section.hidden = true;
  history.replaceState(null, "", picked.size ? `#runs=${[...picked]}` : "#");
}

function table(caption, headings, lines) {
  const whole = make("table"), head = make("tr");
  head.append(...headings.map(text => make("th", { scope: "col" }, text)));
  whole.append(make("thead"), make("tbody"));
  whole.tHead.append(head);
  for (const [name, ...cells] of lines) {
    const line = make("tr");
    line.append(make("th", { scope: "row" }, name), ...cells);
    whole.tBodies[0].append(line);
  }
  const region = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption });
  region.append(whole);
  return [make("h3", {}, caption), region];
}

function draw() {
  const chosen = [...picked].map(number => runs[number]);
  const shared = Object.keys(chosen[0].pictures).find(key => chosen.every(run => key in run.pictures));
  const cards = make("div", { class: "sides" });
  chosen.forEach((run, i) => {
    const card = make("div", { class: `c${i + 1}` }), head = make("h3");
    head.append(make("a", { href: run.href }, run.title));
    card.append(head);
    const key = shared ?? Object.keys(run.pictures)[0];
    if (key) card.append(make("img", { src: run.pictures[key], alt: `Samples of ${run.title}` }), make("p", { class: "note" }, `Samples: ${key}`));
    cards.append(card);
  });
  const figures = make("div", { class: "charts" });
  const names = [...new Set(chosen.flatMap(run => Object.keys(run.curves)))].sort((a, b) => b.endsWith("loss") - a.endsWith("loss"));
  sides.replaceChildren(cards, make("h3", {}, "Learning curves"), figures);
  for (const name of names) {
    const figure = make("figure", { class: "chart" }), [split, what] = [name.split("/")[0], name.split("/").slice(1).join("/")];
    figures.append(figure);
    const title = what ? `${data.words[what] ?? what.replaceAll("_", " ")}, ${data.words[split] ?? split}` : name;
    const series = chosen.map((run, i) => ({ label: run.title, points: run.curves[name] ?? [], colour: i + 1 }));
    chart(figure, { title, series: series.filter(one => one.points.length) });
  }
  const alike = chosen.every(run => run.data === chosen[0].data), titles = chosen.map(run => run.title);
  const known = Object.keys(columns).filter(column => chosen.some(run => column in run.values));
  sides.append(make("p", { class: "note" }, "Losses of different models are not comparable."),
    ...table("Measurements", ["value", ...titles], known.map(column => {
      const values = chosen.map(run => run.values[column]), way = alike ? better[column] : 0;
      const best = way && values.filter(value => value !== undefined).length > 1
        ? Math.max(...values.filter(value => value !== undefined).map(value => way * value)) : null;
      return [columns[column], ...chosen.map((run, i) => {
        const top = best !== null && way * values[i] === best;
        return make("td", { class: top ? "value best" : "value", ...top && { title: "best of these" } }, run.numbers[column] ?? "");
      })];
    })),
    make("p", { class: "note" }, alike ? "A dot marks the best of these; look at the standard errors before you believe it." : "Runs of different data: their measurements are not comparable."));
  const keys = [...new Set(chosen.flatMap(run => Object.keys(run.config)))];
  const differing = keys.filter(key => new Set(chosen.map(run => run.config[key])).size > 1);
  sides.append(...table("Settings that differ", ["setting", ...titles],
    differing.map(key => [key, ...chosen.map(run => make("td", key in run.config ? {} : { class: "soft" }, run.config[key] ?? "none"))])));
  if (!differing.length) sides.append(make("p", {}, "None."));
}

function show() {
  section.hidden = false;
  draw();
  document.getElementById("compare-title").focus();
  section.scrollIntoView();
}
body.onchange = event => {
  const number = event.target.closest("tr").dataset.run;
  event.target.checked ? picked.add(number) : picked.delete(number);
  pick();
};
document.getElementById("show").onclick = show;
document.getElementById("clear").onclick = () => { picked.clear(); pick(); };

filter();
sortBy("run", 1);
for (const number of location.hash.startsWith("#runs=") ? location.hash.slice(6).split(",") : [])
  if (number in runs && picked.size < MOST) picked.add(number);
if (picked.size) pick();
if (picked.size > 1) show();
