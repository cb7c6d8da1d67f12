"""Coursework on nbgrader: masters become students' notebooks, submissions become points. Needs the extra `coursework`.

`wire`, `answers` and `judge` keep the two sides of a grading apart: a student's cells run in a kernel of their own, the
tests in the grader's process, and only plain data come back. `contest` runs a student's own method. `preprocessors` are
the steps that nbgrader takes; `release` and `grade` are what `make coursework` and `make grade` call.
"""
