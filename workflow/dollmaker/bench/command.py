"""``dollmaker bench attribute``."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Declare the options."""
    parser.add_argument("what", choices=["attribute"], help="what to measure")
    parser.add_argument(
        "--architecture", default="densenet121", help="untrained network (default densenet121)"
    )
    parser.add_argument("--member", type=Path, help="folder of a trained member, instead")
    parser.add_argument("--shard", type=Path, help="image shard to take the member's images from")
    parser.add_argument("--size", type=int, default=224, help="side in pixels (default 224)")
    parser.add_argument("--findings", type=int, default=5, help="findings an image (default 5)")
    parser.add_argument("--images", type=int, default=8, help="images (default 8)")
    parser.add_argument("--nodes", type=int, default=50, help="nodes of Captum (default 50)")
    parser.add_argument(
        "--reference", type=int, default=512, help="nodes of the reference map (default 512)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds, medians are taken (5)")
    parser.add_argument("--chunk", type=int, help="rows of a pass (default: measured)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="use torch.compile for ours")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")


def run(name: str, arguments: argparse.Namespace) -> None:
    """Measure and print a table."""
    from dollmaker.bench.attribute import Setting, measure
    from dollmaker.bench.subject import make_subject
    from dollmaker.bench.table import print_table
    from dollmaker.errors import ConfigError
    from dollmaker.files import write_json

    for key in ("size", "findings", "images", "nodes", "reference", "rounds"):
        if getattr(arguments, key) < 1:
            raise ConfigError(f"--{key} is {getattr(arguments, key)}; give a positive number.")
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
    if arguments.json:
        write_json(arguments.json, results)
