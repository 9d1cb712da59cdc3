"""Everything of ours that can go wrong, as one tree, so that a caller can catch as much or as little as it means to.

ForepathError                what, where, and how to mend, in one line
├── StoreError               the Communication Pattern Database
│   ├── StoreUnreachable     cannot connect, or the file cannot be opened
│   ├── StoreOutdated        the schema is older or newer than this program
│   ├── StoreForbidden       this role of the database may not do that
│   └── StoreRefused         what was to be written cannot be held; the rest can
├── SettingsError            the settings file (forepath/)
├── DriverError              a hypervisor or switch refused or is gone (orchestrator/)
├── TableError               a file of series that cannot be read (cpdb/tables.py)
└── LabError                 the lab could not be built (mininet_topos/)
"""


class ForepathError(Exception):
    """Base of all errors that forepath reports to a person in one line."""


class StoreError(ForepathError):
    """The Communication Pattern Database refused or failed."""


class StoreUnreachable(StoreError):
    """No connection to the database, or its file cannot be opened."""


class StoreOutdated(StoreError):
    """The database's schema does not fit this program's version."""


class StoreForbidden(StoreError):
    """The role with which the database was opened may not do that; see `forepath db roles`."""


class StoreRefused(StoreError):
    """The database cannot hold what was given: a name in letters that it lacks, a number too large."""


class SettingsError(ForepathError):
    """One or more settings are unknown or wrong; the text names each with its path."""


class DriverError(ForepathError):
    """A hypervisor or a switch refused a request, or is gone."""


class LabError(ForepathError):
    """The lab could not be built or did not come up."""
