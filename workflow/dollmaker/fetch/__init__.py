"""Published weights by name: fetched once, where there is a network, by the libraries' own means.

``needed`` says which files the configuration asks for, and looks at them before the first job.
``libraries`` asks timm, torchvision and the Hub what a name is, ``originals`` gets it, ``stage``
makes a safetensors file of it and notes it in the ``lock``.
"""
