"""Run notebooks, keep their findings, and publish them as reports."""
