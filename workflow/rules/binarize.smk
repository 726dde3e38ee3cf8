"""
Binarize: relevance maps become masks, by the chain of steps of a recipe.

REQUIRED INPUTS
    images    = results/{dataset}/images/{shard}.h5
    relevance = results/{dataset}/relevance/{recipe}/{shard}.h5   (of the recipe that has the maps)
    sample    = results/{dataset}/sample/{recipe}.h5
OUTPUTS
    thresholds = results/{dataset}/thresholds/{recipe}.parquet
    masks     = results/{dataset}/masks/{recipe}/{shard}.h5
"""


rule choose_thresholds:
    """Choose thresholds without truth, from a recipe's sample."""
    input:
        sample="results/{dataset}/sample/{recipe}.h5",
    output:
        thresholds="results/{dataset}/thresholds/{recipe}.parquet",
    log:
        "results/{dataset}/logs/choose_thresholds-{recipe}.log",
    benchmark:
        "results/{dataset}/benchmarks/choose_thresholds-{recipe}.tsv"
    priority: 1
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=4000,
    params:
        version=pipeline.version("thresholds"),
    shell:
        """
        python -m dollmaker thresholds \
            --sample {input.sample:q} \
            --output {output.thresholds:q} 2>&1 | tee {log:q}
        """


rule make_masks:
    """Turn the maps of one shard into masks."""
    input:
        config=settings(
            "binarize",
            lambda wildcards: pipeline.recipe_config(
                COMPARED, "binarize", wildcards.recipe
            ),
        ),
        images="results/{dataset}/images/{shard}.h5",
        relevance=lambda wildcards: pipeline.relevance_shard(COMPARED, **wildcards),
        thresholds=lambda wildcards: pipeline.thresholds(COMPARED, wildcards.recipe),
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
        thresholds=lambda wildcards, input: (
            ["--thresholds", *input.thresholds] if input.thresholds else []
        ),
    shell:
        """
        python -m dollmaker binarize \
            --config {input.config:q} \
            --images {input.images:q} \
            --relevance {input.relevance:q} \
            --recipe {wildcards.recipe:q} {params.thresholds:q} \
            --output {output.masks:q} 2>&1 | tee {log:q}
        """
