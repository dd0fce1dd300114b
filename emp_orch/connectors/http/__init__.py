"""The connector to any service that speaks HTTP: ask, wait, save the answer. No ComfyUI. Called through the `Connector`
protocol; its client is used by other connectors.
"""
