//! The running objects: servers and escapers as one configuration has them.
//!
//! A set is built as a whole, then put in place; nothing in it changes afterwards. Counters are looked up by name, so
//! they go on over a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use sluice_config::Entry;
use sluice_telemetry::{EventLogs, LogKind, Naming};

use crate::config::{EscaperConfig, ProxydConfig, ServerConfig, listen_spec};
use crate::escaper::direct_fixed::DirectFixed;
use crate::escaper::dummy_deny::DummyDeny;
use crate::escaper::{Escaper, EscaperCommon, Escapers};
use crate::listen::ListenSpec;
use crate::server::dummy_close::DummyClose;
use crate::server::http_proxy::HttpProxy;
use crate::server::{Server, ServerCommon};
use crate::stats::StatsBook;

/// One configuration, built.
pub(crate) struct Objects {
    pub(crate) escapers: Arc<Escapers>,
    pub(crate) servers: BTreeMap<String, ServerObject>,
    /// The configuration of each escaper, to tell at a reload which ones have changed.
    escaper_configs: BTreeMap<String, (EscaperConfig, u64)>,
}

/// A server, and where it wants to listen.
pub(crate) struct ServerObject {
    pub(crate) server: Arc<Server>,
    pub(crate) listen: Option<ListenSpec>,
    config: ServerConfig,
}

/// What objects are built with.
pub(crate) struct Builder<'a> {
    pub(crate) logs: &'a EventLogs,
    pub(crate) naming: Naming,
    pub(crate) stats: &'a mut StatsBook,
    /// Gives each configuration of an object a number of its own.
    pub(crate) generations: &'a mut u64,
    /// What runs now; objects that stay the same are taken from it.
    pub(crate) running: Option<&'a Objects>,
}

impl Builder<'_> {
    /// Builds everything.
    ///
    /// # Errors
    /// The first object that cannot be built, with its name.
    pub(crate) fn build(&mut self, config: &ProxydConfig) -> anyhow::Result<Objects> {
        let mut escapers = Vec::new();
        let mut escaper_configs = BTreeMap::new();
        let mut all_same = self
            .running
            .is_some_and(|running| running.escaper_configs.len() == config.escapers.len());
        for entry in &config.escapers {
            let (generation, same) = self.escaper_generation(entry);
            all_same &= same;
            escapers.push(self.escaper(entry, generation));
            escaper_configs.insert(entry.name.clone(), (entry.value.clone(), generation));
        }
        let escapers = Arc::new(Escapers::new(escapers));
        let mut servers = BTreeMap::new();
        for entry in &config.servers {
            let object = self
                .server(entry, &escapers, all_same)
                .with_context(|| format!("server `{}`", entry.name))?;
            servers.insert(entry.name.clone(), object);
        }
        Ok(Objects {
            escapers,
            servers,
            escaper_configs,
        })
    }

    fn next_generation(&mut self) -> u64 {
        *self.generations += 1;
        *self.generations
    }

    /// The number of an escaper's configuration, and whether it is the running one.
    fn escaper_generation(&mut self, entry: &Entry<EscaperConfig>) -> (u64, bool) {
        match self
            .running
            .and_then(|running| running.escaper_configs.get(&entry.name))
        {
            Some((config, generation)) if *config == entry.value => (*generation, true),
            _ => (self.next_generation(), false),
        }
    }

    fn escaper(&mut self, entry: &Entry<EscaperConfig>, generation: u64) -> Escaper {
        let (kind, tags, logger) = match &entry.value {
            EscaperConfig::DirectFixed(config) => {
                ("DirectFixed", &config.extra_metrics_tags, config.shared_logger.as_ref())
            }
            EscaperConfig::DummyDeny(config) => ("DummyDeny", &config.extra_metrics_tags, None),
        };
        let logger = format!("le-{}", logger.map_or(entry.name.as_str(), |name| name));
        let common = EscaperCommon {
            name: entry.name.as_str().into(),
            kind,
            stats: self.stats.escaper(&entry.name, tags),
            log: self.logs.logger(LogKind::Escape, &logger),
            generation,
        };
        match &entry.value {
            EscaperConfig::DirectFixed(config) => Escaper::DirectFixed(Box::new(DirectFixed::new(config, common))),
            EscaperConfig::DummyDeny(_) => Escaper::DummyDeny(DummyDeny { common }),
        }
    }

    fn server(
        &mut self,
        entry: &Entry<ServerConfig>,
        escapers: &Arc<Escapers>,
        same_escapers: bool,
    ) -> anyhow::Result<ServerObject> {
        let listen = match entry.value.listen() {
            Some((listen, in_worker, tcp)) => {
                Some(listen_spec(listen, in_worker, tcp).context("the address to listen on")?)
            }
            None => None,
        };
        let running = self.running.and_then(|running| running.servers.get(&entry.name));
        if let Some(running) = running.filter(|running| same_escapers && running.config == entry.value) {
            return Ok(ServerObject {
                server: Arc::clone(&running.server),
                listen,
                config: entry.value.clone(),
            });
        }
        let server = match &entry.value {
            ServerConfig::DummyClose(_) => {
                let common = ServerCommon::bare(
                    entry.name.as_str().into(),
                    "DummyClose",
                    self.stats.server(&entry.name, &Default::default()),
                );
                Server::DummyClose(DummyClose { common })
            }
            ServerConfig::HttpProxy(config) => {
                let logger = config.shared_logger.as_ref().map_or(entry.name.as_str(), |name| name);
                let common = ServerCommon::new(
                    entry.name.as_str().into(),
                    "HttpProxy",
                    self.stats.server(&entry.name, &config.extra_metrics_tags),
                    self.logs.logger(LogKind::Task, &format!("lt-{logger}")),
                    config.task_options(),
                    config.ingress_network_filter.clone(),
                );
                let escaper = escapers
                    .id(config.escaper.as_str())
                    .with_context(|| format!("no escaper is named `{}`", config.escaper.as_str()))?;
                let generation = self.next_generation();
                let way = (Arc::clone(escapers), escaper);
                let base = entry.place.base_dir();
                Server::HttpProxy(Arc::new(HttpProxy::new(
                    config,
                    common,
                    way,
                    generation,
                    self.naming,
                    base,
                )?))
            }
        };
        Ok(ServerObject {
            server: Arc::new(server),
            listen,
            config: entry.value.clone(),
        })
    }
}
