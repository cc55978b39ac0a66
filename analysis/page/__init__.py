"""A fit, or two side by side, as one HTML page."""
