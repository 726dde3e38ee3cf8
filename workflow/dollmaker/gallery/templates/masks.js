// Masks: COCO's run-length code, its outline as a path, and how both are drawn.
const paths = new Map();
const MOST_PATHS = 1500;

/** Run lengths of a compressed COCO code, background first; null if it is damaged. */
function decodeRuns(code, pixels) {
  const runs = [];
  let total = 0;
  for (let place = 0; place < code.length;) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = code.charCodeAt(place) - 48;
      if (!(bits >= 0 && bits < 64) || shift > 30) return null;
      value |= (bits & 31) << shift;
      more = (bits & 32) !== 0;
      place += 1;
      shift += 5;
      if (!more && bits & 16 && shift < 32) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    if (value < 0) return null;
    runs.push(value);
    total += value;
  }
  return total === pixels ? runs : null;
}

/** The pixels of a mask, one column after the other, and the box that holds them. */
function decodeMask(code, height, width) {
  const runs = decodeRuns(code, height * width);
  if (!runs) return null;
  const pixels = new Uint8Array(height * width);
  let place = 0, left = width, right = -1, top = height, bottom = -1;
  runs.forEach((run, turn) => {
    if (turn % 2 && run) {
      const end = place + run - 1;
      const first = Math.floor(place / height), last = Math.floor(end / height);
      pixels.fill(1, place, end + 1);
      left = Math.min(left, first);
      right = Math.max(right, last);
      top = first < last ? 0 : Math.min(top, place % height);
      bottom = first < last ? height - 1 : Math.max(bottom, end % height);
    }
    place += run;
  });
  return { pixels, height, width, left, right, top, bottom };
}

// Marching squares: from which edge of four pixels to which the outline runs, by the pixels that
// are inside (top left 1, top right 2, bottom right 4, bottom left 8). Edges: 0 top, 1 right,
// 2 bottom, 3 left. Pixels that touch at a corner only are two parts.
const STEPS = [
  [], [[0, 3]], [[1, 0]], [[1, 3]], [[2, 1]], [[0, 3], [2, 1]], [[2, 0]], [[2, 3]],
  [[3, 2]], [[0, 2]], [[1, 0], [3, 2]], [[1, 2]], [[3, 1]], [[0, 1]], [[3, 0]], [],
];
const EDGE_X = [1, 2, 1, 0], EDGE_Y = [0, 1, 2, 1];

/** Closed outlines of a mask as lists of x, y in pixels. */
function outlines(mask) {
  const { pixels, height, width } = mask;
  const stride = 2 * width + 4; // places are counted in half pixels
  const follow = new Map();
  for (let x = mask.left - 1; x <= mask.right; x += 1) {
    const near = x >= 0 ? x * height : -1, far = x + 1 < width ? (x + 1) * height : -1;
    let code = 0;
    for (let y = mask.top - 1; y <= mask.bottom; y += 1) {
      const inside = y + 1 < height;
      const left = inside && near >= 0 ? pixels[near + y + 1] : 0;
      const right = inside && far >= 0 ? pixels[far + y + 1] : 0;
      code = (code >> 3) & 1 | (code >> 1) & 2 | right << 2 | left << 3; // what was below is above
      if (code === 0 || code === 15) continue;
      const base = (2 * y + 2) * stride + 2 * x + 2;
      for (const [from, to] of STEPS[code]) {
        follow.set(base + EDGE_Y[from] * stride + EDGE_X[from], base + EDGE_Y[to] * stride + EDGE_X[to]);
      }
    }
  }
  const loops = [];
  for (const first of follow.keys()) {
    const loop = [];
    for (let key = first; follow.has(key);) {
      loop.push((key % stride) / 2 - 0.5, Math.floor(key / stride) / 2 - 0.5);
      const next = follow.get(key);
      follow.delete(key);
      key = next;
    }
    loops.push(loop);
  }
  return loops;
}

/** Columns of a recipe (0 is the released one) and the place of a row in them; null if not there. */
function columnsOf(row, recipe) {
  const value = block(row).value;
  const columns = value && (recipe ? value.others[recipe - 1] : value);
  const place = row % data.block;
  return columns && columns.counts[place] !== null ? { columns, place } : null;
}

function pixelsOf(row, recipe) {
  const found = columnsOf(row, recipe);
  if (!found) return null;
  const [height, width] = found.columns.size[found.place];
  return decodeMask(found.columns.counts[found.place], height, width);
}

/** Outline of a row's mask as a path in pixels, kept for the next time; null without a mask. */
function pathOf(row, recipe) {
  const key = `${recipe}:${row}`;
  if (paths.has(key)) return paths.get(key);
  const mask = pixelsOf(row, recipe);
  if (!mask) return null;
  const path = new Path2D();
  for (const loop of outlines(mask)) {
    path.moveTo(loop[0], loop[1]);
    for (let k = 2; k < loop.length; k += 2) path.lineTo(loop[k], loop[k + 1]);
    path.closePath();
  }
  const entry = { path, height: mask.height, width: mask.width };
  if (paths.size >= MOST_PATHS) paths.delete(paths.keys().next().value);
  paths.set(key, entry);
  return entry;
}

/** Fill and outline of a row's mask on a canvas that is side CSS pixels wide and high. */
function drawMask(canvas, row, recipe, side) {
  const length = Math.round(side * (window.devicePixelRatio || 1));
  const pen = canvas.getContext("2d");
  if (canvas.width !== length) canvas.width = canvas.height = length;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, length, length);
  const entry = state.masks ? pathOf(row, recipe) : null;
  if (!entry) return;
  const scale = length / Math.max(entry.width, entry.height);
  pen.setTransform(length / entry.width, 0, 0, length / entry.height, 0, 0);
  const colour = COLOURS[recipe % COLOURS.length];
  pen.globalAlpha = state.fill / 100;
  pen.fillStyle = colour;
  pen.fill(entry.path, "evenodd");
  pen.globalAlpha = 1;
  pen.lineJoin = "round";
  const line = ((side > 260 ? 2 : 1.4) * length) / side / scale;
  for (const [ink, width] of [["rgba(0, 0, 0, 0.55)", 2 * line], [colour, line]]) {
    pen.strokeStyle = ink;
    pen.lineWidth = width;
    pen.stroke(entry.path);
  }
}

/** Intersection over union of two recipes' masks of a row; null where one is missing. */
function overlap(row, one, other) {
  const a = pixelsOf(row, one), b = pixelsOf(row, other);
  if (!a || !b || a.pixels.length !== b.pixels.length) return null;
  let both = 0, any = 0;
  for (let k = 0; k < a.pixels.length; k += 1) {
    both += a.pixels[k] & b.pixels[k];
    any += a.pixels[k] | b.pixels[k];
  }
  return any ? both / any : null;
}
