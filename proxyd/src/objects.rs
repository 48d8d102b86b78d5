//! The running objects: servers and escapers as one configuration has them.
//!
//! A set is built as a whole, then put in place; nothing in it changes afterwards. Counters are looked up by name, so
//! they go on over a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use sluice_config::Entry;
use sluice_config::value::NodeName;
use sluice_telemetry::{EventLogs, LogKind, Naming};
use sluice_tls::BuildError;
use sluice_tls::config::TicketerConfig;
use sluice_tls::server::Ticketer;

use crate::audit::{Auditor, AuditorKind, Registered, Surroundings};
use crate::config::{EscaperConfig, ProxydConfig, ServerConfig, listen_spec};
use crate::escaper::direct_fixed::DirectFixed;
use crate::escaper::dummy_deny::DummyDeny;
use crate::escaper::{Escaper, EscaperCommon, EscaperId, Escapers};
use crate::listen::ListenSpec;
use crate::server::dummy_close::DummyClose;
use crate::server::http_proxy::{HttpProxy, Parts};
use crate::server::intelli_proxy::IntelliProxy;
use crate::server::keys::TaskKeys;
use crate::server::port::{Door, Port};
use crate::server::socks_proxy::SocksProxy;
use crate::server::{Server, ServerCommon};
use crate::stats::StatsBook;
use crate::tls_server::{self, Ticketers};
use crate::user::{ClientProtocol, Gate, GateKeys, Groups};

