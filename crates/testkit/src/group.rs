//! The configuration and the runtime directory that a group's daemons share.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::daemon::{Daemon, Starter};
use crate::ports::Port;

/// A group: a folder with `main.yml`, a runtime directory, and free ports by name.
///
/// In the YAML `%name%` stands for the port of that name, and `%dir%` for the folder. Unless the YAML has the section
/// itself, `log` is JSON on standard output, where [`Daemon::log_records`] looks, and `runtime` has no waiting times, so
/// that a stop is quick.
#[derive(Clone, Debug)]
pub struct Group(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: TempDir,
    yaml: Mutex<String>,
    ports: Mutex<BTreeMap<String, Port>>,
}

const LOG: &str = "log: {default: {stdout: {format: json}}}";
const RUNTIME: &str =
    "runtime: {server_offline_delay: 0s, task_wait_delay: 0s, task_wait_timeout: 10s, task_quit_timeout: 1s}";

impl Group {
    /// A group with this main file.
    pub fn new(yaml: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-test-").tempdir().unwrap();
        let group = Self(Arc::new(Inner {
            dir,
            yaml: Mutex::default(),
            ports: Mutex::default(),
        }));
        fs::create_dir(group.runtime_dir()).unwrap();
        fs::set_permissions(group.runtime_dir(), fs::Permissions::from_mode(0o700)).unwrap();
        group.rewrite(yaml);
        group
    }

    /// Replaces the main file; nobody reads it before a reload.
    pub fn rewrite(&self, yaml: &str) {
        yaml.clone_into(&mut self.yaml());
        self.write();
    }

    /// Writes another file of the folder, with the ports put in, and says where it is.
    pub fn write_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, self.filled(text)).unwrap();
        path
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.0.dir.path()
    }

    /// The main file.
    pub fn main_file(&self) -> PathBuf {
        self.dir().join("main.yml")
    }

    /// The runtime directory, with the sockets.
    pub fn runtime_dir(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// The number of the port that `%name%` stands for.
    pub fn port(&self, name: &str) -> u16 {
        self.0
            .ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.to_owned())
            .or_insert_with(Port::free)
            .number()
    }

    /// The port that `%name%` stands for, on 127.0.0.1.
    pub fn addr(&self, name: &str) -> SocketAddr {
        ([127, 0, 0, 1], self.port(name)).into()
    }

    /// A daemon of this group, not yet started.
    pub fn daemon(&self, name: &str) -> Starter {
        Starter::new(name, self.clone())
    }

    /// proxyd, started.
    pub async fn proxyd(&self) -> Daemon {
        self.daemon("proxyd").start().await
    }

    /// resolverd, started.
    pub async fn resolverd(&self) -> Daemon {
        self.daemon("resolverd").start().await
    }

    /// Gives up all ports and writes the file with others.
    pub(crate) fn change_ports(&self) {
        self.0.ports.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.write();
    }

    fn yaml(&self) -> MutexGuard<'_, String> {
        self.0.yaml.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let mut text = self.filled(&self.yaml());
        for (section, default) in [("log:", LOG), ("runtime:", RUNTIME)] {
            if !text.lines().any(|line| line.starts_with(section)) {
                text = format!("{}\n{default}\n", text.trim_end());
            }
        }
        fs::write(self.main_file(), text).unwrap();
    }

    /// `text` with each `%name%` replaced.
    fn filled(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            filled.push_str(before);
            let name = after.split_once('%').filter(|(name, _)| is_name(name));
            let Some((name, after)) = name else {
                filled.push('%');
                rest = after;
                continue;
            };
            match name {
                "dir" => filled.push_str(&self.dir().to_string_lossy()),
                port => filled.push_str(&self.port(port).to_string()),
            }
            rest = after;
        }
        filled.push_str(rest);
        filled
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ports_and_other_text_stays() {
        let group = Group::new("a: %web%\nb: [%web%, %dns%]\nc: 100% x%Y%\nlog: discard\n");
        let (web, dns) = (group.port("web"), group.port("dns"));
        let text = fs::read_to_string(group.main_file()).unwrap();
        assert_eq!(
            text,
            format!("a: {web}\nb: [{web}, {dns}]\nc: 100% x%Y%\nlog: discard\n{RUNTIME}\n")
        );
    }

    #[test]
    fn a_rewritten_file_keeps_its_ports() {
        let group = Group::new("a: %web%\n");
        let web = group.port("web");
        group.rewrite("b: %web%\n");
        assert_eq!(group.port("web"), web);
        assert!(
            fs::read_to_string(group.main_file())
                .unwrap()
                .starts_with(&format!("b: {web}\n{LOG}\n"))
        );
    }
}
