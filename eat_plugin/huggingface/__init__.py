"""Folders that Hugging Face's transformers loads: written from a checkpoint, and read again."""
