"""The input of a model, as the options of its task describe it."""
