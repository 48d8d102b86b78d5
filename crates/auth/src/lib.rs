//! Who a user is: names, passwords and what they are checked against.
//!
//! - [`Username`], [`Password`]: values of the configuration with their limits.
//! - [`Token`]: the value of a user's `token`, in every form that it has; [`Token::verify`] checks a password.
//! - [`CryptHash`], [`FastHash`]: the two kinds of hashes, read and made.
//! - [`UsernameParams`]: what a login says behind the user's name about the next proxy.
//!
//! Everything here is pure: salts come from the caller, nothing is looked up or kept. No `Debug` and no message of an
//! error shows a password or a hash. Hashes are compared in constant time; how long the hashing takes tells the method and
//! the password's length, as it does everywhere.
//!
//! ```
//! use sluice_auth::Token;
//! use sluice_config::decode_text;
//!
//! let token: Token = decode_text("$5$saltsalt12345678$goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1").unwrap();
//! assert!(token.verify("open sesame") && !token.verify("open barley"));
//! assert!(token.is_slow()); // not on a thread that serves others meanwhile
//! ```

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::indexing_slicing))]

mod crypt;
mod fast;
mod name;
mod params;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod token;

pub use crypt::{CryptError, CryptHash, CryptMethod, DEFAULT_ROUNDS, ROUNDS, SALT_LETTERS};
pub use fast::{Digest, FastHash, Salt};
pub use name::{MAX_PASSWORD, MAX_USERNAME, Password, Username, UsernameError};
pub use params::{CameBy, EgressUpstream, ParamsError, UsernameParams};
pub use token::Token;
