"""What several rules use."""


def settings(stage, text=None, preflight_of=None):
    """The file with what a job reads of the configuration, an input of its rule.

    `text` makes its content from the wildcards, where a job reads less than its stage; `preflight_of`
    looks before at what not every target needs.
    """

    def file(wildcards):
        content = text(wildcards) if text else pipeline.stage_config(CONFIG, stage)
        try:
            if preflight_of and workflow.is_main_process:
                preflight_of(CONFIG, LISTING)
            path = pipeline.settings_file(
                DATASET, stage, content, workflow.is_main_process
            )
        except DollmakerError as error:
            sys.exit(f"dollmaker: error: {error}")
        if workflow.is_main_process:
            # Snakemake may have listed the folder before, and would not see it.
            workflow.iocache.exists_local[path] = True
        return path

    return file


def variant(wildcards):
    """The configuration with the network and the objectives of a pre-training of the study."""
    return grid.pretraining_config(
        CONFIG, wildcards.architecture, wildcards.pretraining
    )


def tuned_variant(wildcards):
    """The configuration of a fine-tuning of the study."""
    return grid.run_config(
        CONFIG,
        wildcards.architecture,
        wildcards.task,
        wildcards.start,
        wildcards.named,
    )
