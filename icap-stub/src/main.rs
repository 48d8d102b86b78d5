//! A small ICAP server for trials and tests.

fn main() {}
