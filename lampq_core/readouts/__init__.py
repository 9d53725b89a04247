"""How far outputs moved, in nats: one file per role, and `readout.py`, which adds them up."""