/// One configuration, built.
pub(crate) struct Objects {
    pub(crate) escapers: Arc<Escapers>,
    pub(crate) servers: BTreeMap<String, ServerObject>,
    pub(crate) groups: Groups,
    pub(crate) auditors: BTreeMap<String, Arc<Auditor>>,
    ticketers: Ticketers,
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
    /// What auditors need of the daemon.
    pub(crate) around: Surroundings,
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
        let running = self.running.map(|running| &running.groups);
        let groups = Groups::prepare(&config.user_groups, running, self.stats.registry())?;
        let auditors = self.auditors(config)?;
        let mut site = Site {
            auditors: &auditors,
            config: &config.servers,
            escapers: &escapers,
            groups: &groups,
            same_escapers: all_same,
            servers: BTreeMap::new(),
            ticketers: Ticketers::default(),
        };
        for entry in &config.servers {
            self.server(entry, &mut site)?;
        }
        let Site { servers, ticketers, .. } = site;
        Ok(Objects {
            escapers,
            servers,
            groups,
            auditors,
            ticketers,
            escaper_configs,
        })
    }

    /// The auditors. One whose configuration is the running one's stays, unless it has certificates of its own: the files
    /// may hold others now.
    fn auditors(&self, config: &ProxydConfig) -> anyhow::Result<BTreeMap<String, Arc<Auditor>>> {
        let auditor = |entry: &Entry<AuditorKind>| {
            let config = entry.value.config();
            let running = self.running.and_then(|running| running.auditors.get(&entry.name));
            if let Some(running) = running
                && running.config == *config
                && !config.reads_certificates()
            {
                return Ok((entry.name.clone(), Arc::clone(running)));
            }
            let log = self.logs.logger(LogKind::Audit, &format!("la-{}", entry.name));
            let named = (entry.name.as_str(), entry.place.base_dir());
            let stats = match running {
                Some(running) => running.stats.clone(),
                None => Registered::new(&entry.name, self.stats.registry()),
            };
            let auditor = Auditor::new(named, config, (log, stats), &self.around, running.map(Arc::as_ref))
                .with_context(|| format!("auditor `{}`", entry.name))?;
            Ok((entry.name.clone(), Arc::new(auditor)))
        };
        config.auditors.iter().map(auditor).collect()
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
            EscaperConfig::DirectFixed(config) => Escaper::DirectFixed(Arc::new(DirectFixed::new(config, common))),
            EscaperConfig::DummyDeny(_) => Escaper::DummyDeny(DummyDeny { common }),
        }
    }

    /// Builds a server, after those that it hands connections to; loops were refused when the file was read.
    fn server(&mut self, entry: &Entry<ServerConfig>, site: &mut Site<'_>) -> anyhow::Result<()> {
        if site.servers.contains_key(&entry.name) {
            return Ok(());
        }
        for (_, next) in entry.value.next() {
            let next = site.config.iter().find(|other| other.name == next.as_str());
            self.server(next.context("a server that is not there")?, site)?;
        }
        let object = self
            .server_object(entry, site)
            .with_context(|| format!("server `{}`", entry.name))?;
        site.servers.insert(entry.name.clone(), object);
        Ok(())
    }

    fn server_object(&mut self, entry: &Entry<ServerConfig>, site: &mut Site<'_>) -> anyhow::Result<ServerObject> {
        let listen = match entry.value.listen() {
            Some((listen, in_worker, tcp)) => {
                Some(listen_spec(listen, in_worker, tcp).context("the address to listen on")?)
            }
            None => None,
        };
        let running = self.running.and_then(|running| running.servers.get(&entry.name));
        let server = match running {
            Some(running) if site.may_stay(running, &entry.value, self.running) => Arc::clone(&running.server),
            _ => Arc::new(self.new_server(entry, site)?),
        };
        Ok(ServerObject {
            server,
            listen,
            config: entry.value.clone(),
        })
    }

    fn new_server(&mut self, entry: &Entry<ServerConfig>, site: &mut Site<'_>) -> anyhow::Result<Server> {
        let base = entry.place.base_dir();
        Ok(match &entry.value {
            ServerConfig::DummyClose(_) => Server::DummyClose(DummyClose {
                common: self.bare(entry, "DummyClose"),
            }),
            ServerConfig::HttpProxy(config) => {
                let auditor = site.auditor(config.auditor.as_ref())?;
                let common = self.common(entry, "HttpProxy", &config.keys(), auditor);
                let way = site.way(config.escaper.as_str())?;
                let generation = self.next_generation();
                let tls = match &config.tls_server {
                    Some(tls) => {
                        let ticketer = site.ticketer(&entry.name, config.tls_ticketer.as_ref(), self.running)?;
                        Some(tls_server::build(tls, base, &[b"http/1.1", b"http/1.0"], ticketer)?)
                    }
                    None => None,
                };
                let keys = GateKeys {
                    username_params: config.username_params.clone(),
                    tcp_misc_opts: config.tcp_misc_opts.clone(),
                };
                let gate = site.gate(config.user_group.as_ref(), &common, ClientProtocol::Http, keys)?;
                let parts = Parts {
                    common,
                    way,
                    gate,
                    tls_server: tls,
                    generation,
                };
                let server = HttpProxy::new(config, parts, self.naming, base)?;
                Server::HttpProxy(Arc::new(server))
            }
            ServerConfig::IntelliProxy(config) => Server::IntelliProxy(IntelliProxy {
                common: self.bare(entry, "IntelliProxy"),
                door: Door::new(&config.keys()),
                timeout: config.protocol_detection_timeout.0,
                http: site.next(&config.http_server)?,
                socks: site.next(&config.socks_server)?,
            }),
            ServerConfig::NativeTlsPort(config) => {
                let ticketer = site.ticketer(&entry.name, config.tls_ticketer.as_ref(), self.running)?;
                Server::Port(Port {
                    common: self.bare(entry, "NativeTlsPort"),
                    door: Door::new(&config.keys()),
                    tls: Some(tls_server::build(&config.tls_server, base, &[], ticketer)?),
                    next: site.next(&config.server)?,
                })
            }
            ServerConfig::PlainTcpPort(config) => Server::Port(Port {
                common: self.bare(entry, "PlainTcpPort"),
                door: Door::new(&config.keys()),
                tls: None,
                next: site.next(&config.server)?,
            }),
            ServerConfig::PlainTlsPort(config) => {
                let ticketer = site.ticketer(&entry.name, config.tls_ticketer.as_ref(), self.running)?;
                Server::Port(Port {
                    common: self.bare(entry, "PlainTlsPort"),
                    door: Door::new(&config.keys()),
                    tls: Some(tls_server::build(&config.tls_server, base, &[], ticketer)?),
                    next: site.next(&config.server)?,
                })
            }
            ServerConfig::SocksProxy(config) => {
                let auditor = site.auditor(config.auditor.as_ref())?;
                let common = self.common(entry, "SocksProxy", &config.keys(), auditor);
                let way = site.way(config.escaper.as_str())?;
                let keys = GateKeys {
                    username_params: config.username_params.clone(),
                    tcp_misc_opts: config.tcp_misc_opts.clone(),
                };
                let gate = site.gate(config.user_group.as_ref(), &common, ClientProtocol::Socks, keys)?;
                Server::SocksProxy(Arc::new(SocksProxy::new(config, common, way, gate)))
            }
        })
    }

    /// What a server with tasks has in common with others.
    fn common(
        &mut self,
        entry: &Entry<ServerConfig>,
        kind: &'static str,
        keys: &TaskKeys<'_>,
        auditor: Option<Arc<Auditor>>,
    ) -> Arc<ServerCommon> {
        let logger = keys.shared_logger.map_or(entry.name.as_str(), |name| name);
        let running = self.running.and_then(|running| running.servers.get(&entry.name));
        ServerCommon::new(
            entry.name.as_str().into(),
            kind,
            self.stats.server(&entry.name, keys.extra_metrics_tags),
            self.logs.logger(LogKind::Task, &format!("lt-{logger}")),
            keys,
            auditor,
            running.map(|running| &**running.server.common()),
        )
    }

    /// The same for a server without tasks.
    fn bare(&mut self, entry: &Entry<ServerConfig>, kind: &'static str) -> Arc<ServerCommon> {
        let ingress = entry.value.port_keys().and_then(|keys| keys.ingress_network_filter);
        let stats = self.stats.server(&entry.name, &Default::default());
        ServerCommon::bare(entry.name.as_str().into(), kind, stats, ingress)
    }
}

