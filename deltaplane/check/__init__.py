"""Whether etcd, journals and kernels agree about addresses. Pure but for `wire`.

`facts` is what was read, `findings` what can be wrong and what helps. `stored` compares etcd with
itself, `nodes` a node with etcd, `kernels` a journal with its kernel. It reads nothing and repairs
nothing: that is the caller's, and so is a second look at what may have been under way.
"""
