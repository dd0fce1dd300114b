"""What the gate costs (ADR 0046): a job's way with it and without it side by side, and the sockets of many boxes."""
