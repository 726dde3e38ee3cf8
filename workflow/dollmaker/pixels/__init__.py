"""The one door for pixels: what a file of a picture, mask or volume means is decided here.

``formats`` opens files (DICOM by ``dicom``), ``pictures`` makes 8 bits of them (``depth``),
``masks`` reads pictures of true masks, in which ``levels`` says what is an object or a class,
``annotations`` reads the forms that hold many masks in one file, ``volumes`` NIfTI; ``names`` joins
files and tables by name. Every reader takes untrusted bytes and answers with pixels or with a
:class:`dollmaker.runtime.errors.DataError` that says why not.
"""
