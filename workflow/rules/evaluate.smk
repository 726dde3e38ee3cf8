"""
Evaluate: classifiers, masks and tasks against truth, beside the trivial baselines.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    committee = results/{dataset}/committee/{member}/
    relevance = results/{dataset}/relevance/{recipe}/{shard}.h5
    masks     = results/{dataset}/masks/{recipe}/{shard}.h5
    segmenter = results/{dataset}/segmenter/
    tasks     = results/{dataset}/tasks/{task}/{init}-{tuning}/
OUTPUTS
    scores    = results/{dataset}/scores/
"""

COMMITTEE = expand(
    "results/{{dataset}}/committee/{member}", member=CONFIG.classify.members
)
TUNED = expand("results/{{dataset}}/tasks/{run}", run=pipeline.tuned(CONFIG))


rule evaluate:
    """Score everything that there is truth for, with bootstrap intervals."""
    input:
        config=settings("evaluate"),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        committee=ancient(COMMITTEE),
        relevance=expand(
            "results/{{dataset}}/relevance/{recipe}/{shard}.h5",
            recipe=pipeline.recipes_with_maps(CONFIG),
            shard=pipeline.shards(CONFIG),
        ),
        masks=expand(
            "results/{{dataset}}/masks/{recipe}/{shard}.h5",
            recipe=CONFIG.recipes,
            shard=pipeline.shards(CONFIG),
        ),
        segmenter=ancient("results/{dataset}/segmenter"),
        tasks=ancient(TUNED),
        sums=pipeline.sums([*COMMITTEE, "results/{dataset}/segmenter", *TUNED]),
    output:
        multiext(
            "results/{dataset}/scores/",
            classifiers="classifiers.parquet",
            pairs="pairs.parquet",
            masks="masks.parquet",
            tasks="tasks.parquet",
            differences="differences.parquet",
        ),
    log:
        "results/{dataset}/logs/evaluate.log",
    benchmark:
        "results/{dataset}/benchmarks/evaluate.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: CORES
    resources:
        mem_mb=4000,
    params:
        version=pipeline.version("evaluate"),
        content=lambda wildcards: pipeline.truth_content(CONFIG),
        data_root=lambda wildcards: DATA_ROOT,
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
        relevance=lambda wildcards, input: os.path.dirname(
            os.path.dirname(input.relevance[0])
        ),
        masks=lambda wildcards, input: os.path.dirname(os.path.dirname(input.masks[0])),
        scores=lambda wildcards, output: os.path.dirname(output[0]),
    shell:
        """
        python -m dollmaker evaluate \
            --config {input.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --data-root {params.data_root:q} \
            --committee {input.committee:q} \
            --relevance {params.relevance:q} \
            --masks {params.masks:q} \
            --segmenter {input.segmenter:q} \
            --tasks {input.tasks:q} \
            --output {params.scores:q} 2>&1 | tee {log:q}
        """
