"""The live stream measured: many clients of one API on a simulated fleet, beside one that sends the whole state."""
