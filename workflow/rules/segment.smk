"""
Segment: pre-training of a segmentation network on the release, end to end.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    release   = results/{dataset}/release/
    committee = results/{dataset}/committee/{member}/
OUTPUTS
    segmenter = results/{dataset}/segmenter/
"""


rule pretrain_segmenter:
    """Train encoder and decoder on the pseudo-masks; resumes after an interruption."""
    input:
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        release="results/{dataset}/release/SHA256SUMS",
        verified="results/{dataset}/release.verified",
        committee=expand(
            "results/{{dataset}}/committee/{member}", member=pipeline.members(CONFIG)
        ),
    output:
        segmenter=directory("results/{dataset}/segmenter"),
    log:
        "results/{dataset}/logs/pretrain_segmenter.log",
    benchmark:
        "results/{dataset}/benchmarks/pretrain_segmenter.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("segment"),
        config=lambda wildcards: pipeline.stage_config(CONFIG, "segment"),
        weights_root=CONFIG["weights_root"],
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
        release=lambda wildcards, input: os.path.dirname(input.release),
    shell:
        """
        python -m dollmaker segment \
            --config {params.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --release {params.release:q} \
            --committee {input.committee:q} \
            --weights-root {params.weights_root:q} \
            --output {output.segmenter:q} 2>&1 | tee {log:q}
        """
