//! Where a group's runtime directory and its sockets lie, the same for a daemon and whoever looks for it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// The group without `-G`.
pub const DEFAULT_GROUP: &str = "default";

/// The shared control socket of `daemon`, held by the process that serves.
pub fn socket(runtime_dir: &Path, daemon: &str) -> PathBuf {
    runtime_dir.join(format!("{daemon}.ctl"))
}

/// The control socket of one process of `daemon`, there as long as the process.
pub fn process_socket(runtime_dir: &Path, daemon: &str, pid: u32) -> PathBuf {
    runtime_dir.join(format!("{daemon}.{pid}.ctl"))
}

/// Takes `name` as a group: the empty one is [`DEFAULT_GROUP`], and no name may leave its directory.
///
/// # Errors
/// What is wrong with it, for the command line.
pub fn group(name: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':');
    match name {
        "" => Ok(DEFAULT_GROUP.to_owned()),
        _ if name.starts_with('.') => Err("a group's name does not start with a dot".to_owned()),
        _ if name.chars().all(plain) && name.len() <= 64 => Ok(name.to_owned()),
        _ => Err("a group's name is at most 64 letters, digits and `-_.@:`".to_owned()),
    }
}

/// The runtime directory of `group` when none is named: `/run/sluice/<group>` if we may use or make it, else
/// `$XDG_RUNTIME_DIR/sluice/<group>`, else one of our own uid under the system's temporary directory.
pub fn default_dir(group: &str) -> PathBuf {
    let system = Path::new("/run/sluice").join(group);
    if usable(&system) {
        return system;
    }
    if let Some(base) = std::env::var_os("XDG_RUNTIME_DIR") {
        let own = PathBuf::from(base).join("sluice").join(group);
        if own.is_absolute() && usable(&own) {
            return own;
        }
    }
    let uid = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("sluice-{uid}")).join(group)
}

/// Whether we may write into `dir`, or make it.
fn usable(dir: &Path) -> bool {
    let existing = dir.ancestors().find(|p| p.exists());
    existing.is_some_and(|p| p.is_dir() && rustix::fs::access(p, Access::WRITE_OK | Access::EXEC_OK).is_ok())
}

/// Makes `dir` with mode 0700 if it is not there, and its parents.
///
/// # Errors
/// If it cannot be made, is no directory, or others could put their own files into it: it must be ours or root's,
/// and not open to everybody unless it is sticky.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // What lies above was named by the operator; who owns that could move the whole directory away in any case.
    let meta = std::fs::metadata(dir)?;
    let uid = rustix::process::geteuid().as_raw();
    let open = meta.mode() & 0o002 != 0 && meta.mode() & 0o1000 == 0;
    if (meta.uid() != uid && meta.uid() != 0) || open {
        let problem = format!(
            "`{}` belongs to uid {} or is open to everybody",
            dir.display(),
            meta.uid()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_inside_their_directory() {
        assert_eq!(group("").unwrap(), "default");
        assert_eq!(group("edge-1").unwrap(), "edge-1");
        for bad in ["../x", "a/b", ".", "..", ".x", "a b", "ä", &"x".repeat(65)] {
            assert!(group(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_that_others_may_fill_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::TempDir::new().unwrap();
        let dir = base.path().join("a/b");
        make_dir(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(make_dir(&dir).is_err());
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o1777)).unwrap();
        make_dir(&dir).unwrap();
    }
}
