"""Certificates for a cluster that has nobody else to make them: a CA, and one for each process.

It makes and describes them, nothing more: it revokes nothing, it renews nothing by itself, and no
process needs it at run time. What a certificate means is said in `deltaplane.runtime.roles`, how
processes use it in `deltaplane.runtime.tls`.
"""
