// The large view of one pair.
const largePanels = [];
let tuning = { brightness: 100, contrast: 100, invert: false };

function openLarge(row, step) {
  state.open = row;
  const place = view.indexOf(row);
  if (place >= 0) current = place;
  if (!$("large").open) {
    $("large").showModal();
    $("large").focus(); // not a button, so that Enter does nothing unasked
  }
  writeAddress(step && history.state?.opened !== true);
  writeAddress(false);
  showLarge();
}

/** Close the large view; go back in history where opening it was a step. */
function closeLarge(back) {
  if (state.open < 0) return;
  state.open = -1;
  if ($("large").open) $("large").close();
  if (back && history.state?.opened) {
    leaving = true;
    history.back();
  } else if (back) writeAddress(false);
  goTo(current);
}

function moveLarge(step) {
  const place = view.indexOf(state.open);
  const next = view[place + step];
  if (place >= 0 && next !== undefined) openLarge(next, false);
}

/** Draw the open pair; called again whenever the state or the window changes. */
function showLarge() {
  const row = state.open;
  const place = view.indexOf(row);
  $("large-title").textContent = findingOf(row);
  $("large-place").textContent = place < 0
    ? "outside the filters"
    : `${(place + 1).toLocaleString("en")} of ${view.length.toLocaleString("en")}`;
  $("previous").disabled = place <= 0;
  $("next").disabled = place < 0 || place >= view.length - 1;
  const recipes = shownRecipes().length;
  const side = panelSide(recipes);
  fitPanels($("panels"), largePanels, side, recipes > 1);
  for (const one of largePanels) {
    placePicture(one.img, row, side, true);
    one.img.style.filter = filterOf(row);
  }
  showTuning();
  showSame(row);
  const draw = () => {
    if (state.open !== row) return;
    for (const one of largePanels) {
      drawMask(one.canvas, row, one.recipe, side);
      if (one.label) one.label.textContent = recipeFacts(row, one.recipe);
    }
    showFacts(row);
  };
  if (block(row).value) draw();
  else block(row).ready.then(draw);
}

/** The side at which this many panels fit the view, or two the width of a narrow window. */
function panelSide(count) {
  const room = $("panels").getBoundingClientRect();
  const narrow = matchMedia("(max-width: 760px)").matches;
  const label = count > 1 ? 46 : 0;
  const sides = Array.from({ length: narrow ? Math.min(2, count) : count }, (_, k) => {
    const wide = (room.width - 8 * k) / (k + 1);
    const high = narrow ? innerHeight : room.height / Math.ceil(count / (k + 1)) - label;
    return Math.floor(Math.min(wide, high));
  });
  const least = narrow ? 0 : 0.8 * Math.max(...sides); // one row is easier to compare than two
  return Math.max(64, sides.filter((side) => side >= least).at(-1));
}

function filterOf(row) {
  if (ground(row)?.kind !== "image") return "none";
  const { brightness, contrast, invert } = tuning;
  return `${invert ? "invert(1) " : ""}brightness(${brightness}%) contrast(${contrast}%)`;
}

function recipeFacts(row, recipe) {
  const name = recipeName(recipe);
  const found = columnsOf(row, recipe);
  if (!found) return `${name}: no mask`;
  const quality = recipe ? found.columns.quality[found.place] : data.quality[row];
  const iou = recipe ? `, IoU with released ${number(overlap(row, 0, recipe))}` : "";
  return `${name}: quality ${number(quality)}${iou}`;
}

const LABELS = { 1: "present", 0: "absent", "-1": "uncertain" };

function showFacts(row) {
  const facts = detail(row);
  const [left, top, width, height] = facts("box");
  const size = facts("size");
  const lines = [
    ["Quality", number(data.quality[row], 3)],
    ["IoU", boundText(row)],
    ["Agreement", number(facts("agreement"), 3)],
    ["Completeness", number(facts("completeness"), 3)],
    ["Probability", number(facts("probability"), 3)],
    ["Threshold", number(facts("threshold"), 3)],
    ["Area", `${percent(data.area[row])}, ${facts("area").toLocaleString("en")} px`],
    ["Parts", String(facts("components"))],
    ["Box", `${left}, ${top}, ${width} × ${height} of ${size[1]} × ${size[0]}`],
    ["Label", LABELS[facts("label")] ?? "–"],
    ["Split", data.splits[data.split[row]]],
    ["Image", imageId(row)],
    ["Patient", facts("patient_id") ?? "–"],
    ["Path", facts("path")],
    ["Source size", `${facts("width")} × ${facts("height")}`],
  ];
  $("facts").replaceChildren(...lines.flatMap(([name, text]) => [make("dt", "", name), words("dd", "", text)]));
}

/** The other findings of the same image. */
function showSame(row) {
  const rows = data.image.flatMap((image, other) => (image === data.image[row] ? [other] : []));
  $("same-row").hidden = rows.length < 2;
  $("same").replaceChildren(...rows.map((other) => {
    const button = make("button", "chip");
    button.type = "button";
    button.append(words("span", "", findingOf(other)), make("span", "number", number(data.quality[other])));
    button.setAttribute("aria-pressed", String(other === row));
    button.addEventListener("click", () => openLarge(other, false));
    return button;
  }));
}

function showTuning() {
  for (const name of ["brightness", "contrast"]) {
    $(name).value = tuning[name];
    $(`${name}-text`).textContent = `${tuning[name]} %`;
  }
  $("invert").setAttribute("aria-pressed", String(tuning.invert));
}

function tune(changes) {
  tuning = { ...tuning, ...changes };
  if (state.open >= 0) showLarge();
}

function listenLarge() {
  $("previous").addEventListener("click", () => moveLarge(-1));
  $("next").addEventListener("click", () => moveLarge(1));
  $("close").addEventListener("click", () => closeLarge(true));
  $("large").addEventListener("close", () => closeLarge(true)); // Escape
  for (const name of ["brightness", "contrast"]) {
    $(name).addEventListener("input", (event) => tune({ [name]: Number(event.target.value) }));
  }
  $("invert").addEventListener("click", () => tune({ invert: !tuning.invert }));
  $("large-masks").addEventListener("click", () => change({ masks: !state.masks }));
  $("window-reset").addEventListener("click", () => tune({ brightness: 100, contrast: 100, invert: false }));
}
