"""What somebody who can write into Redis may leave there, and a fleet to leave it in."""
