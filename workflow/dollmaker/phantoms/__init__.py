"""Phantoms: synthetic chest radiographs like CheXpert's, with the true region of every finding."""
