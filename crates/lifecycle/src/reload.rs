//! Reading the configuration, at start and again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::json;
use sluice_control::Error;
use sluice_telemetry::{error, info, notice, warn};
use tokio::sync::MutexGuard;
use tokio::task::spawn_blocking;

use crate::config::Common;
use crate::{Daemon, notify};

/// A main file that was read without an error.
pub(crate) struct Loaded<D: Daemon> {
    pub(crate) own: D::Config,
    pub(crate) common: Common,
    pub(crate) warnings: Vec<String>,
}

/// Reads the main file at `path`.
///
/// # Errors
/// All that is wrong with it, a text each.
pub(crate) fn load<D: Daemon>(path: &Path) -> Result<Loaded<D>, Vec<String>> {
    let mut load = D::open(path);
    let common = Common::read::<D>(&mut load);
    let own = D::read(&mut load);
    match load.finish() {
        Ok(warnings) => Ok(Loaded {
            own,
            common,
            warnings: warnings.iter().map(ToString::to_string).collect(),
        }),
        Err(errors) => Err(errors.errors.iter().map(ToString::to_string).collect()),
    }
}

/// How the last reload went, for `status`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LastReload {
    ok: bool,
    /// Seconds since 1970.
    at: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// Reloads, one at a time.
pub(crate) struct Reloader<D> {
    daemon: Arc<D>,
    path: PathBuf,
    /// What the process started with; these sections stay as they are until the next start.
    started_with: Common,
    one_at_a_time: tokio::sync::Mutex<()>,
    /// Whether a hangup waits for its turn, which serves those that come meanwhile too.
    hangup_waits: AtomicBool,
    done: Mutex<Done>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Done {
    /// Reloads that took effect.
    pub(crate) reloads: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_reload: Option<LastReload>,
}

impl<D: Daemon> Reloader<D> {
    pub(crate) fn new(daemon: Arc<D>, path: PathBuf, started_with: Common) -> Self {
        Self {
            daemon,
            path,
            started_with,
            one_at_a_time: tokio::sync::Mutex::default(),
            hangup_waits: AtomicBool::new(false),
            done: Mutex::default(),
        }
    }

    /// What was done so far.
    pub(crate) fn done(&self) -> Done {
        self.done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Reads the main file and tells what is wrong with it; changes nothing.
    ///
    /// # Errors
    /// With the list of what is wrong as data.
    pub(crate) async fn check(&self) -> Result<Vec<String>, Error> {
        Ok(self.read().await?.warnings)
    }

    /// Reads the main file and puts it in force, all of it or nothing. Returns its warnings.
    ///
    /// # Errors
    /// With the list of what is wrong as data; everything runs on as before.
    pub(crate) async fn reload(&self) -> Result<Vec<String>, Error> {
        let one = self.one_at_a_time.lock().await;
        self.reload_alone(&one).await
    }

    /// Reloads because of SIGHUP, unless another one waits for its turn already; tells whether it took effect.
    pub(crate) async fn hang_up(&self) -> bool {
        if self.hangup_waits.swap(true, Ordering::Relaxed) {
            return false;
        }
        let one = self.one_at_a_time.lock().await;
        self.hangup_waits.store(false, Ordering::Relaxed);
        self.reload_alone(&one).await.is_ok()
    }

    async fn reload_alone(&self, _one: &MutexGuard<'_, ()>) -> Result<Vec<String>, Error> {
        notify::reloading();
        let result = self.apply().await;
        self.record(&result);
        notify::ready(match &result {
            Ok(_) => "serving, configuration reloaded",
            Err(_) => "serving with the former configuration: the last reload failed",
        });
        result
    }

    async fn apply(&self) -> Result<Vec<String>, Error> {
        let loaded = self.read().await?;
        let mut warnings = loaded.warnings;
        warnings.extend(self.started_with.changed(&loaded.common));
        let failed = |e: anyhow::Error| rejected(vec![format!("{e:#}")]);
        self.daemon.reload(loaded.own).await.map_err(failed)?;
        Ok(warnings)
    }

    /// The files are read on a thread where that blocks nobody.
    async fn read(&self) -> Result<Loaded<D>, Error> {
        let path = self.path.clone();
        let loaded = spawn_blocking(move || load::<D>(&path)).await;
        loaded
            .map_err(|e| Error::failed(format_args!("cannot read the configuration: {e}")))?
            .map_err(rejected)
    }

    fn record(&self, result: &Result<Vec<String>, Error>) {
        let at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut done = self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let errors = match result {
            Ok(warnings) => {
                done.reloads += 1;
                for warning in warnings {
                    warn!("configuration: {}", warning);
                }
                notice!("configuration reloaded"; "reloads" => done.reloads);
                Vec::new()
            }
            Err(e) => {
                error!("reload failed, nothing was changed: {}", e);
                vec![e.to_string()]
            }
        };
        info!("reload done"; "ok" => errors.is_empty());
        done.last_reload = Some(LastReload {
            ok: errors.is_empty(),
            at,
            errors,
        });
    }
}

/// The answer to a reload or check of a broken file: all errors as text, and one by one as data.
fn rejected(errors: Vec<String>) -> Error {
    Error::failed(errors.join("\n")).with_data(json!({ "errors": errors }))
}
