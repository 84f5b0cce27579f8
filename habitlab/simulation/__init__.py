"""The simulated world: a population whose true behaviour is known."""
