"""
Adapt: fine-tuning on small true-mask sets; one job for all n and seeds of a start and a tuning.

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet           (what the starts have seen)
    start     = results/{dataset}/segmenter/, or committee/{member}/ (the first) for `classifier`;
                none for `random` and `imagenet`, which wait for no training
    {data_root}                                           images and masks of the tasks
OUTPUTS
    task      = results/{dataset}/tasks/{task}/{init}-{tuning}/
"""


rule adapt_segmenter:
    """Fine-tune on a task from one start with one tuning."""
    input:
        config=settings(
            "adapt", lambda wildcards: pipeline.task_config(CONFIG, wildcards.task)
        ),
        index=ancient("results/{dataset}/index.parquet"),
        start=lambda wildcards: ancient(pipeline.start_folders(CONFIG, wildcards.init)),
        sums=lambda wildcards: pipeline.sums(
            pipeline.start_folders(CONFIG, wildcards.init)
        ),
        weights=lambda wildcards: needed.files(
            CONFIG, needed.of_tuning(CONFIG, wildcards.init)
        ),
    output:
        task=directory("results/{dataset}/tasks/{task}/{init}-{tuning}"),
        sums="results/{dataset}/sums/tasks/{task}/{init}-{tuning}.sha256",
    log:
        "results/{dataset}/logs/adapt_segmenter-{task}-{init}-{tuning}.log",
    benchmark:
        "results/{dataset}/benchmarks/adapt_segmenter-{task}-{init}-{tuning}.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: cores.share(len(pipeline.tuned(CONFIG)), CORES)
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("adapt"),
        content=lambda wildcards: pipeline.task_content(CONFIG, wildcards.task),
        weights=lambda wildcards: pipeline.weights_content(
            CONFIG, needed.of_tuning(CONFIG, wildcards.init)
        ),
        data_root=lambda wildcards: DATA_ROOT,
        weights_root=CONFIG.weights_root,
        words=lambda wildcards, input: pipeline.start_words(wildcards.init, input.start),
    shell:
        """
        python -m dollmaker adapt \
            --config {input.config:q} \
            --task {wildcards.task:q} \
            --init {wildcards.init:q} \
            --tuning {wildcards.tuning:q} \
            --data-root {params.data_root:q} \
            --weights-root {params.weights_root:q} \
            --index {input.index:q} {params.words:q} \
            --output {output.task:q} 2>&1 | tee {log:q}
        python -m dollmaker.store.sums {output.task:q} {output.sums:q}
        """
