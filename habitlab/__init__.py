"""HabitLab: a research workbench for habit data, with reproducible reports."""

__version__ = "0.1.0"
