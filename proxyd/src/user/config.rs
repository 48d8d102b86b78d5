//! What a user group is configured with (users.md §2).

mod site;
mod source;
mod user;

use std::collections::HashMap;
use std::path::Path as FsPath;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::value::{FilePath, Span};
use sluice_config::{Entry, Load, kinds};
use sluice_tls::client::{Connector, SessionCache};

pub(crate) use site::SiteConfig;
pub(crate) use source::{Format, SourceConfig};
pub(crate) use user::UserConfig;

kinds! {
    /// What a user group is configured as.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum UserGroupConfig: "user group" untyped "basic" {
        /// Users with passwords.
        Basic(Box<BasicConfig>) = "basic",
    }
    not built {
        "facts",
        "ldap",
    }
}

/// What `basic` is configured with.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BasicConfig {
    /// Users that stand here. They come before dynamic ones of the same name.
    #[serde(default)]
    pub(crate) static_users: Vec<UserConfig>,
    /// Whom a client counts as that gives no name, or an unknown one; without it such clients are refused.
    #[serde(default)]
    pub(crate) anonymous_user: Option<UserConfig>,
    /// Where dynamic users come from.
    #[serde(default)]
    pub(crate) source: Option<SourceConfig>,
    /// File that the last dynamic users are written to; published users survive a restart by it.
    #[serde(default)]
    pub(crate) cache: Option<FilePath>,
    /// Time between two looks at the source.
    #[serde(default = "refresh_interval")]
    pub(crate) refresh_interval: Span,
}

fn refresh_interval() -> Span {
    Span(Duration::from_secs(60))
}

impl UserGroupConfig {
    /// The keys that all kinds have.
    pub(crate) fn basic(&self) -> &BasicConfig {
        let Self::Basic(basic) = self;
        basic
    }

    /// Records what does not go together, and files that are not what they should be.
    pub(crate) fn check(&self, load: &mut Load, entry: &Entry<Self>) {
        self.basic().check(load, entry);
    }
}

impl BasicConfig {
    fn check(&self, load: &mut Load, entry: &Entry<UserGroupConfig>) {
        let base = entry.place.base_dir();
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (index, user) in self.static_users.iter().enumerate() {
            let path = format!("static_users[{index}]");
            if let Some(first) = first.insert(user.name.as_str(), index) {
                let message = format!("the name `{}` is taken already, by static_users[{first}]", user.name);
                load.error(&entry.place, format!("{path}.name").as_str(), message);
            }
            for flaw in user.flaws(base) {
                load.error(&entry.place, format!("{path}.{}", flaw.path).as_str(), flaw.message);
            }
        }
        for flaw in self.anonymous_user.iter().flat_map(|user| user.flaws(base)) {
            load.error(
                &entry.place,
                format!("anonymous_user.{}", flaw.path).as_str(),
                flaw.message,
            );
        }
        if self.refresh_interval.0.is_zero() {
            load.error(&entry.place, "refresh_interval", "must be more than 0");
        }
        if let Some(source) = &self.source {
            let path = source.path.resolve(base);
            if !path.is_file() {
                let message = format!("`{}` is no file that can be read", path.display());
                load.error(&entry.place, "source", message);
            }
        }
        if let Some(cache) = &self.cache {
            let path = cache.resolve(base);
            if path.exists() && !path.is_file() {
                load.error(&entry.place, "cache", format!("`{}` is no file", path.display()));
            }
        }
    }
}

/// Something wrong with a user that only shows when files are read.
pub(crate) struct Flaw {
    /// The part, seen from the user.
    pub(crate) path: String,
    pub(crate) message: String,
}

impl UserConfig {
    /// What is wrong with the files that the user names, relative to `base`.
    pub(crate) fn flaws(&self, base: &FsPath) -> Vec<Flaw> {
        let flaw = |(index, site): (usize, &SiteConfig)| {
            let config = site.tls_client.as_ref()?;
            let error = Connector::build(config, base, SessionCache::ManySites).err()?;
            Some(Flaw {
                path: format!("explicit_sites[{index}].tls_client"),
                message: error.to_string(),
            })
        };
        self.explicit_sites.iter().enumerate().filter_map(flaw).collect()
    }
}
