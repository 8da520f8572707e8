"""Dataset doctor: checks of labels, units, signs, geometry and splits before training."""
