//! Messages between the daemons.
