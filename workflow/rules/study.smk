"""
Study: what a start is worth, over tasks, architectures, tunings and numbers of images.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    labels    = results/{dataset}/labels/
    committee = results/{dataset}/committee/{member}/
    {data_root}                                           images and masks of the tasks
OUTPUTS
    segmenter = results/{dataset}/study/{architecture}/segmenter/{pretraining}/
    run       = results/{dataset}/study/{architecture}/{task}/{init}-{tuning}/
    scores    = results/{dataset}/scores/study.parquet, study_differences.parquet, study_steps.parquet
    report    = results/{dataset}/study/report/           (README.md, pictures)
"""


rule study:
    """Run the study; the target of `snakemake study`."""
    input:
        f"results/{DATASET}/scores/study.parquet",


rule pretrain_variant:
    """Pre-train one architecture in one way of the study."""
    input:
        config=settings(
            "segment",
            lambda wildcards: pipeline.stage_config(variant(wildcards), "segment"),
        ),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        labels="results/{dataset}/labels/SHA256SUMS",
        committee=lambda wildcards: ancient(pipeline.start_members(variant(wildcards))),
        sums=lambda wildcards: pipeline.sums(pipeline.start_members(variant(wildcards))),
        weights=lambda wildcards: needed.files(
            CONFIG, needed.of_segmenter(variant(wildcards))
        ),
    output:
        segmenter=directory(
            "results/{dataset}/study/{architecture}/segmenter/{pretraining}"
        ),
        sums="results/{dataset}/sums/study/{architecture}/segmenter/{pretraining}.sha256",
    log:
        "results/{dataset}/logs/pretrain_variant-{architecture}-{pretraining}.log",
    benchmark:
        "results/{dataset}/benchmarks/pretrain_variant-{architecture}-{pretraining}.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: cores.share(len(CONFIG.study.pretrainings), CORES)
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("segment"),
        content=lambda wildcards: pipeline.weights_content(
            CONFIG, needed.of_segmenter(variant(wildcards))
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


rule adapt_variant:
    """Fine-tune one architecture on a task from one start with one tuning."""
    input:
        config=settings(
            "adapt",
            lambda wildcards: pipeline.task_config(
                tuned_variant(wildcards), wildcards.task
            ),
        ),
        index=ancient("results/{dataset}/index.parquet"),
        start=lambda wildcards: ancient(
            pipeline.start_folders(CONFIG, wildcards.start, wildcards.architecture)
        ),
        sums=lambda wildcards: pipeline.sums(
            pipeline.start_folders(CONFIG, wildcards.start, wildcards.architecture)
        ),
        weights=lambda wildcards: needed.files(
            CONFIG,
            needed.of_tuning(CONFIG, wildcards.start, wildcards.architecture),
        ),
    output:
        task=directory("results/{dataset}/study/{architecture}/{task}/{start}-{named}"),
        sums="results/{dataset}/sums/study/{architecture}/{task}/{start}-{named}.sha256",
    log:
        "results/{dataset}/logs/adapt_variant-{architecture}-{task}-{start}-{named}.log",
    benchmark:
        "results/{dataset}/benchmarks/adapt_variant-{architecture}-{task}-{start}-{named}.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: cores.share(len(grid.runs(CONFIG)), CORES)
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("adapt"),
        content=lambda wildcards: pipeline.task_content(CONFIG, wildcards.task),
        weights=lambda wildcards: pipeline.weights_content(
            CONFIG,
            needed.of_tuning(CONFIG, wildcards.start, wildcards.architecture),
        ),
        tuning=lambda wildcards: grid.tunings(CONFIG)[wildcards.named]["tuning"],
        data_root=lambda wildcards: DATA_ROOT,
        weights_root=CONFIG.weights_root,
        words=lambda wildcards, input: pipeline.start_words(
            wildcards.start, input.start
        ),
    shell:
        """
        python -m dollmaker adapt \
            --config {input.config:q} \
            --task {wildcards.task:q} \
            --init {wildcards.start:q} \
            --tuning {params.tuning:q} \
            --data-root {params.data_root:q} \
            --weights-root {params.weights_root:q} \
            --index {input.index:q} {params.words:q} \
            --output {output.task:q} 2>&1 | tee {log:q}
        python -m dollmaker.store.sums {output.task:q} {output.sums:q}
        """


STUDY_RUNS = expand("results/{{dataset}}/study/{run}", run=grid.runs(CONFIG))


rule gather_study:
    """Scores with intervals, paired differences, steps, costs and pictures."""
    input:
        config=settings("study", preflight_of=preflight_study),
        index="results/{dataset}/index.parquet",
        runs=ancient(STUDY_RUNS),
        sums=pipeline.sums(STUDY_RUNS),
    output:
        scores="results/{dataset}/scores/study.parquet",
        differences="results/{dataset}/scores/study_differences.parquet",
        steps="results/{dataset}/scores/study_steps.parquet",
        report=directory("results/{dataset}/study/report"),
    log:
        "results/{dataset}/logs/gather_study.log",
    benchmark:
        "results/{dataset}/benchmarks/gather_study.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=4000,
    params:
        version=pipeline.version("study"),
        study=lambda wildcards, output: os.path.dirname(output.report),
        scores=lambda wildcards, output: os.path.dirname(output.scores),
    shell:
        """
        python -m dollmaker study \
            --config {input.config:q} \
            --index {input.index:q} \
            --study {params.study:q} \
            --scores {params.scores:q} \
            --output {output.report:q} 2>&1 | tee {log:q}
        """
