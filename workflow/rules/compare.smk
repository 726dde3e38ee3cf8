"""
Compare: all recipes of the configuration and the catalogue on one data set (snakemake compare).

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    committee = results/{dataset}/committee/{member}/
    relevance = results/{dataset}/relevance/{recipe}/{shard}.h5
    masks     = results/{dataset}/masks/{recipe}/{shard}.h5
    sanity    = results/{dataset}/sanity/{recipe}.json
OUTPUTS
    scores     = results/{dataset}/scores/recipes.parquet
    comparison = results/{dataset}/comparison/
"""


rule compare:
    """Compare all recipes; the target of `snakemake compare`."""
    input:
        f"results/{DATASET}/scores/recipes.parquet",


EXPLAINERS = expand(
    "results/{{dataset}}/committee/{member}",
    member=pipeline.explaining_members(COMPARED),
)


rule compare_recipes:
    """Score every recipe under every rule for its threshold, beside the trivial baselines."""
    input:
        config=settings(
            "compare", lambda wildcards: pipeline.stage_config(COMPARED, "compare")
        ),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        committee=ancient(EXPLAINERS),
        sums=pipeline.sums(EXPLAINERS),
        relevance=expand(
            "results/{{dataset}}/relevance/{recipe}/{shard}.h5",
            recipe=pipeline.recipes_with_maps(COMPARED),
            shard=pipeline.shards(CONFIG),
        ),
        thresholds=expand(
            "results/{{dataset}}/thresholds/{recipe}.parquet",
            recipe=pipeline.recipes_with_maps(COMPARED),
        ),
        masks=expand(
            "results/{{dataset}}/masks/{recipe}/{shard}.h5",
            recipe=COMPARED.recipes,
            shard=pipeline.shards(CONFIG),
        ),
        sanity=expand(
            "results/{{dataset}}/sanity/{recipe}.json",
            recipe=COMPARED.recipes,
        ),
    output:
        scores="results/{dataset}/scores/recipes.parquet",
        pairs="results/{dataset}/scores/recipe_pairs.parquet",
        comparison=directory("results/{dataset}/comparison"),
    log:
        "results/{dataset}/logs/compare_recipes.log",
    benchmark:
        "results/{dataset}/benchmarks/compare_recipes.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: CORES
    resources:
        gpu=1,
        mem_mb=6000,
    params:
        version=pipeline.version("compare"),
        content=lambda wildcards: pipeline.truth_content(COMPARED),
        data_root=lambda wildcards: DATA_ROOT,
        results=lambda wildcards, input: os.path.dirname(input.index),
    shell:
        """
        python -m dollmaker compare \
            --config {input.config:q} \
            --results {params.results:q} \
            --data-root {params.data_root:q} 2>&1 | tee {log:q}
        """
