"""The classical models, one file each, with their exact posteriors in closed form.

A file here states one model's mathematics; what is common to all of them lives in `identkit.posterior`.
"""
