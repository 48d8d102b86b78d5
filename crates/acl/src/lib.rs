//! Access rules on addresses, names, ports and user agents.
