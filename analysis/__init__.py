"""What a posterior says: ArviZ data, calibration, comparison, figures, reports."""
