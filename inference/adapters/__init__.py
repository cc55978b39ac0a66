"""A fit inside other people's pipelines: a component of LensKit, a model of RecTools.

Each module needs its peer, which is installed beside the package and not with it: see docs/adapters.md. Importing one
without the peer raises MachineError. What knows no model, matrices and tables, is :mod:`pyro_cvae.data.matrices`.
"""
