"""Warm kernels: Jupyter kernels that are forked from a server in which the heavy packages are
already imported. A room of its own, which knows Jupyter and nothing of trading.

    kernelspec ─▶ provisioner ─▶ fork server ─▶ kernel
                      └─ cold kernel, with one warning, wherever that cannot be

The server imports nothing of the project, so that a kernel never runs code that has changed since.
"""
