//! The life of a daemon: flags, signals, readiness, stop.
