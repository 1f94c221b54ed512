"""Hosts of their own on this one machine: a network that can fail, machines that can be rebooted, a bucket, and Ray.

Each host has its own network, host name, processes, `/tmp/ray` and shared memory. All of it is namespaces of processes
that end with this one, however it ends; nothing is left in the file system, and no packet leaves.
"""
