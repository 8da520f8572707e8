"""Training on DFT data: loss, metrics, Lightning module, checkpoints, evaluation."""
