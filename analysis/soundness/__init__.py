"""Is a fit sound? Its objective, its content, Pareto k of its users, and predictive checks."""
