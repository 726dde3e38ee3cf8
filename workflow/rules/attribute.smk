"""
Attribute: the committee's relevance maps, one shard a job with all members.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    committee = results/{dataset}/committee/{member}/
OUTPUTS
    relevance = results/{dataset}/relevance/{recipe}/{shard}.h5
    sample    = results/{dataset}/sample/{recipe}.h5
"""


rule explain_images:
    """Explain the images of one shard with the whole committee."""
    input:
        config=settings(
            "attribute",
            lambda wildcards: pipeline.recipe_config(
                COMPARED, "attribute", wildcards.recipe
            ),
        ),
        index="results/{dataset}/index.parquet",
        images="results/{dataset}/images/{shard}.h5",
        negatives=lambda wildcards: pipeline.negatives(COMPARED, wildcards.recipe),
        committee=lambda wildcards: ancient(
            pipeline.committee(COMPARED, wildcards.recipe)
        ),
        sums=lambda wildcards: pipeline.sums(
            pipeline.committee(COMPARED, wildcards.recipe)
        ),
    output:
        relevance="results/{dataset}/relevance/{recipe}/{shard}.h5",
    log:
        "results/{dataset}/logs/explain_images-{recipe}-{shard}.log",
    benchmark:
        "results/{dataset}/benchmarks/explain_images-{recipe}-{shard}.tsv"
    priority: 1
    conda:
        "../../envs/dollmaker.yaml"
    threads:
        cores.share(
            CONFIG.prepare.shards * len(pipeline.recipes_with_maps(CONFIG)),
            CORES,
        )
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("attribute"),
        images=lambda wildcards, input: os.path.dirname(input.images),
    shell:
        """
        python -m dollmaker attribute \
            --config {input.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --shard {wildcards.shard:q} \
            --committee {input.committee:q} \
            --recipe {wildcards.recipe:q} \
            --output {output.relevance:q} 2>&1 | tee {log:q}
        """


rule explain_sample:
    """Explain a sample in more ways: each member, mirrored, with random weights."""
    input:
        config=settings(
            "sample",
            lambda wildcards: pipeline.recipe_config(
                COMPARED, "sample", wildcards.recipe
            ),
        ),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        committee=lambda wildcards: ancient(
            pipeline.committee(COMPARED, wildcards.recipe)
        ),
        sums=lambda wildcards: pipeline.sums(
            pipeline.committee(COMPARED, wildcards.recipe)
        ),
    output:
        sample="results/{dataset}/sample/{recipe}.h5",
    log:
        "results/{dataset}/logs/explain_sample-{recipe}.log",
    benchmark:
        "results/{dataset}/benchmarks/explain_sample-{recipe}.tsv"
    priority: 2
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("sample"),
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
    shell:
        """
        python -m dollmaker sample \
            --config {input.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --committee {input.committee:q} \
            --recipe {wildcards.recipe:q} \
            --output {output.sample:q} 2>&1 | tee {log:q}
        """
