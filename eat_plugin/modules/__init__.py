"""Building blocks of the encoder and the decoder; plain PyTorch, no fairseq."""
