"""The dataset doctor: checks of labels, units, signs, geometry and splits before any training."""
