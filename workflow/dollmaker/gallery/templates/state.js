// What is shown. The address keeps it, so that a link brings back the same view.
const DEFAULTS = {
  findings: [], splits: [], source: "", low: 0, high: 1, find: "", sort: "quality-",
  fill: 30, tile: 160, show: "image", masks: true, recipes: false, open: -1,
};
const SORTS = ["quality-", "quality", "area-", "area"];
const BOUND_SORT = "bound-";
let state = { ...DEFAULTS };
let view = []; // rows that fit the filters, in order
let leaving = false;

function sorts() {
  return data.bound ? [...SORTS, BOUND_SORT] : SORTS;
}

function clamp(text, low, high, otherwise) {
  const value = Number(text);
  return text === null || text === "" || !Number.isFinite(value)
    ? otherwise : Math.min(high, Math.max(low, value));
}

/** The state that an address describes; what it does not know is left at its default. */
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const known = (name, list) => [...new Set(given.getAll(name).map((text) => list.indexOf(text)))]
    .filter((place) => place >= 0);
  const [low, high] = (given.get("quality") ?? "0~1").split("~");
  const source = given.get("source");
  return {
    findings: known("finding", data.findings),
    splits: known("split", data.splits),
    source: data.sources.length > 1 && data.sources.includes(source) ? source : "",
    low: clamp(low, 0, 1, 0),
    high: clamp(high ?? null, 0, 1, 1),
    find: given.get("find") ?? "",
    sort: sorts().includes(given.get("sort")) ? given.get("sort") : DEFAULTS.sort,
    fill: clamp(given.get("fill"), 0, 100, DEFAULTS.fill),
    tile: clamp(given.get("tile"), 96, 320, DEFAULTS.tile),
    show: data.pictures.relevance && (given.get("show") === "relevance" || !data.pictures.image)
      ? "relevance" : "image",
    masks: given.get("masks") !== "off",
    recipes: data.recipes.length > 0 && given.get("recipes") === "on",
    open: rowOf(given.get("image"), given.get("of")),
  };
}

function rowOf(image, finding) {
  if (image === null) return -1;
  const wanted = data.images.indexOf(image);
  return data.image.findIndex((k, row) => k === wanted && findingOf(row) === finding);
}

function address() {
  const kept = new URLSearchParams();
  const keep = (name, value, usual) => value !== usual && kept.set(name, value);
  state.findings.forEach((place) => kept.append("finding", data.findings[place]));
  state.splits.forEach((place) => kept.append("split", data.splits[place]));
  keep("source", state.source, "");
  keep("quality", `${state.low}~${state.high}`, "0~1");
  keep("find", state.find, "");
  for (const name of ["sort", "fill", "tile"]) keep(name, state[name], DEFAULTS[name]);
  keep("show", state.show, data.pictures.image ? "image" : state.show);
  keep("masks", state.masks ? "on" : "off", "on");
  keep("recipes", state.recipes ? "on" : "off", "off");
  if (state.open >= 0) {
    kept.set("image", imageId(state.open));
    kept.set("of", findingOf(state.open));
  }
  return `#${kept}`;
}

/** Write the address. Opening a pair is a step that the browser's Back takes back. */
function writeAddress(step) {
  const wanted = address();
  const kept = step ? { opened: true } : history.state;
  if (step) history.pushState(kept, "", wanted);
  else if (wanted !== (location.hash || "#")) history.replaceState(kept, "", wanted);
}

/** Whether a row fits all filters but those of finding and quality. */
function fitsRest(row) {
  return (!state.splits.length || state.splits.includes(data.split[row]))
    && (state.source === "" || data.sources[data.source[row]] === state.source)
    && (state.find === "" || imageId(row).toLowerCase().includes(state.find.toLowerCase()));
}

function fitsQuality(quality) {
  if (state.low <= 0 && state.high >= 1) return true;
  return quality !== null && quality >= state.low && (quality < state.high || state.high >= 1);
}

/** Rows that fit, sorted, and the histograms of all that fit but for finding and quality. */
function select() {
  const histograms = data.findings.map(() => new Array(BINS).fill(0));
  const fit = [];
  for (let row = 0; row < data.image.length; row += 1) {
    if (!fitsRest(row)) continue;
    const finding = data.finding[row], quality = data.quality[row];
    if (quality !== null) histograms[finding][binOf(quality)] += 1;
    if (state.findings.length && !state.findings.includes(finding)) continue;
    if (fitsQuality(quality)) fit.push(row);
  }
  const column = data[state.sort.replace("-", "")];
  const sign = state.sort.endsWith("-") ? -1 : 1;
  const rank = (row) => (column[row] === null ? Infinity : sign * column[row]);
  fit.sort((a, b) => (rank(a) === rank(b) ? a - b : rank(a) - rank(b)));
  view = fit;
  return histograms;
}

function binOf(quality) {
  return Math.min(BINS - 1, Math.max(0, Math.floor(quality * BINS + 1e-9)));
}

/** Change the state and show it. Filters and sort lead back to the top. */
function change(changes) {
  state = { ...state, ...changes };
  const selects = ["findings", "splits", "source", "low", "high", "find", "sort"];
  if (selects.some((name) => name in changes)) {
    const top = gridTop();
    if (window.scrollY > top) window.scrollTo(0, top);
    current = 0;
    showFilters(select());
  }
  showControls();
  layout();
  if (state.open >= 0) showLarge();
  writeAddress(false);
}

function resetFilters() {
  const { findings, splits, source, low, high, find } = DEFAULTS;
  change({ findings, splits, source, low, high, find });
}

/** Take over what the address says, at the start and whenever the user changes it. */
function followAddress() {
  if (leaving) {
    leaving = false;
    writeAddress(false);
    return;
  }
  const { open, ...rest } = readAddress();
  if (open < 0) closeLarge(false);
  change({ ...rest, open: -1 });
  if (open >= 0) openLarge(open, false);
}
