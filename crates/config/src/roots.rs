//! The keys of a main file's root, and whose they are.

/// What several documents with the same root key mean together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nodes of all are taken.
    Append,
    /// The first counts.
    First,
    /// Keys of a later one replace those of an earlier one.
    Merge,
}

/// A key of the root.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) key: &'static str,
    pub(crate) alias: Option<&'static str>,
    pub(crate) repeat: Repeat,
    /// Whether nothing after the key means the defaults.
    pub(crate) null: bool,
}

const fn root(key: &'static str, repeat: Repeat, null: bool) -> Root {
    Root {
        key,
        alias: None,
        repeat,
        null,
    }
}

/// The root keys of a group's file.
pub(crate) const GROUP: &[Root] = &[
    root("auditd", Repeat::Merge, true),
    root("auditor", Repeat::Append, false),
    root("certgend", Repeat::Merge, true),
    root("controller", Repeat::Merge, true),
    root("escaper", Repeat::Append, false),
    root("icap_stub", Repeat::Merge, true),
    root("log", Repeat::Merge, true),
    root("naming", Repeat::Merge, false),
    root("peers", Repeat::Merge, true),
    root("proxyd", Repeat::Merge, true),
    root("resolver", Repeat::Append, false),
    root("resolverd", Repeat::Merge, true),
    root("runtime", Repeat::Merge, true),
    root("server", Repeat::Append, false),
    root("stat", Repeat::First, false),
    Root {
        key: "user_group",
        alias: Some("user"),
        repeat: Repeat::Append,
        null: false,
    },
    root("worker", Repeat::Merge, false),
];

/// The root keys of a certificate generator's own file.
pub(crate) const CERTGEN: &[Root] = &[
    root("backend", Repeat::Merge, false),
    root("controller", Repeat::Merge, true),
    root("log", Repeat::Merge, true),
    root("naming", Repeat::Merge, false),
    root("runtime", Repeat::Merge, true),
    root("stat", Repeat::First, false),
    root("worker", Repeat::Merge, false),
];

/// Keys of a daemon's own map that take the place of the root's, and those that only it can have.
pub(crate) const OF_DAEMON: &[&str] = &["controller", "log", "runtime", "stat", "worker"];

/// Those of [`OF_DAEMON`] that hold for every daemon when they stand in the root.
pub(crate) const SHARED: &[&str] = &["controller", "log", "stat"];

/// The row of a normalised root key.
pub(crate) fn find(roots: &'static [Root], key: &str) -> Option<&'static Root> {
    roots.iter().find(|root| root.key == key || root.alias == Some(key))
}
