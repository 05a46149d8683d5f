"""Proves what the data can tell about each unknown of a `Model`, in exact arithmetic and with a certificate.

Nothing here samples to reach a verdict, computes a posterior or imports torch.
"""
