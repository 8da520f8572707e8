"""HTML page of the acceptance report."""
