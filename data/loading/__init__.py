"""Datasets for training: splits, statistics, sampling, batches."""
