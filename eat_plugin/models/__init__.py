"""The networks: student and teacher, classifier; and the reading of their checkpoints."""
