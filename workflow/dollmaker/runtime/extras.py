"""Which part of the installation a missing library belongs to."""

#: Libraries of ``dollmaker[torch]``; all others that may be missing are of the workflow.
_TORCH = {
    *("torch", "torchvision", "timm", "segmentation_models_pytorch"),
    *("safetensors", "huggingface_hub"),
}
_OTHERS = {"pydicom": "dicom", "torchxrayvision": "xrv", "imagecodecs": "deep"}


def missing(error: ModuleNotFoundError) -> str | None:
    """What to say of a library that is not installed; ``None`` if it is a module of our own."""
    library = (error.name or "").partition(".")[0]
    if not library or library == "dollmaker":
        return None
    extra = "torch" if library in _TORCH else _OTHERS.get(library, "workflow")
    return f'this needs {library}, which is not installed; pip install "dollmaker[{extra}]".'
