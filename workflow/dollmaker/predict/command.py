"""``dollmaker predict``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("release", type=Path, help="folder of the release")
    parser.add_argument("images", type=Path, help="a picture or DICOM file, or a folder of them")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--model",
        default="segmenter",
        help="segmenter (the default), committee, or an adapter that the release carries",
    )
    parser.add_argument(
        "--to", default="png", help="png (the default), nifti, chexlocalize or overlay"
    )
    parser.add_argument("--findings", nargs="+", help="the findings to draw; all without")
    parser.add_argument("--maps", action="store_true", help="write the maps behind the masks, too")
    parser.add_argument(
        "--min-probability",
        type=float,
        default=0.5,
        help="findings that the committee thinks less probable are not explained (0.5)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Predict."""
    from dollmaker.predict.stage import predict

    predict(
        arguments.release,
        arguments.images,
        arguments.output,
        model=arguments.model,
        form=arguments.to,
        findings=arguments.findings,
        maps=arguments.maps,
        min_probability=arguments.min_probability,
        device=arguments.device,
    )
