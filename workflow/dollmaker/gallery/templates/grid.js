// The tiles. Only those near the window exist; they are used again while the page scrolls.
const GAP = 10;
const AHEAD = 3; // tiles out of sight that are drawn in one frame; those in sight are all drawn
const cells = new Map(); // place in the view -> cell
const spare = [];
let shape = null;
let current = 0;
let asked = false;
let lastTop = 0;
let settle = 0;

function shownRecipes() {
  return state.recipes ? [0, ...data.recipes.map((_, place) => place + 1)] : [0];
}

/** Sizes that follow from the window's width and the state; then draw everything anew. */
function layout() {
  const width = $("grid").clientWidth;
  const panels = shownRecipes().length;
  const wanted = panels * (state.tile + 2) - 2;
  const columns = Math.max(1, Math.floor((width + GAP) / (wanted + GAP)));
  const cell = Math.floor((width - GAP * (columns - 1)) / columns);
  const side = Math.max(16, Math.min(Math.floor((cell - 2 * (panels - 1)) / panels), 2 * state.tile));
  const height = side + (panels > 1 ? 58 : 40);
  shape = { columns, cell: panels * (side + 2) - 2, side, height, panels };
  const rows = Math.ceil(view.length / columns);
  $("grid").style.height = `${Math.max(0, rows * (height + GAP) - GAP)}px`;
  for (const place of [...cells.keys()]) drop(place);
  render();
}

function newCell() {
  const box = make("div", "cell");
  box.setAttribute("role", "listitem");
  const button = make("button", "tile");
  button.type = "button";
  const field = make("span", "field");
  const caption = make("span", "caption");
  const title = words("b", "", "");
  const quality = make("span", "quality");
  const id = words("span", "id soft", "");
  const area = make("span", "soft number");
  caption.append(title, quality, id, area);
  button.append(field, caption);
  box.append(button);
  return { box, button, field, title, quality, id, area, panels: [], place: -1, row: -1 };
}

function newPanel(recipe, named) {
  const panel = make("span", "panel");
  const picture = make("span", "picture");
  const img = make("img");
  img.alt = "";
  img.decoding = "async";
  img.draggable = false;
  const canvas = make("canvas");
  picture.append(img, canvas);
  panel.append(picture);
  let label = null;
  if (named) {
    label = words("span", "recipe", recipeName(recipe));
    label.style.borderColor = COLOURS[recipe % COLOURS.length];
    panel.append(label);
  }
  return { panel, picture, img, canvas, recipe, label };
}

/** Make a cell's panels the ones that are shown now. */
function fitPanels(holder, list, side, named) {
  const recipes = shownRecipes();
  if (list.length !== recipes.length || Boolean(list[0]?.label) !== named) {
    list.splice(0, list.length, ...recipes.map((recipe) => newPanel(recipe, named)));
    holder.replaceChildren(...list.map((one) => one.panel));
  }
  for (const one of list) {
    one.panel.style.width = one.picture.style.width = one.picture.style.height = `${side}px`;
  }
}

function drop(place) {
  const cell = cells.get(place);
  cells.delete(place);
  cell.box.remove();
  cell.row = -1;
  spare.push(cell);
}

/** Make the cells near the window, drop those far away. */
function render() {
  if (!shape) return;
  const { columns, side, height, panels } = shape;
  const top = window.scrollY - $("grid").offsetTop;
  const step = height + GAP;
  const above = Math.max(0, Math.floor((top - innerHeight * 0.5) / step));
  const below = Math.ceil((top + innerHeight * 1.5) / step);
  const first = above * columns, last = Math.min(view.length, below * columns);
  const racing = Math.abs(window.scrollY - lastTop) > 1.5 * innerHeight;
  lastTop = window.scrollY;
  for (const place of [...cells.keys()]) {
    if ((place < first || place >= last) && !cells.get(place).box.contains(document.activeElement)) drop(place);
  }
  let ahead = AHEAD, waiting = false;
  for (let place = first; place < last; place += 1) {
    if (!cells.has(place)) cells.set(place, fill(spare.pop() ?? newCell(), place, panels > 1));
    const cell = cells.get(place);
    if (racing || cell.done) continue;
    const y = Math.floor(place / columns) * step - top;
    const seen = y < innerHeight && y + step > 0;
    if (seen || ahead > 0) complete(cell, side);
    else waiting = true;
    if (!seen) ahead -= 1;
  }
  if (waiting) ask();
  if (racing) {
    clearTimeout(settle);
    settle = setTimeout(ask, 60); // pictures that fly by are not asked for
  }
}

