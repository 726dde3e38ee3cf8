"""
Classify: a committee of multi-label classifiers, one member a job.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
OUTPUTS
    member    = results/{dataset}/committee/{member}/
"""


rule train_member:
    """Train one member of the committee; resumes after an interruption."""
    input:
        config=settings(
            "classify",
            lambda wildcards: pipeline.member_config(COMPARED, wildcards.member),
        ),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        weights=lambda wildcards: needed.files(
            CONFIG, needed.of_member(COMPARED, wildcards.member)
        ),
    output:
        member=directory("results/{dataset}/committee/{member}"),
        sums="results/{dataset}/sums/committee/{member}.sha256",
    log:
        "results/{dataset}/logs/train_member-{member}.log",
    benchmark:
        "results/{dataset}/benchmarks/train_member-{member}.tsv"
    # Most wait for it; a fine-tuning that waits for nothing can run later.
    priority: 1
    conda:
        "../../envs/dollmaker.yaml"
    threads: cores.share(len(CONFIG.classify.members), CORES)
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("classify"),
        content=lambda wildcards: pipeline.weights_content(
            CONFIG, needed.of_member(COMPARED, wildcards.member)
        ),
        weights_root=CONFIG.weights_root,
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
    shell:
        """
        python -m dollmaker classify \
            --config {input.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --member {wildcards.member:q} \
            --weights-root {params.weights_root:q} \
            --gpus {resources.gpu} \
            --output {output.member:q} 2>&1 | tee {log:q}
        python -m dollmaker.store.sums {output.member:q} {output.sums:q}
        """
