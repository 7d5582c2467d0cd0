"""Measurements, run by `make bench`. Not collected by pytest: speed is measured, not asserted."""
