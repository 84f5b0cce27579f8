"""Learning from what comes in: registry of models, retraining, features, feedback."""
