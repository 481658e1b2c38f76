"""Any checkpoint in the community's benchmarks of representations: one module each."""
