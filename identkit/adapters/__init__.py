"""Check the model you already have: what other libraries fitted or declared, turned into what `check` takes.

One file for each library, which is imported only where its objects have to be run; nothing here decides a level but
`topics`, for the one model that has no class of its own.
"""
