"""The lab: real switches, real clients and real virtual machines on one machine, and the stage it stands on."""
