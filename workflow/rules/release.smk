"""
Release: the labels, then all that strangers get with them, and its verification.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    masks     = results/{dataset}/masks/{recipe}/{shard}.h5    (of the released recipe)
    relevance = results/{dataset}/relevance/{recipe}/{shard}.h5    (of the same)
    committee = results/{dataset}/committee/{member}/
    sample    = results/{dataset}/sample/{recipe}.h5
    segmenter = results/{dataset}/segmenter/
    scores    = results/{dataset}/scores/    (masks.parquet, pairs.parquet)
OUTPUTS
    sanity    = results/{dataset}/sanity/{recipe}.json, {recipe}.png
    labels    = results/{dataset}/labels/       (SHA256SUMS lists its files)
    release   = results/{dataset}/release/      (SHA256SUMS lists its files)
    verified  = results/{dataset}/release.verified
"""


rule check_recipe:
    """Check that a recipe's masks depend on the model and on the finding."""
    input:
        config=settings(
            "sanity",
            lambda wildcards: pipeline.recipe_config(
                COMPARED, "sanity", wildcards.recipe
            ),
        ),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        sample=lambda wildcards: pipeline.sample(COMPARED, wildcards.recipe),
        thresholds=lambda wildcards: pipeline.thresholds(COMPARED, wildcards.recipe),
    output:
        sanity="results/{dataset}/sanity/{recipe}.json",
        picture="results/{dataset}/sanity/{recipe}.png",
    log:
        "results/{dataset}/logs/check_recipe-{recipe}.log",
    benchmark:
        "results/{dataset}/benchmarks/check_recipe-{recipe}.tsv"
    priority: 1
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=2000,
    params:
        version=pipeline.version("sanity"),
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
        thresholds=lambda wildcards, input: (
            ["--thresholds", *input.thresholds] if input.thresholds else []
        ),
    shell:
        """
        python -m dollmaker sanity \
            --config {input.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --sample {input.sample:q} \
            --recipe {wildcards.recipe:q} {params.thresholds:q} \
            --output {output.sanity:q} 2>&1 | tee {log:q}
        """


rule collect_labels:
    """Gather the masks of the released recipe, and read them again."""
    input:
        config=settings("labels", lambda wildcards: pipeline.labels_config(CONFIG)),
        index="results/{dataset}/index.parquet",
        masks=expand(
            "results/{{dataset}}/masks/{recipe}/{shard}.h5",
            recipe=CONFIG.release.recipe,
            shard=pipeline.shards(CONFIG),
        ),
        relevance=pipeline.released_maps(CONFIG),
        committee=ancient(pipeline.committee(CONFIG, CONFIG.release.recipe)),
        sums=pipeline.sums(pipeline.committee(CONFIG, CONFIG.release.recipe)),
        sanity=expand(
            "results/{{dataset}}/sanity/{recipe}.json",
            recipe=CONFIG.release.recipe,
        ),
    output:
        labels="results/{dataset}/labels/SHA256SUMS",
    log:
        "results/{dataset}/logs/collect_labels.log",
    benchmark:
        "results/{dataset}/benchmarks/collect_labels.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: CORES
    resources:
        mem_mb=4000,
    params:
        version=pipeline.version("labels"),
        labels=lambda wildcards, output: os.path.dirname(output.labels),
    shell:
        """
        python -m dollmaker labels \
            --config {input.config:q} \
            --index {input.index:q} \
            --masks {input.masks:q} \
            --relevance {input.relevance:q} \
            --committee {input.committee:q} \
            --sanity {input.sanity:q} \
            --output {params.labels:q} 2>&1 | tee {log:q}
        """


rule build_release:
    """Put labels, models and scores into a folder that strangers can load."""
    input:
        config=settings(
            "release", preflight_of=lambda config, _: tell_other_settings(config)
        ),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        labels="results/{dataset}/labels/SHA256SUMS",
        segmenter=ancient("results/{dataset}/segmenter"),
        segmenter_sums="results/{dataset}/sums/segmenter.sha256",
        committee=ancient(pipeline.committee(CONFIG, CONFIG.release.recipe)),
        sums=pipeline.sums(pipeline.committee(CONFIG, CONFIG.release.recipe)),
        sanity=expand(
            "results/{{dataset}}/sanity/{recipe}.json",
            recipe=CONFIG.release.recipe,
        ),
        scores="results/{dataset}/scores/masks.parquet",
        pairs="results/{dataset}/scores/pairs.parquet",
        tasks=ancient(pipeline.released_tasks(CONFIG)),
        task_sums=pipeline.sums(pipeline.released_tasks(CONFIG)),
        thresholds=pipeline.released_thresholds(CONFIG),
        others=expand(
            "results/{{dataset}}/masks/{recipe}/{shard}.h5",
            recipe=[r for r in CONFIG.recipes if r != CONFIG.release.recipe],
            shard=pipeline.shards(CONFIG),
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
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
        labels=lambda wildcards, input: os.path.dirname(input.labels),
        release=lambda wildcards, output: os.path.dirname(output.release),
        thresholds=lambda wildcards, input: (
            ["--thresholds", *input.thresholds] if input.thresholds else []
        ),
    shell:
        """
        python -m dollmaker release \
            --config {input.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --labels {params.labels:q} \
            --segmenter {input.segmenter:q} \
            --committee {input.committee:q} \
            --sanity {input.sanity:q} \
            --scores {input.scores:q} \
            --pairs {input.pairs:q} \
            --others {input.others:q} \
            --tasks {input.tasks:q} {params.thresholds:q} \
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
    threads: CORES
    resources:
        mem_mb=4000,
    params:
        release=lambda wildcards, input: os.path.dirname(input.release),
    shell:
        """
        python -m dollmaker verify {params.release:q} 2>&1 | tee {log:q}
        cp {log:q} {output.verified:q}
        """
