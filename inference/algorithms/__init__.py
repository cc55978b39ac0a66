"""The algorithms: what each does in a step, and the parts that they share."""
