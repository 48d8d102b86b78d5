//! The DNS daemon.

fn main() {}
