"""The one door for pixels: what a file of a picture, mask or volume means is decided here.

``formats`` opens files (DICOM by ``dicom``, channels that are no colours by ``stacks``),
``pictures`` makes images of them, ``geometry`` brings these into the square and back. True masks
have forms (``mask_forms``): pictures (``masks``, in which ``levels`` says what is an object or a
class) or many in one file (``coco``, ``chexlocalize``, ``boxes``). ``truth`` reads in them where
findings are. ``volumes`` reads NIfTI, ``names`` joins files and tables.
Every reader takes untrusted bytes and answers with pixels or with a
:class:`dollmaker.runtime.errors.DataError` that says why not.
"""
