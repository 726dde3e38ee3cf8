"""``dollmaker bench``: attribute, binarize, release, gallery and startup."""

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument(
        "what",
        choices=["attribute", "binarize", "release", "gallery", "startup"],
        help="what to measure",
    )
    parser.add_argument(
        "--size", type=int, help="side in pixels (default 224; gallery 112; startup 64)"
    )
    parser.add_argument("--images", type=int, help="images (default 8; gallery 10000; startup 60)")
    parser.add_argument(
        "--rounds", type=int, help="rounds, medians are taken (5; gallery, startup 3)"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of a release (default 2000)")
    # No defaults here: what is not given is not in the arguments, and what is given to a benchmark
    # that has no use for it can be refused.
    group = parser.add_argument_group("attribute", argument_default=argparse.SUPPRESS)
    group.add_argument("--architecture", help="untrained network (default densenet121)")
    group.add_argument("--member", type=Path, help="folder of a trained member, instead")
    group.add_argument("--shard", type=Path, help="image shard to take the member's images from")
    group.add_argument("--findings", type=int, help="findings an image (default 5)")
    group.add_argument("--nodes", type=int, help="nodes of Captum (default 50)")
    group.add_argument("--reference", type=int, help="nodes of the reference map (default 512)")
    group.add_argument("--chunk", type=int, help="rows of a pass (default: measured)")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default auto)")
    group.add_argument(
        "--precision", choices=["fp32", "tf32", "bf16"], help="of ours (default fp32)"
    )
    group.add_argument("--compile", action="store_true", help="use torch.compile for ours")


_ATTRIBUTE: dict[str, Any] = {
    "architecture": "densenet121",
    "member": None,
    "shard": None,
    "findings": 5,
    "nodes": 50,
    "reference": 512,
    "chunk": None,
    "device": "auto",
    "precision": "fp32",
    "compile": False,
}


_USUAL = {"size": 224, "images": 8, "rounds": 5}
_OWN = {
    "gallery": {"size": 112, "images": 10_000, "rounds": 3},
    "startup": {"size": 64, "images": 60, "rounds": 3},
}


def run(name: str, arguments: argparse.Namespace) -> None:
    """Measure and print a table."""
    from dollmaker.runtime.errors import ConfigError
    from dollmaker.store.files import write_json

    for key, value in _OWN.get(arguments.what, _USUAL).items():
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    for key in ("size", "findings", "images", "nodes", "reference", "rounds", "pairs"):
        if getattr(arguments, key, 1) < 1:
            raise ConfigError(f"--{key} is {getattr(arguments, key)}; give a positive number.")
    given = [key for key in _ATTRIBUTE if key in arguments]
    if arguments.what != "attribute" and given:
        raise ConfigError(f"bench {arguments.what} has no use for --{given[0]}; leave it out.")
    others = {
        "binarize": _binarize,
        "release": _release,
        "gallery": _gallery,
        "startup": _startup,
    }
    if arguments.what in others:
        results = others[arguments.what](arguments)
    else:
        defaults = {key: value for key, value in _ATTRIBUTE.items() if key not in given}
        results = _attribute(argparse.Namespace(**{**vars(arguments), **defaults}))
    if arguments.json:
        write_json(arguments.json, results)


def _binarize(arguments: argparse.Namespace) -> dict[str, Any]:
    from dollmaker.bench import cuts
    from dollmaker.bench.binarize import measure, print_speeds

    results = measure(size=arguments.size, images=arguments.images, rounds=arguments.rounds)
    print_speeds(results)
    results["cuts_per_second"] = cuts.measure_cuts(images=arguments.images, grids=cuts.GRIDS)
    cuts.print_cuts(results["cuts_per_second"])
    return results


def _release(arguments: argparse.Namespace) -> dict[str, Any]:
    from dollmaker.bench.release import measure, print_seconds

    results = measure(size=arguments.size, pairs=arguments.pairs)
    print_seconds(results)
    return results


def _gallery(arguments: argparse.Namespace) -> dict[str, Any]:
    from dollmaker.bench.gallery import measure, print_gallery

    results = measure(size=arguments.size, images=arguments.images, rounds=arguments.rounds)
    print_gallery(results)
    return results


def _startup(arguments: argparse.Namespace) -> dict[str, Any]:
    from dollmaker.bench.startup import measure, print_starts

    results = measure(size=arguments.size, images=arguments.images, rounds=arguments.rounds)
    print_starts(results)
    return results


def _attribute(arguments: argparse.Namespace) -> dict[str, Any]:
    from dollmaker.bench.attribute import Setting, measure
    from dollmaker.bench.subject import make_subject
    from dollmaker.bench.table import print_table
    from dollmaker.runtime.errors import ConfigError

    if arguments.images < 2:
        raise ConfigError("--images is 1; give at least 2, one to tune on and one to measure.")
    subject = make_subject(
        architecture=arguments.architecture,
        member=arguments.member,
        shard=arguments.shard,
        size=arguments.size,
        findings=arguments.findings,
        images=arguments.images,
        device=arguments.device,
    )
    setting = Setting(
        nodes=arguments.nodes,
        reference=arguments.reference,
        rounds=arguments.rounds,
        chunk=arguments.chunk,
        precision=arguments.precision,
        compiled=arguments.compile,
    )
    results = measure(subject, setting)
    print_table(results)
    return results
