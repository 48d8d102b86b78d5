//! All groups of a configuration, built and put in force with the other objects.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use sluice_config::Entry;
use sluice_lifecycle::Tasks;
use sluice_telemetry::metrics::Registry;

use super::config::{BasicConfig, UserGroupConfig};
use super::group::{Dynamic, Prepared, UserGroup};
use super::source::{FileSource, Refresh, Supply};

/// The groups of one configuration, by name.
#[derive(Default)]
pub(crate) struct Groups(BTreeMap<String, Object>);

struct Object {
    group: Arc<UserGroup>,
    supply: Supply,
    refresh: Option<Arc<Refresh>>,
    /// What is to come into force.
    prepared: Option<Prepared>,
}

impl Groups {
    /// Makes all members, and lets none in yet. Groups that run already go on under their names.
    ///
    /// # Errors
    /// The first user that cannot be made.
    pub(crate) fn prepare(
        configs: &[Entry<UserGroupConfig>],
        running: Option<&Self>,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let mut groups = BTreeMap::new();
        for entry in configs {
            let running = running.and_then(|running| running.0.get(&entry.name));
            let object =
                Object::prepare(entry, running, registry).with_context(|| format!("user group `{}`", entry.name))?;
            groups.insert(entry.name.clone(), object);
        }
        Ok(Self(groups))
    }

    /// Puts in force what was prepared, in place of `running`. Jobs go on in `background`; `tasks` tell when the
    /// process is about to end.
    pub(crate) fn commit(&mut self, mut running: Self, background: &Tasks, tasks: &Tasks) {
        for (name, object) in &mut self.0 {
            let before = running.0.remove(name);
            let kept = before.filter(|before| before.supply == object.supply);
            // The job of another source has ended before new members come in: it may not replace them.
            object.refresh = kept.and_then(|kept| kept.refresh);
            if let Some(prepared) = object.prepared.take() {
                object.group.commit(prepared);
            }
            if object.refresh.is_none() {
                object.refresh = Refresh::start(&object.group, &object.supply, background, tasks).map(Arc::new);
            }
        }
    }

    /// The group of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<UserGroup>> {
        self.0.get(name).map(|object| &object.group)
    }

    /// The file that the dynamic users of this group are written to.
    pub(crate) fn cache(&self, name: &str) -> Option<&FsPath> {
        self.0.get(name)?.supply.cache.as_deref()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Forgets numbers at servers and escapers that are there no more.
    pub(crate) fn keep_numbers(&self, server: impl Fn(&str) -> bool, escaper: impl Fn(&str) -> bool) {
        for object in self.0.values() {
            object.group.keep_numbers(&server, &escaper);
        }
    }
}

impl Object {
    fn prepare(entry: &Entry<UserGroupConfig>, running: Option<&Self>, registry: &Registry) -> anyhow::Result<Self> {
        let config = entry.value.basic();
        let base = entry.place.base_dir();
        let supply = Supply::new(config, base);
        let group = running.map_or_else(
            || UserGroup::new(&entry.name, registry),
            |running| Arc::clone(&running.group),
        );
        let first = match running {
            // Published users stay (AU-04); those of a source that is given up go with it.
            Some(running) if supply.source.is_none() => running.supply.source.as_ref().map(|_| Vec::new()),
            Some(_) => supply.first(&entry.name).map(|users| users.configs),
            None => Some(supply.first(&entry.name).map(|users| users.configs).unwrap_or_default()),
        };
        let dynamic = first.as_deref().map_or(Dynamic::Kept, Dynamic::New);
        let prepared = group.prepare(config, base, &dynamic)?;
        Ok(Self {
            group,
            supply,
            refresh: None,
            prepared: Some(prepared),
        })
    }
}

impl Supply {
    fn new(config: &BasicConfig, base: &FsPath) -> Self {
        let source = config.source.as_ref().map(|source| FileSource {
            path: source.path.resolve(base),
            format: source.format,
        });
        let cache: Option<PathBuf> = config.cache.as_ref().map(|path| path.resolve(base));
        Self {
            source,
            cache,
            interval: config.refresh_interval.0,
        }
    }
}