function fill(cell, place, named) {
  const row = view[place];
  const { columns, cell: width, side, height } = shape;
  cell.place = place;
  cell.row = row;
  cell.done = false;
  const { box, button } = cell;
  box.setAttribute("aria-posinset", String(place + 1));
  box.setAttribute("aria-setsize", String(view.length));
  box.style.width = `${width}px`;
  box.style.height = `${height}px`;
  const x = (place % columns) * (width + GAP), y = Math.floor(place / columns) * (height + GAP);
  box.style.transform = `translate(${x}px, ${y}px)`;
  button.tabIndex = place === current ? 0 : -1;
  button.dataset.row = String(row);
  const quality = number(data.quality[row]);
  button.setAttribute("aria-label",
    `${findingOf(row)}, quality ${quality}, IoU ${boundText(row)}, area ${percent(data.area[row])}, image ${imageId(row)}`);
  cell.title.textContent = findingOf(row);
  cell.quality.textContent = quality;
  cell.id.textContent = imageId(row);
  cell.id.title = imageId(row);
  const bound = boundOf(row);
  // Beside a bound, a share of the area would read as its confidence.
  cell.area.textContent = data.bound
    ? (bound === null ? "rank only" : `IoU ≥ ${bound}`)
    : percent(data.area[row]);
  fitPanels(cell.field, cell.panels, side, named);
  for (const one of cell.panels) {
    one.img.hidden = true;
    const size = one.canvas.width;
    one.canvas.getContext("2d").setTransform(1, 0, 0, 1, 0, 0);
    one.canvas.getContext("2d").clearRect(0, 0, size, size);
  }
  $("grid").append(box);
  return cell;
}

/** Picture and mask of a cell, once its details are there. */
function complete(cell, side) {
  if (cell.done) return;
  cell.done = true;
  for (const one of cell.panels) placePicture(one.img, cell.row, side, false);
  const row = cell.row;
  const draw = () => {
    if (cell.row !== row) return;
    for (const one of cell.panels) {
      drawMask(one.canvas, row, one.recipe, shape.side);
      if (one.label) one.label.textContent = recipeName(one.recipe) + (columnsOf(row, one.recipe) ? "" : ": no mask");
    }
  };
  const found = block(row);
  if (found.value) draw();
  else found.ready.then(draw);
}

function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    render();
  });
}

/** Where the page is scrolled to when the first tile is just below the bar at the top. */
function gridTop() {
  return Math.max(0, $("grid").offsetTop - $("count").parentElement.offsetHeight - GAP);
}

/** Make a place of the view the current one, and bring it into the window. */
function goTo(place) {
  if (!view.length) return;
  cells.get(current)?.button.setAttribute("tabindex", "-1");
  current = Math.min(view.length - 1, Math.max(0, place));
  const step = shape.height + GAP;
  const y = Math.floor(current / shape.columns) * step + $("grid").offsetTop;
  const head = $("grid").offsetTop - gridTop();
  if (y < window.scrollY + head) window.scrollTo(0, y - head);
  else if (y + step > window.scrollY + innerHeight) window.scrollTo(0, y + step - innerHeight);
  render();
  const button = cells.get(current)?.button;
  if (!button) return;
  button.tabIndex = 0;
  if (state.open < 0) button.focus({ preventScroll: true });
}

function listenGrid() {
  window.addEventListener("scroll", ask, { passive: true });
  window.addEventListener("resize", () => {
    layout();
    if (state.open >= 0) showLarge();
  });
  $("grid").addEventListener("click", (event) => {
    const button = event.target.closest("button.tile");
    if (button) openLarge(Number(button.dataset.row), true);
  });
  $("grid").addEventListener("focusin", (event) => {
    const row = Number(event.target.closest("button.tile")?.dataset.row ?? -1);
    const place = [...cells.values()].find((cell) => cell.row === row)?.place;
    if (state.open >= 0 || place === undefined || place === current) return;
    cells.get(current)?.button.setAttribute("tabindex", "-1");
    current = place;
    event.target.tabIndex = 0;
  });
}
