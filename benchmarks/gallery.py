"""How soon a gallery shows its first tiles, and how smoothly it scrolls."""

import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import ndimage

from dollmaker.gallery.page import Content, write_gallery
from dollmaker.phantoms.patient import sample_patient
from dollmaker.phantoms.study import render_frontal
from dollmaker.release.parts import SCHEMA
from dollmaker.store.findings import CHEXPERT
from dollmaker.store.rle import encode
from shared import keep, options, start

_WINDOW = (1600, 1000)
_PHANTOMS, _MASKS = 24, 200
#: Pixels that a frame of the scroll goes on: about three windows a second.
_STEP, _FRAMES = 60, 300

# Notes when every picture of the window is decoded and drawn, masks too, and that was painted.
_WATCH = """
window.longTasks = [];
new PerformanceObserver(list => longTasks.push(...list.getEntries().map(e => e.duration)))
  .observe({type: "longtask"});
const look = async () => {
  const tiles = [...document.querySelectorAll(".tile")]
    .filter(tile => tile.getBoundingClientRect().top < innerHeight);
  const ready = tile => [...tile.querySelectorAll("img:not([hidden])")].every(img => img.complete)
    && tile.querySelector("canvas").width !== 300;  // a canvas's width until it is drawn on
  if (!tiles.length || !tiles.every(ready)) return requestAnimationFrame(look);
  await Promise.all(tiles.flatMap(tile => [...tile.querySelectorAll("img")].map(i => i.decode())));
  requestAnimationFrame(() => requestAnimationFrame(() => {
    window.firstTiles = {after: performance.now(), tiles: tiles.length};
  }));
};
requestAnimationFrame(look);
"""

_SCROLL = """
const [step, count, done] = arguments;
const frames = [];
longTasks.length = 0;
let last = performance.now();
const next = now => {
  frames.push(now - last);
  last = now;
  window.scrollBy(0, step);
  if (frames.length <= count) requestAnimationFrame(next);
  else done({frames: frames.slice(1), long: longTasks, y: window.scrollY});
};
requestAnimationFrame(next);
"""


def measure(*, size: int, images: int, rounds: int) -> dict[str, Any]:
    """Write a gallery of generated pairs and look at it in headless Chromium.

    Each pair has an image of its own. Pictures are drawn by a processor, as there is no graphics
    card; a reader's browser is faster.

    Args:
        size: Side of masks and pictures in pixels.
        images: Pairs.
        rounds: Medians are taken over these; each starts with an empty profile.

    Returns:
        Seconds to write, bytes, milliseconds to the first tiles, and facts of the scroll.

    Raises:
        ConfigError: If there is no browser.
    """
    rows, pictures = pairs(images, size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "gallery"
        begin = time.perf_counter()
        write_gallery(
            rows,
            folder,
            Content(
                title="bench",
                version="0.0.0",
                source="generated",
                picture=lambda image_id: pictures[int(image_id)],
            ),
        )
        written = time.perf_counter() - begin
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        found = [_look(folder / "index.html", Path(name) / f"profile{k}") for k in range(rounds)]
        page = (folder / "index.html").stat().st_size
    return {
        "pairs": images,
        "size": size,
        "rounds": rounds,
        "processor": platform.processor() or platform.machine(),
        "seconds_to_write": written,
        "files": len(sizes),
        "bytes": sum(sizes),
        "bytes_index": page,
        **{key: statistics.median(one[key] for one in found) for key in found[0]},
    }


def _look(page: Path, profile: Path) -> dict[str, float]:
    driver = start(profile)
    try:
        driver.set_script_timeout(120)
        width, height = _WINDOW
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
        driver.get(page.as_uri())
        while not (first := driver.execute_script("return window.firstTiles")):
            time.sleep(0.05)
        scroll = driver.execute_async_script(_SCROLL, _STEP, _FRAMES)
    finally:
        driver.quit()
    frames = sorted(scroll["frames"])
    return {
        "first_tiles_ms": first["after"],
        "first_tiles": first["tiles"],
        "scrolled_px": scroll["y"],
        "frame_ms_median": statistics.median(frames),
        "frame_ms_p95": frames[int(0.95 * len(frames))],
        "frame_ms_longest": frames[-1],
        "frames_late": sum(frame > 25 for frame in frames) / len(frames),
        "long_tasks": len(scroll["long"]),
    }


def pairs(count: int, size: int) -> tuple[pl.DataFrame, list[npt.NDArray[np.uint8]]]:
    """Rows as of a release, and the picture of each: radiographs and blobs, moved about; seeded."""
    rng = np.random.default_rng(0)
    films = [
        render_frontal(sample_patient(rng, ap=False), {}, (size, size), k).image
        for k in range(min(count, _PHANTOMS))
    ]
    blobs = [_blob(rng, size) for _ in range(min(count, _MASKS))]
    rows, pictures = [], []
    for k in range(count):
        shift = rng.integers(-size // 8, size // 8 + 1, 2)
        mask = np.roll(blobs[k % len(blobs)], shift, (0, 1))
        film = np.roll(films[k % len(films)], shift, (0, 1))
        pictures.append(film[:, ::-1].copy() if rng.random() < 0.5 else film)
        ys, xs = np.nonzero(mask)
        rows.append(
            {
                "image_id": str(k),
                "path": f"images/{k:05d}.png",
                "sha256": f"{k:064x}",
                "patient_id": f"patient{k:05d}",
                "split": ("train", "train", "valid", "test")[k % 4],
                "width": size,
                "height": size,
                "finding": CHEXPERT[int(rng.integers(len(CHEXPERT)))],
                "label": 1,
                "probability": float(rng.random()),
                "size": [size, size],
                "counts": encode(mask),
                "area": int(mask.sum()),
                "box": [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1],
                "components": 1,
                "threshold": 0.3,
                "quality": float(rng.beta(4, 3)),
                "agreement": float(rng.random()),
                "completeness": 0.02,
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row"), pictures


def _blob(rng: np.random.Generator, size: int) -> npt.NDArray[np.bool_]:
    """The highest twelfth of a smooth field."""
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), size / 12)
    return np.asarray(field >= np.quantile(field, 11 / 12))


def print_gallery(results: Mapping[str, Any]) -> None:
    """Print to stdout."""
    print(
        f"gallery, {results['pairs']:,} pairs, {results['size']} px, median of "
        f"{results['rounds']} rounds, headless Chromium without a graphics card, "
        f"{results['processor']}\n"
        f"written in {results['seconds_to_write']:.1f} s: {results['files']} files, "
        f"{results['bytes'] / 1e6:.1f} MB, index.html {results['bytes_index'] / 1e3:.0f} kB\n"
        f"first {results['first_tiles']:.0f} tiles painted {results['first_tiles_ms']:.0f} ms "
        "after navigation\n"
        f"scrolling {results['scrolled_px']:,.0f} px in {_FRAMES} frames: median frame "
        f"{results['frame_ms_median']:.1f} ms, 95 % under {results['frame_ms_p95']:.1f} ms, "
        f"longest {results['frame_ms_longest']:.1f} ms, later than 25 ms "
        f"{100 * results['frames_late']:.1f} %, {results['long_tasks']:.0f} tasks over 50 ms"
    )


def main() -> None:
    """Measure and print."""
    given = options(__doc__, size=112, images=10_000, rounds=3).parse_args()
    results = measure(size=given.size, images=given.images, rounds=given.rounds)
    print_gallery(results)
    keep(results, given.json)


if __name__ == "__main__":
    main()
