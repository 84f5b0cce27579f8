"""What holds in the data: claims, behaviour, experiments."""
