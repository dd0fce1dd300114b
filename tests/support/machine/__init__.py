"""One machine without a control plane: its supervisord, its agent, its worker packages."""
