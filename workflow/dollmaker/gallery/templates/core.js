// The page's data. Scripts beside it call dollmakerGallery(kind, number, value).
const COLOURS = ["#ff8c14", "#4191ff", "#28cdaf", "#d75abe", "#f0d73c"];
const BINS = 20;
let data = null;
const blocks = new Map();

window.dollmakerGallery = (kind, number, value) => {
  if (kind === "pairs") start(value);
  else blocks.get(number)?.arrived(value);
};

function $(id) {
  return document.getElementById(id);
}

/** A new element; text from data only ever gets in by textContent. */
function make(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== "") node.textContent = text;
  return node;
}

/** Text that may run in any direction. */
function words(tag, className, text) {
  const node = make(tag, className, text);
  node.dir = "auto";
  return node;
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

/** The block of details that holds a row: {value: columns or null, ready: promise}. */
function block(row) {
  const number = Math.floor(row / data.block);
  if (!blocks.has(number)) {
    const entry = { value: null };
    entry.ready = new Promise((resolve) => {
      entry.arrived = (value) => {
        entry.value = value;
        resolve();
      };
    });
    blocks.set(number, entry);
    const name = `data/masks-${String(number).padStart(4, "0")}.js`;
    const script = make("script");
    script.src = name;
    script.onerror = () => problem(`${name} is missing: keep index.html, data and sheets together.`);
    document.head.append(script);
  }
  return blocks.get(number);
}

/** Facts of a row by name; null until its block is there. */
function detail(row) {
  const value = block(row).value;
  if (!value) return null;
  const place = row % data.block;
  return (name) => value[name][place];
}

function imageId(row) {
  return data.images[data.image[row]];
}

function findingOf(row) {
  return data.findings[data.finding[row]];
}

function recipeName(recipe) {
  return recipe ? data.recipes[recipe - 1] : "released";
}

function number(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function percent(share) {
  return share === null ? "–" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** A row's bound in two digits, rounded down; null where its quality only ranks. */
function boundOf(row) {
  const bound = data.bound?.[row] ?? null;
  return bound === null ? null : (Math.floor(Math.round(bound * 1e4) / 100) / 100).toFixed(2);
}

/** A row's bound in words. */
function boundText(row) {
  const bound = boundOf(row);
  return bound === null ? "rank only" : `at least ${bound} (${confidence()})`;
}

function confidence() {
  return `${Number((100 * data.confidence).toPrecision(4))}\u00a0%`;
}

/** Which pictures there are of a row, the wanted kind first. */
function ground(row) {
  const kinds = state.show === "image" ? ["image", "relevance"] : ["relevance", "image"];
  for (const kind of kinds) {
    const slots = data.pictures[kind]?.slots;
    const slot = slots ? slots[kind === "image" ? data.image[row] : row] : -1;
    if (slot >= 0) return { kind, slot };
  }
  return null;
}

/** Show a row's picture in an img, cut from its sheet and as large as side; false without one. */
function placePicture(img, row, side, large) {
  const found = ground(row);
  img.hidden = !found;
  if (!found) return false;
  const pictures = data.pictures[found.kind];
  const size = large && pictures.large ? "large" : "small";
  const sheet = pictures[size];
  const cells = sheet.columns * sheet.columns;
  const name = String(Math.floor(found.slot / cells)).padStart(4, "0");
  const address = `sheets/${found.kind}-${size}-${name}.jpg`;
  const cell = found.slot % cells;
  const left = (cell % sheet.columns) * sheet.pitch;
  const top = Math.floor(cell / sheet.columns) * sheet.pitch;
  const scale = side / sheet.side;
  const last = pictures.count - cells * Math.floor(found.slot / cells);
  const columns = Math.min(sheet.columns, last);
  if (img.getAttribute("src") !== address) {
    img.src = address;
    img.style.visibility = img.complete ? "visible" : "hidden"; // never another image's sheet
    img.onload = () => (img.style.visibility = "visible");
    img.onerror = () => problem(`${address} is missing: keep index.html, data and sheets together.`);
  }
  img.style.width = `${columns * sheet.pitch * scale}px`;
  img.style.transform = `translate(${-left * scale}px, ${-top * scale}px)`;
  return true;
}
