"""Training on DFT data: loss, metrics, Lightning module, the train-potential command."""
