//! The configuration: its files, its value types, its errors.
//!
//! A group of daemons shares one YAML file, of which each reads its part. This crate reads the file and the files that it
//! includes, and hands out sections as Rust types. The types of a daemon's own kinds live beside those kinds, as plain
//! `#[derive(Deserialize, JsonSchema)]` structs with `#[serde(deny_unknown_fields)]`; the types of single values that
//! many of them share live here, in [`value`].
//!
//! Where to start:
//!
//! - [`Load`] is one loading: [`Load::open`], then [`section`](Load::section) and [`nodes`](Load::nodes) for the parts,
//!   [`refer`](Load::refer) and [`refuse_loops`](Load::refuse_loops) for what holds between them, and
//!   [`finish`](Load::finish), which gives every error of every file, with file, line, column and path.
//! - [`kinds!`] declares what the nodes of a section can be.
//! - [`SHAPE`] is how a value with a short and a long form is written as an enum; [`Misfit`] is how a map says that its
//!   parts do not go together; [`NotYet`] is the type of a key that is refused by name.
//! - [`schema`] makes the JSON Schema of a section, for editors.
//!
//! serde_yaml is used in one module, `read`, which turns text into [`Node`]s; [`decode`] turns these into types by rules of
//! our own (keys in any spelling, `on` for `true`, one value for a list of one). Nothing here looks a name up.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation))]

mod collect;
pub mod decode;
mod finding;
mod kinds;
mod load;
mod nearest;
mod node;
mod not_yet;
mod path;
mod place;
#[cfg(any(test, feature = "cases"))]
#[doc(hidden)]
pub mod properties;
mod quirks;
mod read;
mod roots;
pub mod schema;
pub mod value;

pub use collect::{decode_node, decode_text};
pub use decode::{DecodeError, Decoder, Misfit, SHAPE};
pub use finding::{Errors, Finding, Warning};
pub use kinds::{Kind, Kinds};
pub use load::{Edge, Entry, Load};
#[doc(hidden)]
pub use node::Gap;
pub use node::{Float, Key, Node};
pub use not_yet::NotYet;
pub use path::{Path, PathStep};
pub use place::Place;
#[doc(hidden)]
pub use {schemars, serde};
