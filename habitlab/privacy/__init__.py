"""Privacy: published aggregates, small groups, what is stored and why, export and erasure, federated training."""
