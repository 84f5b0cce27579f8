"""Features of users, habits and their history, each one point-in-time."""
