"""The classical models, a folder each, with their exact posteriors: in closed form, by recursions or by quadrature.

A folder holds one model's mathematics, the files beside them what several models need; what serves any model lives in
`identkit.posterior`.
"""
