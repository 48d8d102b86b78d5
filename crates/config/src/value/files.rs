//! Paths.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::scalar::{Raw, Scalar, UNFIT, scalar};

/// The path of a file or folder, absolute or relative to the folder of the file that names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path of this text.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// As it is written.
    pub fn as_written(&self) -> &Path {
        &self.0
    }

    /// The path seen from `base`, which is [`Place::base_dir`](crate::Place::base_dir).
    pub fn resolve(&self, base: &Path) -> PathBuf {
        base.join(&self.0)
    }
}

impl Scalar for FilePath {
    const EXPECTED: &'static str = "the path of a file";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Str(text) if text.contains("-----BEGIN") => Err("this is the content of a file, not its path".into()),
            Raw::Str(text) if text.is_empty() || text.contains(char::is_control) => Err(UNFIT),
            Raw::Str(text) => Ok(Self(text.into())),
            _ => Err(UNFIT),
        }
    }
}

scalar!(FilePath, {"type": "string", "minLength": 1, "description": "a path, absolute or relative to the folder of this file"});

/// An absolute path; whether anything is there is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl Scalar for AbsolutePath {
    const EXPECTED: &'static str = "an absolute path";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Str(text) if text.starts_with('/') && !text.contains(char::is_control) => Ok(Self(text.into())),
            _ => Err(UNFIT),
        }
    }
}

scalar!(AbsolutePath, {"type": "string", "pattern": "^/"});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn relative_paths_count_from_the_folder_of_their_file() {
        let base = Path::new("/etc/sluice");
        assert_eq!(
            decode::<FilePath>("ca.crt").unwrap().resolve(base),
            Path::new("/etc/sluice/ca.crt")
        );
        assert_eq!(
            decode::<FilePath>("/ca.crt").unwrap().resolve(base),
            Path::new("/ca.crt")
        );
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for yaml in ["''", "1", "true", "[a]", "\"a\\nb\"", "\"-----BEGIN PRIVATE KEY-----\""] {
            assert!(decode::<FilePath>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn an_absolute_path_begins_at_the_root() {
        assert_eq!(
            decode::<AbsolutePath>("/run/log").unwrap().as_path(),
            Path::new("/run/log")
        );
        for yaml in ["log", "./log", "''", "1", "\"/a\\nb\""] {
            assert!(decode::<AbsolutePath>(yaml).is_err(), "{yaml}");
        }
    }
}
