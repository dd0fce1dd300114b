"""What a test does to the host below emp: disks, system calls, systemd, terminals, GPUs."""
