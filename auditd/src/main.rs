//! Records audited streams.

fn main() {}
