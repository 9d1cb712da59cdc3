"""The tables. Names are kept once (nodes, virtual_ips) and rows that come each second refer to them by number."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

# Stable constraint names: alembic needs them to alter a constraint later on any engine.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
BIG_ID = BigInteger().with_variant(Integer, "sqlite")

nodes = Table(
    "nodes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("address", String(64)),
    Column("mac", String(17)),
    Column("dpid", BigInteger),
    Column("attached_to", String(64)),
    Column("port", Integer),
    Column("last_seen", Float),
)

links = Table(
    "links",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("a", String(64), nullable=False),
    Column("a_port", Integer, nullable=False),
    Column("b", String(64), nullable=False),
    Column("b_port", Integer, nullable=False),
    Column("capacity_bytes_per_s", Float),
    Column("up", Boolean, nullable=False),
    Column("declared", Boolean, nullable=False),
    UniqueConstraint("a", "b"),
)

virtual_ips = Table(
    "virtual_ips",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("address", String(64), nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("declared", Boolean, nullable=False),
    Column("affinity", String(16), nullable=False, server_default="source"),
    Column("probe", String(32), nullable=False, server_default="arp"),
)

destinations = Table(
    "destinations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("virtual_ip_id", Integer, ForeignKey(virtual_ips.c.id), nullable=False),
    Column("name", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("mac", String(17), nullable=False),
    Column("weight", Integer, nullable=False),
    UniqueConstraint("virtual_ip_id", "name"),
)

link_loads = Table(
    "link_loads",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("from_node", String(64), nullable=False),
    Column("to_node", String(64), nullable=False),
    Column("t", Float, nullable=False),
    Column("interval_s", Float, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("packets", BigInteger, nullable=False),
    Column("drops", BigInteger, nullable=False),
    Index(None, "t"),
)

host_loads = Table(
    "host_loads",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("host", String(64), nullable=False),
    Column("t", Float, nullable=False),
    Column("cpu_cores_used", Float, nullable=False),
    Column("cpu_cores_capacity", Float, nullable=False),
    Column("memory_bytes_used", BigInteger, nullable=False),
    Column("memory_bytes_capacity", BigInteger, nullable=False),
    Index(None, "t"),
)

vm_loads = Table(
    "vm_loads",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("vm", String(64), nullable=False),
    Column("host", String(64), nullable=False),
    Column("t", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("cpu_cores_used", Float, nullable=False),
    Column("cpu_cores_limit", Float, nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_bytes_used", BigInteger, nullable=False),
    Column("memory_bytes_limit", BigInteger, nullable=False),
    Column("network_rx_bytes_per_s", Float, nullable=False, server_default="0"),
    Column("network_tx_bytes_per_s", Float, nullable=False, server_default="0"),
    Column("dirty_bytes_per_s", Float),
    Index(None, "t"),
)

scores = Table(
    "scores",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("source_id", Integer, ForeignKey(nodes.c.id), nullable=False),
    Column("virtual_ip_id", Integer, ForeignKey(virtual_ips.c.id), nullable=False),
    Column("issued_at", Float, nullable=False),
    Column("scored_at", Float, nullable=False),
    Column("horizon_s", Integer, nullable=False),
    Column("quantity", String(32), nullable=False),
    Column("model", String(32), nullable=False),
    Column("actual", Float, nullable=False),
    Column("pinball", Float, nullable=False),
    Column("covered_q90", Boolean, nullable=False),
    Index(None, "scored_at"),
)

# One row: each change of what is wanted takes the next number from here.
generations = Table(
    "generations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("generation", BigInteger, nullable=False),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("key", String(128), nullable=False, unique=True),
    Column("source", String(64), nullable=False),
    Column("virtual_ip", String(64), nullable=False),
    Column("bytes_per_s", Float, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("dscp", Integer),
    Column("owner", String(64), nullable=False),
    Column("reason", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("generation", BigInteger, nullable=False),
)

wanted_weights = Table(
    "wanted_weights",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("virtual_ip", String(64), nullable=False, unique=True),
    Column("weights", JSON, nullable=False),
    Column("owner", String(64), nullable=False),
    Column("reason", String, nullable=False),
    Column("generation", BigInteger, nullable=False),
)

observed = Table(
    "observed",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("key", String(128), nullable=False),
    Column("node", String(64), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("detail", String, nullable=False),
    Column("observed_at", Float, nullable=False),
    UniqueConstraint("kind", "key", "node"),
)

actions = Table(
    "actions",
    metadata,
    Column("id", BIG_ID, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("target", String(128), nullable=False),
    Column("body", JSON, nullable=False),
    Column("why", String, nullable=False),
    Column("reason", JSON, nullable=False),
    Column("policy", String(16), nullable=False),
    Column("issued_at", Float, nullable=False),
    Column("needed_at", Float),
    Column("lead_s", Float, nullable=False),
    Column("ready_at", Float),
    Column("outcome", String(16), nullable=False),
    Column("sentence", String, nullable=False),
    Column("verdict", JSON, nullable=False),
    Index(None, "issued_at"),
)

# A pause without an end is in force until somebody resumes.
pauses = Table(
    "pauses",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("paused_at", Float, nullable=False),
    Column("paused_by", String(128), nullable=False),
    Column("reason", String, nullable=False),
    Column("ends_at", Float),
    Column("resumed_at", Float),
    Column("resumed_by", String(128)),
)

# Who is on duty, one row a lease.
holders = Table(
    "holders",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(128), nullable=False),
    Column("since", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("body", JSON, nullable=False),
)
