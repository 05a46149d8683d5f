"""What a generative model is: its declaration, the distribution families, the text notation and the protocols.

Nothing here proves, probes or infers, and only `compiled/` may import torch.
"""
