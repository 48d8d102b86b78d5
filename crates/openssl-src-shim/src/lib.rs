//! Chooses the sources that a vendored OpenSSL is built from.
//!
//! `openssl-sys` builds with whatever crate is named `openssl-src`. This one stands in its place by
//! `[patch.crates-io]` and passes on OpenSSL 4.0 (feature `real`) or Tongsuo, the fork that speaks TLCP
//! (feature `tongsuo`). Neither is a dependency of a build against the system's library.

#[cfg(all(feature = "real", not(feature = "tongsuo")))]
pub use real4::{Artifacts, Build, source_dir, version};
#[cfg(feature = "tongsuo")]
pub use tongsuo_src::{Artifacts, Build, source_dir, version};
