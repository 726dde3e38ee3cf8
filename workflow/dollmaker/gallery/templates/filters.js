// The controls at the side and what they do.
const qualityBins = [];

function chip(text, count) {
  const button = make("button", "chip");
  button.type = "button";
  button.append(words("span", "", text), make("span", "number", count.toLocaleString("en")));
  return button;
}

/** Build the controls that depend on the data; once. */
function buildFilters() {
  const tally = (column, length) => {
    const counts = new Array(length).fill(0);
    column.forEach((place) => (counts[place] += 1));
    return counts;
  };
  const splits = tally(data.split, data.splits.length);
  data.splits.forEach((name, place) => {
    const button = chip(name || "none", splits[place]);
    button.addEventListener("click", () => change({ splits: toggled(state.splits, place) }));
    $("splits").append(button);
  });
  if (data.bound) $("sort").append(new Option("Bound of the IoU, highest first", BOUND_SORT));
  $("promise").textContent = data.bound
    ? `A bound as in "IoU ≥ 0.42" holds for ${confidence()} of patients like those it was measured on.`
    : "No bounds of the IoU: quality only ranks.";
  $("splits-row").hidden = data.splits.length < 2;
  $("source-row").hidden = data.sources.length < 2;
  $("source").append(new Option("all", ""), ...data.sources.map((name) => new Option(name, name)));
  $("show-row").hidden = !(data.pictures.image && data.pictures.relevance);
  $("side-row").hidden = data.recipes.length === 0;
  data.findings.forEach((name, place) => $("findings").append(findingRow(name, place)));
}

function toggled(list, item) {
  return list.includes(item) ? list.filter((other) => other !== item) : [...list, item];
}

/** A finding: its name, the number of its pairs, and the histogram of their quality. */
function findingRow(name, place) {
  const row = make("div", "finding");
  const label = make("label", "check");
  const box = make("input");
  box.type = "checkbox";
  box.addEventListener("change", () => change({ findings: toggled(state.findings, place) }));
  label.append(box, words("span", "grow", name), make("span", "number"));
  const bars = make("div", "bars");
  bars.setAttribute("role", "toolbar");
  bars.setAttribute("aria-label", `Quality of ${name}`);
  for (let bin = 0; bin < BINS; bin += 1) {
    const bar = make("button");
    bar.type = "button";
    bar.tabIndex = bin ? -1 : 0;
    bar.append(make("i"));
    bar.addEventListener("click", () => chooseBin(place, bin));
    bars.append(bar);
  }
  bars.addEventListener("keydown", (event) => rove(event, [...bars.children]));
  qualityBins.push({ row, box, bars, count: label.lastChild });
  row.append(label, bars);
  return row;
}

/** Arrow keys move among the bars of one histogram, which is one stop of the Tab key. */
function rove(event, bars) {
  const at = bars.indexOf(document.activeElement);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: bars.length - 1 }[event.key];
  if (to === undefined || !bars[to]) return;
  event.preventDefault();
  event.stopPropagation();
  bars.forEach((bar, place) => (bar.tabIndex = place === to ? 0 : -1));
  bars[to].focus();
}

function binChosen(place, bin) {
  return state.findings.length === 1 && state.findings[0] === place
    && state.low === bin / BINS && state.high === (bin + 1) / BINS;
}

/** Filter by a bar of a histogram; the same bar again clears it. */
function chooseBin(place, bin) {
  if (binChosen(place, bin)) change({ findings: [], low: 0, high: 1 });
  else change({ findings: [place], low: bin / BINS, high: (bin + 1) / BINS });
}

/** Show counts and histograms of the present selection. */
function showFilters(histograms) {
  histograms.forEach((counts, place) => {
    const { row, box, bars, count } = qualityBins[place];
    const chosen = !state.findings.length || state.findings.includes(place);
    const most = Math.max(1, ...counts);
    box.checked = state.findings.includes(place);
    row.classList.toggle("off", !chosen);
    count.textContent = counts.reduce((sum, value) => sum + value, 0).toLocaleString("en");
    counts.forEach((value, bin) => {
      const bar = bars.children[bin];
      const inside = chosen && fitsQuality((bin + 0.5) / BINS);
      bar.firstChild.style.height = value ? `${Math.max(8, (100 * value) / most)}%` : "0";
      bar.classList.toggle("inside", inside);
      bar.setAttribute("aria-pressed", String(binChosen(place, bin)));
      const from = (bin / BINS).toFixed(2), to = ((bin + 1) / BINS).toFixed(2);
      const text = `${data.findings[place]}, quality ${from} to ${to}: ${value} pairs`;
      bar.title = text;
      bar.setAttribute("aria-label", text);
    });
  });
}

/** Make every control show the state. */
function showControls() {
  for (const name of ["fill", "tile", "sort", "show", "source", "find", "low", "high"]) {
    if ($(name).value !== String(state[name])) $(name).value = state[name];
  }
  $("masks").checked = state.masks;
  $("recipes").checked = state.recipes;
  $("fill-text").textContent = $("large-fill-text").textContent = `${state.fill} %`;
  $("large-fill").value = state.fill;
  $("tile-text").textContent = `${state.tile} px`;
  $("quality-text").textContent = `${state.low.toFixed(2)} to ${state.high.toFixed(2)}`;
  $("large-masks").setAttribute("aria-pressed", String(state.masks));
  [...$("splits").children].forEach((button, place) =>
    button.setAttribute("aria-pressed", String(state.splits.includes(place))));
  const all = data.image.length;
  const drawn = data.total > all ? `, drawn from ${data.total.toLocaleString("en")}` : "";
  $("count").textContent = view.length === all
    ? `${all.toLocaleString("en")} pairs${drawn}`
    : `${view.length.toLocaleString("en")} of ${all.toLocaleString("en")} pairs${drawn}`;
  $("empty").hidden = view.length > 0;
}

function listenFilters() {
  const on = (id, type, act) => $(id).addEventListener(type, act);
  for (const name of ["fill", "tile"]) on(name, "input", (e) => change({ [name]: Number(e.target.value) }));
  on("large-fill", "input", (e) => change({ fill: Number(e.target.value) }));
  for (const name of ["sort", "show", "source"]) on(name, "change", (e) => change({ [name]: e.target.value }));
  for (const name of ["masks", "recipes"]) on(name, "change", (e) => change({ [name]: e.target.checked }));
  on("find", "input", (e) => change({ find: e.target.value }));
  on("low", "input", (e) => change({ low: Math.min(Number(e.target.value), state.high) }));
  on("high", "input", (e) => change({ high: Math.max(Number(e.target.value), state.low) }));
  on("reset", "click", resetFilters);
  on("empty-reset", "click", resetFilters);
  on("filters-open", "click", () => {
    const open = document.body.classList.toggle("filters");
    $("filters-open").setAttribute("aria-expanded", String(open));
    layout();
  });
  on("theme", "click", changeTheme);
}

/** Light or dark: as the system has it until the user chooses. */
function changeTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("dollmaker-gallery-theme", root.dataset.theme);
  } catch {
    // a browser that keeps nothing for files: the choice lasts as long as the page
  }
}

function recallTheme() {
  let kept = null;
  try {
    kept = localStorage.getItem("dollmaker-gallery-theme");
  } catch {
    // see above
  }
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
}
