"""Import of DFT results into a dataset file, resumable and in parallel."""
