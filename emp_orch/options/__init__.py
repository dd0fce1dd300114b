"""Settings of connectors, `connector_options` in emp.yaml: checked where the file is read, and where a worker starts.

Below all rooms but the pure ones, so that spec and connectors judge by the same words. It asks no service.
"""
