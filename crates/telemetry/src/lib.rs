//! Process log, event logs and metrics.
