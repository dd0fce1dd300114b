"""Container images of emp: pack emp as a wheel, gather what it needs for the base's Python, let docker build."""
