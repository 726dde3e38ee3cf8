"""Forms that hold the true masks of many images in one file.

``coco`` reads COCO's JSON of instances, ``chexlocalize`` JSON of run lengths by image and finding,
``boxes`` tables of rectangles; ``codes`` is what they share. Each reader knows its files, is asked
for one image at a time, which it joins by :class:`dollmaker.pixels.names.Names`, and answers with
masks at the image's own size.
"""