/// Where servers are being built: what they refer to, and those that are done.
struct Site<'a> {
    config: &'a [Entry<ServerConfig>],
    escapers: &'a Arc<Escapers>,
    groups: &'a Groups,
    auditors: &'a BTreeMap<String, Arc<Auditor>>,
    /// The escapers are the running ones.
    same_escapers: bool,
    servers: BTreeMap<String, ServerObject>,
    ticketers: Ticketers,
}

impl Site<'_> {
    fn way(&self, escaper: &str) -> anyhow::Result<(Arc<Escapers>, EscaperId)> {
        let id = self
            .escapers
            .id(escaper)
            .with_context(|| format!("no escaper is named `{escaper}`"))?;
        Ok((Arc::clone(self.escapers), id))
    }

    /// The auditor of a server, if it has one.
    fn auditor(&self, name: Option<&NodeName>) -> anyhow::Result<Option<Arc<Auditor>>> {
        let Some(name) = name else { return Ok(None) };
        let auditor = self.auditors.get(name.as_str());
        let auditor = auditor.with_context(|| format!("no auditor is named `{name}`"))?;
        Ok(Some(Arc::clone(auditor)))
    }

    /// The way of a server to its users, if it has any.
    fn gate(
        &self,
        name: Option<&NodeName>,
        server: &ServerCommon,
        protocol: ClientProtocol,
        keys: GateKeys,
    ) -> anyhow::Result<Option<Gate>> {
        let Some(name) = name else { return Ok(None) };
        let group = self
            .groups
            .get(name)
            .with_context(|| format!("no user group is named `{name}`"))?;
        Ok(Some(Gate::new(group, &server.stats, protocol, keys)))
    }

    fn next(&self, name: &NodeName) -> anyhow::Result<Arc<Server>> {
        let object = self.servers.get(name.as_str()).context("a server that is not there")?;
        Ok(Arc::clone(&object.server))
    }

    fn ticketer(
        &mut self,
        name: &str,
        config: Option<&TicketerConfig>,
        running: Option<&Objects>,
    ) -> Result<Arc<Ticketer>, BuildError> {
        self.ticketers
            .take_over(name, config, running.map(|running| &running.ticketers))
    }

    /// Whether a running server is what `config` asks for, all that it refers to included. One with certificates is
    /// built anew: the files may hold others now.
    fn may_stay(&self, running: &ServerObject, config: &ServerConfig, all: Option<&Objects>) -> bool {
        let auditor = config.keys().and_then(|keys| self.auditors.get(keys.auditor?.as_str()));
        let same_auditor = match (&running.server.common().auditor, auditor) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        running.config == *config
            && self.same_escapers
            && same_auditor
            && !config.reads_certificates()
            && config.next().iter().all(|(_, next)| {
                let old = all.and_then(|all| all.servers.get(next.as_str()));
                let new = self.servers.get(next.as_str());
                old.zip(new)
                    .is_some_and(|(old, new)| Arc::ptr_eq(&old.server, &new.server))
            })
    }
}
