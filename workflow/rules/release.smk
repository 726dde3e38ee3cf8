"""
Release: masks, tables, checksums and a card, and their verification.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    masks     = results/{dataset}/masks/{recipe}/{shard}.h5    (of the released recipe)
    committee = results/{dataset}/committee/{member}/
OUTPUTS
    release   = results/{dataset}/release/      (SHA256SUMS lists its files)
    verified  = results/{dataset}/release.verified
"""


rule build_release:
    """Put the masks of the released recipe into a folder that strangers can load."""
    input:
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        masks=expand(
            "results/{{dataset}}/masks/{recipe}/{shard}.h5",
            recipe=CONFIG["release"]["recipe"],
            shard=pipeline.shards(CONFIG),
        ),
        committee=expand(
            "results/{{dataset}}/committee/{member}", member=pipeline.members(CONFIG)
        ),
    output:
        release="results/{dataset}/release/SHA256SUMS",
    log:
        "results/{dataset}/logs/build_release.log",
    benchmark:
        "results/{dataset}/benchmarks/build_release.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=4000,
    params:
        version=pipeline.version("release"),
        config=lambda wildcards: pipeline.stage_config(CONFIG, "release"),
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
        release=lambda wildcards, output: os.path.dirname(output.release),
    shell:
        """
        python -m dollmaker release \
            --config {params.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --masks {input.masks:q} \
            --committee {input.committee:q} \
            --output {params.release:q} 2>&1 | tee {log:q}
        """


rule verify_release:
    """Check the release as a stranger would."""
    input:
        release="results/{dataset}/release/SHA256SUMS",
    output:
        verified="results/{dataset}/release.verified",
    log:
        "results/{dataset}/logs/verify_release.log",
    benchmark:
        "results/{dataset}/benchmarks/verify_release.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=2000,
    params:
        release=lambda wildcards, input: os.path.dirname(input.release),
    shell:
        """
        python -m dollmaker verify {params.release:q} 2>&1 | tee {log:q}
        cp {log:q} {output.verified:q}
        """
