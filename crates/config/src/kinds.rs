//! Sections whose nodes are of different kinds, told apart by `type`.

use schemars::{Schema, SchemaGenerator};

use crate::decode::{DecodeError, Decoder};
use crate::node::normalise;

/// What a section's nodes can be; made by [`kinds!`](crate::kinds!).
pub trait Kinds: Sized + 'static {
    /// What one node is called in messages: `server`.
    const NOUN: &'static str;
    /// The kind of a node without `type`; without it `type` is required.
    const UNTYPED: Option<&'static str>;
    /// Kinds of the reference that this version refuses by name: the name, its aliases.
    const NOT_BUILT: &'static [(&'static str, &'static [&'static str])];

    /// The kinds, one row each.
    fn kinds() -> Vec<Kind<Self>>;
}

/// One kind of node.
#[derive(Clone, Copy, Debug)]
pub struct Kind<T> {
    /// The name that documents and schemas use.
    pub name: &'static str,
    /// Other names. Case, `-` for `_`, and leaving out `_` make no difference and need no alias.
    pub aliases: &'static [&'static str],
    /// Decodes the node without its `name` and `type`.
    pub decode: fn(Decoder<'_>) -> Result<T, DecodeError>,
    /// The schema of the same.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// Whether nodes have a `type`: a section of one kind has none.
pub(crate) fn is_typed<T: Kinds>() -> bool {
    T::UNTYPED.is_none() || T::kinds().len() > 1 || !T::NOT_BUILT.is_empty()
}

pub(crate) fn find<T: Kinds>(word: &str) -> Option<Kind<T>> {
    T::kinds()
        .into_iter()
        .find(|kind| is_called(kind.name, kind.aliases, word))
}

/// The canonical name of a kind that is refused by name.
pub(crate) fn not_built<T: Kinds>(word: &str) -> Option<&'static str> {
    T::NOT_BUILT
        .iter()
        .find(|(name, aliases)| is_called(name, aliases, word))
        .map(|(name, _)| *name)
}

pub(crate) fn names<T: Kinds>() -> Vec<&'static str> {
    T::kinds().iter().map(|kind| kind.name).collect()
}

pub(crate) fn nearest<T: Kinds>(word: &str) -> Option<&'static str> {
    let kinds = T::kinds();
    let word = normalise(word);
    crate::nearest::nearest(
        &word,
        kinds
            .iter()
            .flat_map(|kind| std::iter::once(kind.name).chain(kind.aliases.iter().copied())),
    )
}

fn is_called(name: &str, aliases: &[&str], word: &str) -> bool {
    let word = normalise(word);
    let same = |name: &str| word == name || name.split('_').collect::<String>() == *word;
    same(name) || aliases.iter().any(|alias| same(alias))
}

/// Makes an enum of kinds, one variant and one row for each.
///
/// ```
/// # use schemars::JsonSchema;
/// # use serde::Deserialize;
/// # #[derive(Debug, Deserialize, JsonSchema)] #[serde(deny_unknown_fields)] pub struct DenyConfig {}
/// sluice_config::kinds! {
///     /// What an escaper is configured as.
///     #[derive(Debug)]
///     pub enum EscaperConfig: "escaper" {
///         /// Refuses everything.
///         Deny(DenyConfig) = "dummy_deny",
///     }
///     not built {
///         "direct_float" | "direct_dynamic",
///         "trick_float",
///     }
/// }
/// ```
///
/// A variant holds its config, or a `Box` of it. After the noun, `untyped "name"` names the kind of nodes without
/// `type`.
#[macro_export]
macro_rules! kinds {
    (
        $(#[$meta:meta])*
        $vis:vis enum $Enum:ident: $noun:literal $(untyped $untyped:literal)? {
            $($(#[$doc:meta])* $Variant:ident($Config:ty) = $name:literal $(| $alias:literal)*),+ $(,)?
        }
        $(not built { $($missing:literal $(| $missing_alias:literal)*),* $(,)? })?
    ) => {
        $(#[$meta])*
        $vis enum $Enum {
            $($(#[$doc])* $Variant($Config),)+
        }

        impl $crate::Kinds for $Enum {
            const NOUN: &'static str = $noun;
            const UNTYPED: Option<&'static str> = $crate::kinds!(@untyped $($untyped)?);
            const NOT_BUILT: &'static [(&'static str, &'static [&'static str])] =
                &[$($(($missing, &[$($missing_alias),*])),*)?];

            fn kinds() -> Vec<$crate::Kind<Self>> {
                vec![$($crate::Kind {
                    name: $name,
                    aliases: &[$($alias),*],
                    decode: |decoder| {
                        <$Config as $crate::serde::Deserialize>::deserialize(decoder).map(Self::$Variant)
                    },
                    schema: |generator| <$Config as $crate::schemars::JsonSchema>::json_schema(generator),
                }),+]
            }
        }
    };
    (@untyped) => { None };
    (@untyped $untyped:literal) => { Some($untyped) };
}
