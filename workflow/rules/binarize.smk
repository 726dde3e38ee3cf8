"""
Binarize: relevance maps become masks, by the chain of steps of a recipe.

REQUIRED INPUTS
    images    = results/{dataset}/images/{shard}.h5
    relevance = results/{dataset}/relevance/{recipe}/{shard}.h5   (of the recipe that has the maps)
OUTPUTS
    masks     = results/{dataset}/masks/{recipe}/{shard}.h5
"""


rule make_masks:
    """Turn the maps of one shard into masks."""
    input:
        images="results/{dataset}/images/{shard}.h5",
        relevance=lambda wildcards: pipeline.relevance_shard(CONFIG, **wildcards),
    output:
        masks="results/{dataset}/masks/{recipe}/{shard}.h5",
    log:
        "results/{dataset}/logs/make_masks-{recipe}-{shard}.log",
    benchmark:
        "results/{dataset}/benchmarks/make_masks-{recipe}-{shard}.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=2000,
    params:
        version=pipeline.version("binarize"),
        config=lambda wildcards: pipeline.recipe_config(
            CONFIG, "binarize", wildcards.recipe
        ),
    shell:
        """
        python -m dollmaker binarize \
            --config {params.config:q} \
            --images {input.images:q} \
            --relevance {input.relevance:q} \
            --recipe {wildcards.recipe:q} \
            --output {output.masks:q} 2>&1 | tee {log:q}
        """
