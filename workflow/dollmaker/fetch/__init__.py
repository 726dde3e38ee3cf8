"""Published weights by name: fetched once, where there is a network, by the libraries' own means.

``names`` says which file a name becomes, ``needed`` which the configuration asks for, ``wiring``
what the rules need to know; these load nothing, and run at every start. ``libraries`` asks timm,
torchvision and the Hub what a name is, ``originals`` gets it, ``stage`` makes a safetensors file of
it and notes it in the ``lock``; ``before`` looks at all of it before the first job.
"""
