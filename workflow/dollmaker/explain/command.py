"""``dollmaker explain``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("--config", required=True, help="configuration file or inline JSON")
    parser.add_argument("--segmenter", type=Path, required=True, help="folder of the segmenter")
    parser.add_argument("--index", type=Path, required=True, help="index of the images")
    parser.add_argument("--images", type=Path, required=True, help="folder of the image shards")
    parser.add_argument("--labels", type=Path, required=True, help="folder of the labels")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--method",
        nargs="+",
        choices=["seg_grad_cam", "seg_hires_cam"],
        help="methods (default: explain.methods of the configuration: both)",
    )
    parser.add_argument(
        "--layer",
        help="module, or stage of encoder or decoder (default: explain.layer: encoder.-1, the "
        "deepest)",
    )
    parser.add_argument(
        "--pixels",
        choices=["image", "class", "truth", "point", "zero"],
        help="pixels whose logits are explained (default: point if --point is given, else "
        "explain.pixels: class, those predicted as the class)",
    )
    parser.add_argument("--point", type=_point, metavar="X,Y", help="column and row of one pixel")
    parser.add_argument("--images-limit", type=int, metavar="N", help="explain N images at most")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Explain a segmenter."""
    from dollmaker.config import settings as config
    from dollmaker.explain.stage import Request, explain_segmenter

    options = config.load(arguments.config)
    section = options["explain"]
    pixels, point = arguments.pixels, arguments.point
    if pixels is None and point is None:
        pixels, point = section["pixels"], section["point"]
    request = Request(
        methods=tuple(dict.fromkeys(arguments.method or section["methods"])),
        layer=arguments.layer or section["layer"],
        pixels=pixels or ("class" if point is None else "point"),
        point=None if point is None else (point[0], point[1]),
        limit=section["images"] if arguments.images_limit is None else arguments.images_limit,
    )
    explain_segmenter(
        options,
        arguments.segmenter,
        arguments.index,
        arguments.images,
        arguments.labels,
        arguments.output,
        request,
    )


def _point(text: str) -> tuple[int, int]:
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y; give two whole numbers") from None
    return x, y
