//! System calls that the rest of the workspace does not make itself: splicing, datagrams in batches, socket options that
//! the standard library lacks, CPU affinity. Whatever needs `unsafe` lives here and nowhere else.
//!
//! Everything here is a thin, blocking-free wrapper: no policy, no logging, no runtime.

pub mod affinity;
pub mod daemon;
pub mod socket;
pub mod splice;
pub mod udp;
