"""What drawn tasks tell: of their diagnosis, of corrections, of a calibration of their own."""
