"""Grading of submitted notebooks: a student's code runs in a process of its own, verdicts come from another."""
