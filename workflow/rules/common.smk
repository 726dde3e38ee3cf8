"""What several rules use."""


def checked(preflight_of, value):
    """A parameter of jobs that not every target needs, and first a look at what they need."""
    try:
        if workflow.is_main_process:
            preflight_of(CONFIG, LISTING)
    except DollmakerError as error:
        sys.exit(f"dollmaker: error: {error}")
    return value
