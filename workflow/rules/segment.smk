"""
Segment: pre-training of a segmentation network on the labels, end to end.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    labels    = results/{dataset}/labels/
    committee = results/{dataset}/committee/{member}/
OUTPUTS
    segmenter = results/{dataset}/segmenter/
"""


rule pretrain_segmenter:
    """Train encoder and decoder on the pseudo-masks; resumes after an interruption."""
    input:
        config=settings("segment", preflight_of=preflight_segmenter),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        labels="results/{dataset}/labels/SHA256SUMS",
        committee=ancient(pipeline.start_members(CONFIG)),
        sums=pipeline.sums(pipeline.start_members(CONFIG)),
        weights=lambda wildcards: needed.files(CONFIG, needed.of_segmenter(CONFIG)),
    output:
        segmenter=directory("results/{dataset}/segmenter"),
        sums="results/{dataset}/sums/segmenter.sha256",
    log:
        "results/{dataset}/logs/pretrain_segmenter.log",
    benchmark:
        "results/{dataset}/benchmarks/pretrain_segmenter.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: CORES
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("segment"),
        content=lambda wildcards: pipeline.weights_content(
            CONFIG, needed.of_segmenter(CONFIG)
        ),
        weights_root=CONFIG.weights_root,
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
        labels=lambda wildcards, input: os.path.dirname(input.labels),
    shell:
        """
        python -m dollmaker segment \
            --config {input.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --labels {params.labels:q} \
            --committee {input.committee:q} \
            --weights-root {params.weights_root:q} \
            --gpus {resources.gpu} \
            --output {output.segmenter:q} 2>&1 | tee {log:q}
        python -m dollmaker.store.sums {output.segmenter:q} {output.sums:q}
        """
