//! The names that a certificate is for.

use ::openssl::nid::Nid;

use crate::pem::Identity;

/// Lower-case names of a leaf certificate; a wildcard stands for exactly one label (RFC 9525 §6.3).
pub(super) struct Names(Vec<String>);

impl Names {
    /// The DNS names among the subject's alternative names; its common name if there are none at all.
    pub(super) fn of(identity: &Identity) -> Self {
        let Some(leaf) = identity.chain.first() else {
            return Self(Vec::new());
        };
        let names = match leaf.subject_alt_names() {
            Some(names) => names
                .iter()
                .filter_map(|name| name.dnsname())
                .map(str::to_ascii_lowercase)
                .collect(),
            None => leaf
                .subject_name()
                .entries_by_nid(Nid::COMMONNAME)
                .filter_map(|entry| entry.data().to_string().ok())
                .map(|name| name.to_string().to_ascii_lowercase())
                .collect(),
        };
        Self(names)
    }

    pub(super) fn first(&self) -> Option<&str> {
        self.0.first().map(String::as_str)
    }

    pub(super) fn cover(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.0.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => name
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
            None => pattern.eq_ignore_ascii_case(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn a_wildcard_is_one_label_and_case_does_not_matter() {
        let names = Names(vec!["a.test".to_owned(), "*.b.test".to_owned()]);
        for (name, covered) in [
            ("a.test", true),
            ("A.Test", true),
            ("a.test.", true),
            ("x.a.test", false),
            ("x.b.test", true),
            ("X.B.test", true),
            ("b.test", false),
            (".b.test", false),
            ("y.x.b.test", false),
        ] {
            assert_eq!(names.cover(name), covered, "{name}");
        }
    }
}
