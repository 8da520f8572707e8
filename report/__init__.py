"""`train-potential report`: does a model hold what an MD simulation needs? One page tells."""
