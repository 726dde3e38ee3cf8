"""
Prepare: source tables and images become an index and image shards.

REQUIRED INPUTS
    {data_root}                                 the source, or the generated phantoms
    (dicom, patches, msd and jsrt are converted first: results/{dataset}/source)
OUTPUTS
    index     = results/{dataset}/index.parquet
    images    = results/{dataset}/images/{shard}.h5
    quarantine = results/{dataset}/quarantine.csv   (kept when the run stops because of it)
    audit     = results/{dataset}/audit.parquet     (warns of labels that border or shape give away)
"""


rule generate_phantoms:
    """Generate radiographs in CheXpert's form (the embedded default only)."""
    output:
        phantoms=directory("results/{dataset}/phantoms"),
        sums="results/{dataset}/sums/phantoms.sha256",
    log:
        "results/{dataset}/logs/generate_phantoms.log",
    benchmark:
        "results/{dataset}/benchmarks/generate_phantoms.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: CORES
    resources:
        mem_mb=2000,
    params:
        version=pipeline.version("phantom"),
        images=CONFIG.source.phantoms.images,
        size=CONFIG.source.phantoms.size,
        task_images=CONFIG.source.phantoms.task_images,
        seed=CONFIG.seed,
    shell:
        """
        python -m dollmaker phantom \
            --images {params.images} \
            --size {params.size} \
            --task-images {params.task_images} \
            --seed {params.seed} \
            --workers {threads} \
            --output {output.phantoms:q} 2>&1 | tee {log:q}
        python -m dollmaker.store.sums {output.phantoms:q} {output.sums:q}
        """


rule convert_source:
    """Turn patches, volumes or raw files into a folder of pictures with a table."""
    input:
        config=settings("convert"),
        original=ancient(pipeline.original_files(CONFIG)),
    output:
        source=directory("results/{dataset}/source"),
        sums="results/{dataset}/sums/source.sha256",
    log:
        "results/{dataset}/logs/convert_source.log",
    benchmark:
        "results/{dataset}/benchmarks/convert_source.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: CORES
    resources:
        mem_mb=4000,
    params:
        version=pipeline.version("convert"),
        content=lambda wildcards: pipeline.original_content(CONFIG),
        data_root=CONFIG.data_root,
    shell:
        """
        python -m dollmaker prepare-convert \
            --config {input.config:q} \
            --data-root {params.data_root:q} \
            --workers {threads} \
            --output {output.source:q} 2>&1 | tee {log:q}
        python -m dollmaker.store.sums {output.source:q} {output.sums:q}
        """


rule list_images:
    """List the images of the source with their labels, splits and shards."""
    input:
        config=settings("list"),
        source=ancient(pipeline.source_files(CONFIG)),
        sums=pipeline.source_sums(CONFIG),
    output:
        listing="results/{dataset}/prepare/listing.parquet",
    log:
        "results/{dataset}/logs/list_images.log",
    benchmark:
        "results/{dataset}/benchmarks/list_images.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=2000,
    params:
        version=pipeline.version("prepare"),
        content=lambda wildcards: pipeline.source_content(CONFIG),
        data_root=lambda wildcards: DATA_ROOT,
    shell:
        """
        python -m dollmaker prepare-list \
            --config {input.config:q} \
            --data-root {params.data_root:q} \
            --output {output.listing:q} 2>&1 | tee {log:q}
        """


rule decode_images:
    """Decode the images of one shard."""
    input:
        config=settings("decode"),
        listing="results/{dataset}/prepare/listing.parquet",
    output:
        images="results/{dataset}/images/{shard}.h5",
        rows="results/{dataset}/prepare/{shard}.parquet",
    log:
        "results/{dataset}/logs/decode_images-{shard}.log",
    benchmark:
        "results/{dataset}/benchmarks/decode_images-{shard}.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    threads: cores.share(CONFIG.prepare.shards, CORES)
    resources:
        mem_mb=2000,
    params:
        version=pipeline.version("prepare"),
        data_root=lambda wildcards: DATA_ROOT,
    shell:
        """
        python -m dollmaker prepare-decode \
            --config {input.config:q} \
            --listing {input.listing:q} \
            --shard {wildcards.shard:q} \
            --data-root {params.data_root:q} \
            --workers {threads} \
            --output {output.images:q} \
            --rows {output.rows:q} 2>&1 | tee {log:q}
        """


rule build_index:
    """Gather the shards into the index; leave broken images in quarantine."""
    input:
        config=settings("index"),
        listing="results/{dataset}/prepare/listing.parquet",
        rows=expand(
            "results/{{dataset}}/prepare/{shard}.parquet",
            shard=pipeline.shards(CONFIG),
        ),
    output:
        index="results/{dataset}/index.parquet",
    log:
        text="results/{dataset}/logs/build_index.log",
        quarantine="results/{dataset}/quarantine.csv",
    benchmark:
        "results/{dataset}/benchmarks/build_index.tsv"
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=2000,
    params:
        version=pipeline.version("prepare"),
    shell:
        """
        python -m dollmaker prepare-index \
            --config {input.config:q} \
            --listing {input.listing:q} \
            --rows {input.rows:q} \
            --quarantine {log.quarantine:q} \
            --output {output.index:q} 2>&1 | tee {log.text:q}
        """


rule audit_images:
    """Tell how well the border of images and the shape of files predict each label."""
    input:
        config=settings("audit"),
        index="results/{dataset}/index.parquet",
        images=expand(
            "results/{{dataset}}/images/{shard}.h5",
            shard=pipeline.shards(CONFIG),
        ),
    output:
        audit="results/{dataset}/audit.parquet",
    log:
        "results/{dataset}/logs/audit_images.log",
    benchmark:
        "results/{dataset}/benchmarks/audit_images.tsv"
    # Its warnings are for before the training, which it is no input of.
    priority: 2
    conda:
        "../../envs/dollmaker.yaml"
    resources:
        mem_mb=2000,
    params:
        version=pipeline.version("audit"),
        images=lambda wildcards, input: os.path.dirname(input.images[0]),
    shell:
        """
        python -m dollmaker prepare-audit \
            --config {input.config:q} \
            --index {input.index:q} \
            --images {params.images:q} \
            --output {output.audit:q} 2>&1 | tee {log:q}
        """
