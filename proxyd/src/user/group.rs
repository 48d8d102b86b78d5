//! A group of users at work. It lives as long as its name is configured; who belongs to it changes.

use std::collections::HashMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use sluice_telemetry::metrics::Registry;

use super::config::{BasicConfig, UserConfig};
use super::kind::UserType;
use super::member::{MakeError, Maker, User};

/// Users by name.
pub(crate) type Population = HashMap<Box<str>, Arc<User>>;

/// A group of users.
pub(crate) struct UserGroup {
    pub(crate) name: Arc<str>,
    registry: Registry,
    members: ArcSwap<Members>,
    /// Changes whenever the members do.
    version: AtomicU64,
    /// One change at a time.
    changing: Mutex<()>,
}

/// Who belongs to a group at a time.
#[derive(Default)]
pub(crate) struct Members {
    statics: Arc<Population>,
    dynamic: Arc<Population>,
    anonymous: Option<Arc<User>>,
    /// The folder of relative file names in users.
    base: PathBuf,
}

/// Members to come.
pub(crate) struct Prepared {
    members: Members,
    /// Whether the dynamic users that are there at the time go on.
    keeps_dynamic: bool,
}

/// Which dynamic users a new configuration begins with.
pub(crate) enum Dynamic<'a> {
    /// Those that are there.
    Kept,
    /// These.
    New(&'a [UserConfig]),
}

impl UserGroup {
    /// A group without members.
    pub(crate) fn new(name: &str, registry: &Registry) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            registry: registry.clone(),
            members: ArcSwap::default(),
            version: AtomicU64::new(0),
            changing: Mutex::default(),
        })
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who belongs to it now.
    pub(crate) fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// A number that is another one after every change of members.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Makes the members of a configuration, without letting them in. `base` is the folder of relative file names.
    ///
    /// # Errors
    /// [`MakeError`], for the first user that cannot be made.
    pub(crate) fn prepare(
        &self,
        config: &BasicConfig,
        base: &FsPath,
        dynamic: &Dynamic<'_>,
    ) -> Result<Prepared, MakeError> {
        let before = self.members();
        let statics = self.population(UserType::Static, &config.static_users, &before.statics, base)?;
        let anonymous = config.anonymous_user.as_ref().map(|config| {
            let maker = self.maker(UserType::Anonymous, base);
            let before = before.anonymous.as_ref();
            maker.make(config, before.filter(|before| before.config.name == config.name))
        });
        let (dynamic, keeps_dynamic) = match dynamic {
            Dynamic::Kept => (Population::new(), true),
            Dynamic::New(users) => (self.population(UserType::Dynamic, users, &before.dynamic, base)?, false),
        };
        Ok(Prepared {
            members: Members {
                statics: Arc::new(statics),
                dynamic: Arc::new(dynamic),
                anonymous: anonymous.transpose()?,
                base: base.to_owned(),
            },
            keeps_dynamic,
        })
    }

    /// Lets prepared members in, in place of those that are there.
    pub(crate) fn commit(&self, prepared: Prepared) {
        let _changing = self.change();
        let mut members = prepared.members;
        if prepared.keeps_dynamic {
            members.dynamic = Arc::clone(&self.members.load().dynamic);
        }
        self.replace(members);
    }

    /// Replaces the dynamic users once `before` has gone well; a failure of either changes nothing.
    ///
    /// # Errors
    /// [`MakeError`] for the first user that cannot be made, or what `before` fails with.
    pub(crate) fn publish<E: From<MakeError>>(
        &self,
        users: &[UserConfig],
        before: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let _changing = self.change();
        let now = self.members();
        let dynamic = self.population(UserType::Dynamic, users, &now.dynamic, &now.base)?;
        before()?;
        self.replace(Members {
            statics: Arc::clone(&now.statics),
            dynamic: Arc::new(dynamic),
            anonymous: now.anonymous.clone(),
            base: now.base.clone(),
        });
        Ok(())
    }

    fn replace(&self, members: Members) {
        for user in members.all() {
            user.activate();
        }
        self.members.store(Arc::new(members));
        self.version.fetch_add(1, Ordering::Release);
    }

    fn maker<'a>(&'a self, kind: UserType, base: &'a FsPath) -> Maker<'a> {
        Maker {
            group: &self.name,
            kind,
            registry: &self.registry,
            base,
        }
    }

    fn population(
        &self,
        kind: UserType,
        configs: &[UserConfig],
        before: &Population,
        base: &FsPath,
    ) -> Result<Population, MakeError> {
        let maker = self.maker(kind, base);
        let user = |config: &UserConfig| {
            let name = config.name.as_str();
            Ok((name.into(), maker.make(config, before.get(name))?))
        };
        configs.iter().map(user).collect()
    }

    /// Forgets numbers at servers and escapers that are there no more.
    pub(crate) fn keep_numbers(&self, server: &impl Fn(&str) -> bool, escaper: &impl Fn(&str) -> bool) {
        for user in self.members().all() {
            user.state.keep_numbers(server, escaper);
        }
    }
}

impl Members {
    /// The user of this name, static ones first.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<User>> {
        self.statics.get(name).or_else(|| self.dynamic.get(name))
    }

    /// Who those are that nobody knows.
    pub(crate) fn anonymous(&self) -> Option<&Arc<User>> {
        self.anonymous.as_ref()
    }

    /// The names of the static users.
    pub(crate) fn statics(&self) -> Vec<&str> {
        names(&self.statics)
    }

    /// The names of the dynamic users.
    pub(crate) fn dynamic(&self) -> Vec<&str> {
        names(&self.dynamic)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<User>> {
        self.statics
            .values()
            .chain(self.dynamic.values())
            .chain(&self.anonymous)
    }
}

fn names(population: &Population) -> Vec<&str> {
    let mut names: Vec<&str> = population.keys().map(|name| &**name).collect();
    names.sort_unstable();
    names
}
