"""
Report: one self-contained page, the headline numbers, and figures for `snakemake --report`.

REQUIRED INPUTS
    scores    = results/{dataset}/scores/        and all that it was made from
    segmenter = results/{dataset}/segmenter/
    release   = results/{dataset}/release/
    audit     = results/{dataset}/audit.parquet
    explained = results/{dataset}/explained/     if report.explained is set
OUTPUTS
    page      = results/{dataset}/report.html
    summary   = results/{dataset}/summary.json
    figures   = results/{dataset}/figures/
"""


rule write_report:
    """Galleries, score tables, training curves and the data audit."""
    input:
        config=settings("report", lambda wildcards: pipeline.report_config(CONFIG)),
        scores="results/{dataset}/scores/pairs.parquet",
        segmenter=ancient("results/{dataset}/segmenter"),
        release="results/{dataset}/release/SHA256SUMS",
        audit="results/{dataset}/audit.parquet",
        explained=ancient(pipeline.segmenter_explanations(CONFIG)),
        sums=pipeline.sums(
            ["results/{dataset}/segmenter", *pipeline.segmenter_explanations(CONFIG)]
        ),
    output:
        page=report(
            "results/{dataset}/report.html",
            caption="../report/page.rst",
            category="Report",
            labels={"what": "everything on one page"},
        ),
        summary="results/{dataset}/summary.json",
        figures=report(
            directory("results/{dataset}/figures"),
            patterns=["{name}.png"],
            caption="../report/figures.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
    log:
        "results/{dataset}/logs/write_report.log",
    benchmark:
        "results/{dataset}/benchmarks/write_report.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=4000,
    params:
        version=pipeline.version("report"),
        data_root=lambda wildcards: DATA_ROOT,
        results=lambda wildcards, input: os.path.dirname(os.path.dirname(input.scores)),
    shell:
        """
        python -m dollmaker report \
            --config {input.config:q} \
            --results {params.results:q} \
            --data-root {params.data_root:q} \
            --output {output.page:q} \
            --summary {output.summary:q} \
            --figures {output.figures:q} 2>&1 | tee {log:q}
        """
