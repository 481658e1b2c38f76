"""Audio in: manifests, sources, features."""
