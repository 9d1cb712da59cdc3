"""Where everything is: links, hosts, and the paths between them."""
