//! Starts real daemons and peers for tests.
