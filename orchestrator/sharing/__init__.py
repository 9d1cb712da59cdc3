"""How a virtual IP's new communications are shared out among its destinations."""
