"""Phantoms: synthetic chest radiographs in CheXpert's form, with the true region of every finding.

`write_dataset` writes a whole data set; `render_frontal` and `render_lateral` make one picture of
a patient from `sample_patient`.
"""

from dollmaker.phantoms.dataset import write_dataset
from dollmaker.phantoms.patient import Patient, Sign, sample_patient
from dollmaker.phantoms.study import FINDINGS, Picture, render_frontal, render_lateral

__all__ = [
    "FINDINGS",
    "Patient",
    "Picture",
    "Sign",
    "render_frontal",
    "render_lateral",
    "sample_patient",
    "write_dataset",
]
