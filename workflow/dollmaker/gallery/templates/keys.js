// Keys, and the start of the page.
const ACTS = {
  m: () => change({ masks: !state.masks }),
  "[": () => change({ fill: Math.max(0, state.fill - 10) }),
  "]": () => change({ fill: Math.min(100, state.fill + 10) }),
  r: () => {
    if (data.pictures.image && data.pictures.relevance) {
      change({ show: state.show === "image" ? "relevance" : "image" });
    }
  },
  s: () => data.recipes.length && change({ recipes: !state.recipes }),
  i: () => tune({ invert: !tuning.invert }),
  t: changeTheme,
  "?": () => $("keys").open || $("keys").showModal(),
};

function gridMoves() {
  const { columns } = shape;
  return {
    ArrowLeft: current - 1, ArrowRight: current + 1,
    ArrowUp: current - columns, ArrowDown: current + columns,
    Home: 0, End: view.length - 1,
  };
}

/** Whether an element needs the key itself. */
function takesKeys(target, key) {
  if (target.matches("input[type=search], select")) return true;
  if (target.matches("input")) return key.length > 1 || key === " ";
  return false;
}

function onKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || takesKeys(target, key)) return;
  if ($("keys").open) return;
  if (key in ACTS) {
    ACTS[key]();
    event.preventDefault();
    return;
  }
  if (state.open >= 0) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[key];
    if (!step) return;
    moveLarge(step);
    event.preventDefault();
    return;
  }
  if (key === "/") {
    document.body.classList.add("filters");
    $("filters-open").setAttribute("aria-expanded", "true");
    $("find").focus();
    event.preventDefault();
    return;
  }
  const to = gridMoves()[key];
  if (to !== undefined && view.length) {
    const inside = $("grid").contains(document.activeElement);
    if (inside && to >= 0 && to < view.length) goTo(to);
    else if (!inside) goTo(current);
    event.preventDefault();
  } else if (key === "Enter" && view.length && (target === document.body || target === $("grid"))) {
    openLarge(view[current], true);
    event.preventDefault();
  }
}

function start(value) {
  data = value;
  buildFilters();
  followAddress();
  listenFilters();
  listenGrid();
  listenLarge();
  $("help").addEventListener("click", ACTS["?"]);
  $("keys-close").addEventListener("click", () => $("keys").close());
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    goTo(current);
  });
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", followAddress);
}

recallTheme();
window.addEventListener("load", () => {
  if (!data) problem("data/pairs.js is missing: keep index.html, data and sheets together.");
});
