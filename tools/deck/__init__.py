"""Slides of the chapters: their words stand in ``slides/``, their figures, formulas and questions in the chapters."""
