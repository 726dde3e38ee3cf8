"""
Explain: where the segmenter looks when it calls pixels a finding (snakemake explain).

REQUIRED INPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    labels    = results/{dataset}/labels/
    segmenter = results/{dataset}/segmenter/
OUTPUTS
    explained = results/{dataset}/explained/ (README.md has the measures)
"""


localrules:
    explain,


rule explain:
    """Explain the segmenter; the target of `snakemake explain`."""
    input:
        f"results/{DATASET}/explained",


rule explain_segmenter:
    """Maps of Seg-Grad-CAM and Seg-HiRes-Grad CAM as in section explain, measures, a picture."""
    input:
        config=settings("explain"),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5", shard=pipeline.shards(CONFIG)
        ),
        labels="results/{dataset}/labels/SHA256SUMS",
        segmenter=ancient("results/{dataset}/segmenter"),
        sums="results/{dataset}/sums/segmenter.sha256",
    output:
        explained=directory("results/{dataset}/explained"),
        sums="results/{dataset}/sums/explained.sha256",
    log:
        "results/{dataset}/logs/explain_segmenter.log",
    benchmark:
        "results/{dataset}/benchmarks/explain_segmenter.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: CORES
    resources:
        gpu=1,
        mem_mb=4000,
    params:
        version=pipeline.version("explain"),
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
        labels=lambda wildcards, input: os.path.dirname(input.labels),
    shell:
        """
        python -m dollmaker explain \
            --config {input.config:q} \
            --segmenter {input.segmenter:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --labels {params.labels:q} \
            --output {output.explained:q} 2>&1 | tee {log:q}
        python -m dollmaker.store.sums {output.explained:q} {output.sums:q}
        """
