"""
Release: masks, tables, checksums and a card, and their verification.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    masks     = results/{dataset}/masks/{recipe}/{shard}.h5    (of the released recipe)
    committee = results/{dataset}/committee/{member}/
    sample    = results/{dataset}/sample/{recipe}.h5
OUTPUTS
    sanity    = results/{dataset}/sanity/{recipe}.json
    release   = results/{dataset}/release/      (SHA256SUMS lists its files)
    verified  = results/{dataset}/release.verified
"""


rule check_recipe:
    """Check that a recipe's masks depend on the model and on the finding."""
    input:
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        sample=lambda wildcards: pipeline.sample(COMPARED, wildcards.recipe),
        thresholds=lambda wildcards: pipeline.thresholds(COMPARED, wildcards.recipe),
    output:
        sanity="results/{dataset}/sanity/{recipe}.json",
    log:
        "results/{dataset}/logs/check_recipe-{recipe}.log",
    benchmark:
        "results/{dataset}/benchmarks/check_recipe-{recipe}.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=2000,
    params:
        version=pipeline.version("sanity"),
        config=lambda wildcards: pipeline.recipe_config(
            COMPARED, "sanity", wildcards.recipe
        ),
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
        thresholds=lambda wildcards, input: (
            ["--thresholds", *input.thresholds] if input.thresholds else []
        ),
    shell:
        """
        python -m dollmaker sanity \
            --config {params.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --sample {input.sample:q} \
            --recipe {wildcards.recipe:q} {params.thresholds:q} \
            --output {output.sanity:q} 2>&1 | tee {log:q}
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
        committee=pipeline.committee(CONFIG, CONFIG["release"]["recipe"]),
        sanity=expand(
            "results/{{dataset}}/sanity/{recipe}.json",
            recipe=CONFIG["release"]["recipe"],
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
            --sanity {input.sanity:q} \
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
