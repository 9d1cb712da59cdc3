"""The demo: a lab with real switches and VMs, three policies, one table of what was measured."""
