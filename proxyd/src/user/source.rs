//! Lists of users outside of the configuration: files that are read again and again, what is published, and the file
//! that both are written down in (users.md §9).

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::Value;
use sluice_config::{Node, decode_node};
use sluice_lifecycle::Tasks;
use sluice_telemetry::{debug, warn};
use thiserror::Error;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::config::{Format, UserConfig};
use super::group::UserGroup;
use super::member::MakeError;

/// The largest list that is read.
const LARGEST: u64 = 256 << 20;
/// Errors of a list that are told.
const MOST_ERRORS: usize = 10;

/// Users that were read, and the same as JSON.
#[derive(Debug)]
pub(crate) struct Users {
    pub(crate) configs: Vec<UserConfig>,
    json: Value,
}

/// Why there is no new list of users.
#[derive(Debug, Error)]
pub(crate) enum UsersError {
    #[error("`{path}` cannot be written: {source}")]
    Cache { path: PathBuf, source: io::Error },
    #[error("the source is not in use any more")]
    Ended,
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    #[error(transparent)]
    Make(#[from] MakeError),
    #[error("`{path}` cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
}

impl Users {
    /// Reads a list from JSON: an array of users.
    ///
    /// # Errors
    /// [`UsersError::Invalid`] with all that is wrong.
    pub(crate) fn from_json(text: &str) -> Result<Self, UsersError> {
        if text.trim().is_empty() {
            return Self::from_nodes(Node::Seq(Vec::new()));
        }
        let node = Node::from_json(text).map_err(|error| UsersError::Invalid(vec![error]))?;
        Self::from_nodes(node)
    }

    /// Reads a list from YAML: each document is a user or a list of users.
    ///
    /// # Errors
    /// [`UsersError::Invalid`] with all that is wrong.
    pub(crate) fn from_yaml(text: &str) -> Result<Self, UsersError> {
        let documents = Node::from_yaml(text).map_err(UsersError::Invalid)?;
        let mut users = Vec::new();
        for document in documents {
            match document {
                Node::Seq(nodes) => users.extend(nodes),
                Node::Null => {}
                node => users.push(node),
            }
        }
        Self::from_nodes(Node::Seq(users))
    }

    fn from_nodes(node: Node) -> Result<Self, UsersError> {
        let configs: Vec<UserConfig> = decode_node(&node).map_err(some)?;
        let mut names = std::collections::HashSet::new();
        let twice = configs
            .iter()
            .enumerate()
            .filter(|(_, user)| !names.insert(user.name.as_str()))
            .map(|(index, user)| format!("[{index}]: the name `{}` is taken already", user.name))
            .collect::<Vec<_>>();
        if !twice.is_empty() {
            return Err(some(twice));
        }
        Ok(Self {
            configs,
            json: node.to_json(),
        })
    }

    /// Writes the list to a file in one step: whoever reads it sees this list or the one before. Nobody but our own
    /// uid may read it, since tokens are in it.
    fn write(&self, path: &FsPath) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| FsPath::new("."));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let fresh = folder.join(name);
        let written = self.write_new(&fresh).and_then(|()| fs::rename(&fresh, path));
        if written.is_err() {
            // What is left of it helps nobody.
            let _ = fs::remove_file(&fresh);
            return written;
        }
        fs::File::open(folder)?.sync_all()
    }

    fn write_new(&self, path: &FsPath) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        // One of a process that died while it wrote.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec_pretty(&self.json)?)?;
        file.write_all(b"\n")?;
        file.sync_all()
    }
}

/// As many errors as somebody wants to read.
fn some(mut errors: Vec<String>) -> UsersError {
    let more = errors.len().saturating_sub(MOST_ERRORS);
    errors.truncate(MOST_ERRORS);
    if more > 0 {
        errors.push(format!("{more} more errors"));
    }
    UsersError::Invalid(errors)
}

/// A file with users.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileSource {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
}

