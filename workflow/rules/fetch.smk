"""
Fetch: published weights that the configuration names, once, where there is a network.

A local rule: it runs where Snakemake does, for the nodes of clusters have no network. Everything else
reads the files that it makes.

REQUIRED INPUTS
    none; {weights_root}/{weights}/ may hold the published file, put there by hand
OUTPUTS
    weights   = {weights_root}/{weights}.safetensors      (noted in {weights_root}/weights.lock.yaml)
"""


rule fetch_weights:
    """Fetch weights by their name; the only rule that needs a network, and the only one that reads pickles."""
    output:
        weights=needed.pattern(CONFIG),
    log:
        f"results/{DATASET}/logs/fetch_weights-{{weights}}.log",
    benchmark:
        f"results/{DATASET}/benchmarks/fetch_weights-{{weights}}.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=4000,
    params:
        version=pipeline.version("fetch"),
        name=lambda wildcards: weight_names.name_of(wildcards.weights),
        weights_root=lambda wildcards, output: os.path.dirname(output.weights) or ".",
    shell:
        """
        python -m dollmaker fetch \
            --name {params.name:q} \
            --weights-root {params.weights_root:q} 2>&1 | tee {log:q}
        """
