"""The monitor page measured in a real Chromium: how soon it shows something, and what it costs while much changes."""
