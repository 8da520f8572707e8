"""Commented configurations for ``train-potential fit``, and a job script for SLURM."""
