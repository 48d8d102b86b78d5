//! System calls that need unsafe code or raw descriptors.
