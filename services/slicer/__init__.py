"""The slicer: turns what is stored in etcd into small ordered changes for every node.

It owns nothing but its lease key, and decides nothing: it watches, derives, streams and collects
acknowledgements. Any number of replicas derive the same from the same revision.
"""
