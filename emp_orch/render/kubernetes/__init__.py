"""A pool → the objects of a Kubernetes cluster that start its boxes, as data and as YAML. The cluster makes the boxes,
and emp sees them join; no secret stands in what is made here. Source: the API references of Kubernetes and KEDA.
"""
