"""
Adapt: fine-tuning on small true-mask sets; one job for all n and seeds of a start and a tuning.

REQUIRED INPUTS
    segmenter = results/{dataset}/segmenter/
    committee = results/{dataset}/committee/{member}/     (the first member)
    {data_root}                                           images and masks of the tasks
OUTPUTS
    task      = results/{dataset}/tasks/{task}/{init}-{tuning}/
"""


rule adapt_segmenter:
    """Fine-tune on a task from one start with one tuning."""
    input:
        committee=f"results/{{dataset}}/committee/{pipeline.members(CONFIG)[0]}",
        segmenter="results/{dataset}/segmenter",
    output:
        task=directory("results/{dataset}/tasks/{task}/{init}-{tuning}"),
    log:
        "results/{dataset}/logs/adapt_segmenter-{task}-{init}-{tuning}.log",
    benchmark:
        "results/{dataset}/benchmarks/adapt_segmenter-{task}-{init}-{tuning}.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: pipeline.share_of_cores(len(pipeline.tuned(CONFIG)))
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        version=pipeline.version("adapt"),
        content=lambda wildcards: pipeline.content(
            CONFIG, pipeline.task_files(CONFIG, wildcards.task)
        ),
        config=lambda wildcards: pipeline.task_config(CONFIG, wildcards.task),
        data_root=lambda wildcards: DATA_ROOT,
        weights_root=CONFIG["weights_root"],
    shell:
        """
        python -m dollmaker adapt \
            --config {params.config:q} \
            --task {wildcards.task:q} \
            --init {wildcards.init:q} \
            --tuning {wildcards.tuning:q} \
            --data-root {params.data_root:q} \
            --weights-root {params.weights_root:q} \
            --committee {input.committee:q} \
            --segmenter {input.segmenter:q} \
            --output {output.task:q} 2>&1 | tee {log:q}
        """
