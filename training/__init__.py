"""Training on DFT data: loss, metrics, Lightning module, train-potential command."""