impl FileSource {
    /// Reads the list.
    ///
    /// # Errors
    /// [`UsersError`].
    pub(crate) fn read(&self) -> Result<Users, UsersError> {
        let text = read_bounded(&self.path).map_err(|source| UsersError::Read {
            path: self.path.clone(),
            source,
        })?;
        match self.format {
            Format::Json => Users::from_json(&text),
            Format::Yaml => Users::from_yaml(&text),
        }
    }
}

fn read_bounded(path: &FsPath) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("the file is larger than 256 MiB"));
    }
    Ok(text)
}

/// Where the dynamic users of a group come from and go to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Supply {
    pub(crate) source: Option<FileSource>,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) interval: Duration,
}

impl Supply {
    /// The users that a group begins with: those of the source, else those that were written down. What cannot be read
    /// is a warning.
    pub(crate) fn first(&self, group: &str) -> Option<Users> {
        let read = match (&self.source, &self.cache) {
            (Some(source), _) => source.read(),
            (None, Some(cache)) if cache.exists() => FileSource {
                path: cache.clone(),
                format: Format::Json,
            }
            .read(),
            _ => return None,
        };
        read.inspect_err(|error| warn!("no dynamic users yet"; "user_group" => group, "error" => %error))
            .ok()
    }
}

/// Replaces the dynamic users of a group and writes them down.
///
/// # Errors
/// [`UsersError`]; nothing has changed then.
pub(crate) fn publish(
    group: &UserGroup,
    users: &Users,
    cache: Option<&FsPath>,
    tasks: &Tasks,
) -> Result<(), UsersError> {
    group.publish(&users.configs, || write_down(users, cache, tasks))
}

/// Writes users to the cache, unless the process is about to end: a successor may own the file by then.
fn write_down(users: &Users, cache: Option<&FsPath>, tasks: &Tasks) -> Result<(), UsersError> {
    match cache {
        Some(path) if !tasks.is_stopping() => users.write(path).map_err(|source| UsersError::Cache {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// The job that looks at the source again and again; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Refresh {
    _stop: DropGuard,
}

impl Refresh {
    /// Starts it in `background`. `tasks` tell when the process is about to end.
    pub(crate) fn start(group: &Arc<UserGroup>, supply: &Supply, background: &Tasks, tasks: &Tasks) -> Option<Self> {
        let source = supply.source.clone()?;
        let stop = CancellationToken::new();
        let job = Job {
            group: Arc::downgrade(group),
            source,
            cache: supply.cache.clone(),
            interval: supply.interval,
            stop: stop.clone(),
            background: background.clone(),
            tasks: tasks.clone(),
        };
        background.spawn(job.run());
        Some(Self {
            _stop: stop.drop_guard(),
        })
    }
}

/// What the job needs.
#[derive(Clone)]
struct Job {
    group: Weak<UserGroup>,
    source: FileSource,
    cache: Option<PathBuf>,
    interval: Duration,
    stop: CancellationToken,
    background: Tasks,
    tasks: Tasks,
}

impl Job {
    async fn run(self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.cancelled() => return,
                () = self.background.stopping() => return,
            }
            let job = self.clone();
            // A panic there has been reported by the panic hook.
            let _ = self.background.spawn_blocking(move || job.fetch()).await;
        }
    }

    /// Replaces the dynamic users by those of the source; on failure they stay, with a warning.
    fn fetch(&self) {
        let Some(group) = self.group.upgrade() else { return };
        let fetched = self.source.read().and_then(|users| {
            group.publish(&users.configs, || {
                // Asked under the lock of the group: a reload that ended the job has the last word.
                if self.stop.is_cancelled() {
                    return Err(UsersError::Ended);
                }
                if let Err(error) = write_down(&users, self.cache.as_deref(), &self.tasks) {
                    // The source is there without the file, too.
                    warn!("users are not written down"; "user_group" => &*group.name, "error" => %error);
                }
                Ok(())
            })
        });
        match fetched {
            Ok(()) => debug!("users fetched"; "user_group" => &*group.name),
            Err(UsersError::Ended) => {}
            Err(error) => warn!("users are not fetched"; "user_group" => &*group.name, "error" => %error),
        }
    }
}
