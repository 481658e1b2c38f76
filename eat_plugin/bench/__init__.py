"""What `eat bench` compares: this package's code with plain forms of the same computation."""
