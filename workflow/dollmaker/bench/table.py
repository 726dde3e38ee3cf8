"""The numbers of a benchmark as a table for people."""

from collections.abc import Mapping
from typing import Any

_CONTENDERS = {
    "captum_per_finding": "(a) Captum, one call per finding",
    "captum_expanded": "(b) Captum, findings expanded into the batch",
    "ours_same_nodes": "(c) dollmaker, same nodes",
    "ours_adaptive": "(d) dollmaker, adaptive",
    "ceiling": "(e) ceiling: bare passes, same nodes",
}


def print_table(results: Mapping[str, Any]) -> None:
    """Print to stdout."""
    seconds = results["seconds_per_image"]
    print(
        f"{results['subject']} ({'trained' if results['trained'] else 'untrained'}), "
        f"{results['size']} px, {results['findings']} findings, {results['nodes']} nodes, "
        f"{results['precision']}, {results['device']}, torch {results['torch']}"
    )
    print(f"{'':<48}{'s/image':>9}{'speed-up':>10}")
    for name, text in _CONTENDERS.items():
        ratio = seconds["captum_per_finding"] / seconds[name]
        print(f"{text:<48}{seconds[name]:>9.3f}{ratio:>9.2f}x")
    print(
        f"fraction of the ceiling {results['fraction_of_ceiling']:.2f}; relative difference to "
        f"Captum on our network {results['relative_difference']:.1e}, as called "
        f"{results['relative_difference_as_called']:.1e} (rounding alone: another memory layout)\n"
        f"fidelity (mean IoU of the blurred top-20 % mask with the reference, "
        f"{results['fidelity_images']} images): adaptive {results['fidelity_adaptive']:.3f} with "
        f"{results['adaptive_nodes']:.1f} nodes a map, ours at {results['nodes']} nodes "
        f"{results['fidelity_same_nodes']:.3f}, Captum {results['fidelity_captum']:.3f}\n"
        f"adaptive, median: completeness error {results['adaptive_completeness']:.3f}, "
        f"convergence {results['adaptive_convergence']:.4f}; "
        f"{results['adaptive_missed']} missed the target\n"
        f"peak memory {results['peak_rss_mb']:.0f} MB"
    )
