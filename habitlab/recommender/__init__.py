"""From the scores of several models to a short, varied, safe and timely list of habits for a person."""
