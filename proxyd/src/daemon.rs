//! proxyd as a daemon of the group: start, reload, stop, and what the control socket asks of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};
use sluice_config::Load;
use sluice_lifecycle::{Context, Daemon, Drain, Graph, Tasks, schema_of};
use sluice_telemetry::metrics::{self, RuntimeGauges};
use sluice_telemetry::warn;

use crate::audit::tls::TlsInterception;
use crate::audit::{AuditorKind, Recording, Surroundings};
use crate::config::{EscaperConfig, PeerConfig, PeersConfig, ProxydConfig, ServerConfig};
use crate::listen::{Listeners, Opened};
use crate::objects::{Builder, Objects};
use crate::peer::Address;
use crate::resolve::{Link, Options, Resolver};
use crate::server::{Server, ServerCommon};
use crate::stats::StatsBook;
use crate::user::{Groups, UserGroup, UserGroupConfig};
use crate::worker::{WorkerOptions, Workers};

/// The data plane.
pub(crate) struct Proxyd {
    cx: Arc<Context>,
    workers: Arc<Workers>,
    peers: PeersConfig,
    state: Mutex<State>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
}

/// What a reload changes.
struct State {
    objects: Objects,
    listeners: BTreeMap<String, Listeners>,
    stats: StatsBook,
    generations: u64,
    /// Objects that were replaced and may still have tasks.
    retired: Vec<Weak<ServerCommon>>,
    /// The line to auditd, from the first auditor on.
    recording: Option<Arc<Recording>>,
    /// What the metrics ask; they stop to when these are dropped.
    registrations: Vec<metrics::Registration>,
}

impl Daemon for Proxyd {
    const NAME: &'static str = "proxyd";
    const ABOUT: &'static str = "The data plane of Sluice: proxies HTTP and SOCKS";
    const DATA_PLANE: bool = true;

    type Config = ProxydConfig;

    fn read(load: &mut Load) -> ProxydConfig {
        ProxydConfig::read(load)
    }

    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
        let mut sections = Map::new();
        sections.insert(
            "server".into(),
            sluice_config::schema::nodes::<ServerConfig>(generator).into(),
        );
        sections.insert(
            "escaper".into(),
            sluice_config::schema::nodes::<EscaperConfig>(generator).into(),
        );
        sections.insert(
            "user_group".into(),
            sluice_config::schema::nodes::<UserGroupConfig>(generator).into(),
        );
        sections.insert(
            "auditor".into(),
            sluice_config::schema::nodes::<AuditorKind>(generator).into(),
        );
        sections.insert("peers".into(), schema_of::<PeersConfig>(generator));
        sections
    }

    fn graph(config: &ProxydConfig) -> Option<Graph> {
        Some(config.graph())
    }

    async fn start(config: ProxydConfig, cx: Context) -> anyhow::Result<Arc<Self>> {
        let options = WorkerOptions::new(&cx.runtime, cx.worker.as_ref())?;
        metrics::set_workers(options.threads.len());
        let peer = resolver_peer(&config.peers, &cx);
        let peer_uid = config.peers.resolverd.as_ref().and_then(|peer| peer.uid);
        let workers = Arc::new(Workers::start(&options, &cx.tasks, || {
            Resolver::new(
                peer.clone(),
                Options {
                    peer_uid,
                    ..Options::default()
                },
            )
        })?);
        let mut registrations = Vec::new();
        for (index, gauges) in workers.runtime_metrics().enumerate() {
            let source = RuntimeGauges::new(format!("worker-{index}"), gauges);
            registrations.push(cx.metrics.register(Arc::new(source)));
        }
        for worker in workers.all() {
            registrations.push(
                cx.metrics
                    .register(Arc::new(crate::resolve_stats::CacheHits::new(&worker.resolver))),
            );
        }
        if let Address::Unix(path) = &peer
            && !path.exists()
        {
            warn!("resolverd is not there: names are not resolved until it is"; "socket" => %path.display());
        }
        let mut stats = StatsBook::new(cx.metrics.clone());
        let mut generations = 0;
        let recording = recording(&config, &config.peers, &cx)?;
        if let Some(recording) = &recording {
            registrations.push(cx.metrics.register(Arc::<Recording>::clone(recording)));
        }
        let mut objects = Builder {
            logs: &cx.logs,
            naming: cx.naming,
            stats: &mut stats,
            generations: &mut generations,
            around: surroundings(&config.peers, &cx, recording.as_ref()),
            running: None,
        }
        .build(&config)?;
        objects.groups.commit(Groups::default(), &cx.background, &cx.tasks);
        let listeners = open_all(&objects, &workers, &BTreeMap::new())?;
        let mut started = BTreeMap::new();
        for (name, opened) in listeners {
            let server = Arc::clone(&objects.servers[&name].server);
            started.insert(name, opened.start(None, server, &workers));
        }
        let state = State {
            objects,
            listeners: started,
            stats,
            generations,
            retired: Vec::new(),
            recording,
            registrations,
        };
        Ok(Arc::new(Self {
            cx: Arc::new(cx),
            workers,
            peers: config.peers,
            state: Mutex::new(state),
            reloading: tokio::sync::Mutex::new(()),
        }))
    }

    fn status(&self) -> Value {
        let state = self.state();
        let listening: Vec<_> = state
            .listeners
            .iter()
            .map(|(name, listeners)| json!({"server": name, "address": listeners.address().to_string()}))
            .collect();
        let alive: u64 = state
            .objects
            .servers
            .values()
            .map(|object| object.server.common().stats.alive())
            .sum();
        let condition = self.workers.all()[0].resolver.condition();
        let auditors: Map<_, _> = state
            .objects
            .auditors
            .iter()
            .filter_map(|(name, auditor)| Some((name.clone(), status_of(auditor.tls.as_ref()?, auditor.copies()))))
            .collect();
        let mut status = json!({
            "auditors": auditors,
            "listening": listening,
            "tasks_alive": alive,
            "workers": self.workers.all().len(),
            "peers": {
                "resolverd": {
                    "address": resolver_peer(&self.peers, &self.cx).to_string(),
                    "state": match condition.link {
                        Link::Up => "connected",
                        Link::Idle => "idle",
                        Link::Down { .. } => "unreachable",
                    },
                    "last_error": condition.last_error,
                    "queries_in_flight": condition.in_flight,
                    "answers_cached": condition.cached,
                },
            },
        });
        match (&state.recording, recorder_peer(&self.peers, &self.cx)) {
            (Some(recording), _) => status["peers"]["auditd"] = recording.status(),
            // Copies are counted at each auditor.
            (None, reader @ Address::Udp(_)) => status["peers"]["auditd"] = json!({ "address": reader.to_string() }),
            (None, _) => {}
        }
        status
    }

    fn objects(&self) -> Vec<(&'static str, Vec<String>)> {
        let state = self.state();
        let escapers = state
            .objects
            .escapers
            .iter()
            .map(|escaper| escaper.common().name.to_string())
            .collect();
        vec![
            ("server", state.objects.servers.keys().cloned().collect()),
            ("escaper", escapers),
            ("user-group", state.objects.groups.names()),
            ("auditor", state.objects.auditors.keys().cloned().collect()),
        ]
    }

    fn methods(self: &Arc<Self>, methods: &mut sluice_control::Methods) {
        crate::control::add(self, methods);
    }

    async fn reload(self: &Arc<Self>, config: ProxydConfig) -> anyhow::Result<()> {
        let _one = self.reloading.lock().await;
        if config.peers != self.peers {
            warn!("a change of `peers` takes effect at the next start of proxyd");
        }
        let mut state = self.state();
        let state = &mut *state;
        if state.recording.is_none()
            && let Some(recording) = recording(&config, &self.peers, &self.cx)?
        {
            let source = Arc::<Recording>::clone(&recording);
            state.registrations.push(self.cx.metrics.register(source));
            state.recording = Some(recording);
        }
        let mut objects = Builder {
            logs: &self.cx.logs,
            naming: self.cx.naming,
            stats: &mut state.stats,
            generations: &mut state.generations,
            around: surroundings(&self.peers, &self.cx, state.recording.as_ref()),
            running: Some(&state.objects),
        }
        .build(&config)?;
        // Whatever can fail comes before the first thing that changes.
        let mut opened = open_all(&objects, &self.workers, &state.listeners)?;
        let mut listeners = BTreeMap::new();
        for (name, object) in &objects.servers {
            let Some(spec) = &object.listen else { continue };
            if let Some(fresh) = opened.remove(name) {
                let running = state.listeners.remove(name);
                let started = fresh.start(running, Arc::clone(&object.server), &self.workers);
                listeners.insert(name.clone(), started);
            } else if let Some(mut kept) = state.listeners.remove(name) {
                kept.replace(spec, Arc::clone(&object.server));
                listeners.insert(name.clone(), kept);
            }
        }
        let groups = std::mem::take(&mut state.objects.groups);
        objects.groups.commit(groups, &self.cx.background, &self.cx.tasks);
        // The sockets that are no longer wanted close here.
        state.listeners = listeners;
        let replaced = std::mem::replace(&mut state.objects, objects);
        for (name, object) in &replaced.servers {
            let stays = state
                .objects
                .servers
                .get(name)
                .is_some_and(|new| Arc::ptr_eq(&new.server, &object.server));
            if !stays {
                object.server.common().retire();
                state.retired.push(Arc::downgrade(object.server.common()));
            }
        }
        state.retired.retain(|common| common.strong_count() > 0);
        let objects = &state.objects;
        state.stats.keep(
            |name| objects.servers.contains_key(name),
            |name| objects.escapers.id(name).is_some(),
        );
        objects.groups.keep_numbers(
            |name| objects.servers.contains_key(name),
            |name| objects.escapers.id(name).is_some(),
        );
        Ok(())
    }

    async fn hung_up(self: &Arc<Self>) {
        crate::control::reload_resolverd(&self.cx.runtime_dir).await;
    }

    fn force_quit(&self, name: Option<&str>) {
        for common in self.state().retired.iter().filter_map(Weak::upgrade) {
            if name.is_none_or(|name| *common.name == *name) {
                common.quit();
            }
        }
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        let commons: Vec<_> = {
            let mut state = self.state();
            state.listeners.clear();
            let retired = state.retired.iter().filter_map(Weak::upgrade);
            let servers = state.objects.servers.values();
            servers
                .map(|object| Arc::clone(object.server.common()))
                .chain(retired)
                .collect()
        };
        for common in &commons {
            common.retire();
        }
        for worker in self.workers.all() {
            worker.wheel.nudge();
        }
        if !drain.wait(&self.cx.tasks).await {
            for common in &commons {
                common.quit();
            }
            drain.quit(&self.cx.tasks).await;
        }
        self.workers.stop();
        let recording = self.state().recording.clone();
        if let Some(recording) = recording {
            let flushed = self.cx.background.spawn_blocking(move || recording.flush());
            let _ = flushed.await; // what is left is lost with us
        }
    }
}

/// The line to the group's auditd, if anything is to be told.
fn recording(config: &ProxydConfig, peers: &PeersConfig, cx: &Context) -> anyhow::Result<Option<Arc<Recording>>> {
    if config.auditors.is_empty() {
        return Ok(None);
    }
    let Address::Unix(path) = recorder_peer(peers, cx) else {
        warn!("`peers.auditd` takes copies of streams alone: what auditors find stands in the log, and nowhere else");
        return Ok(None);
    };
    let recording = Recording::start(path)?;
    cx.logs.tap_audit(Arc::<Recording>::clone(&recording));
    if !recording.path().exists() {
        warn!("auditd is not there: what auditors tell is kept for it, up to a limit; without a socket for 5 s it is taken for one that is not run"; "socket" => %recording.path().display());
    }
    Ok(Some(recording))
}

impl Proxyd {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server of this name.
    pub(crate) fn server(&self, name: &str) -> Option<Arc<Server>> {
        self.state()
            .objects
            .servers
            .get(name)
            .map(|object| Arc::clone(&object.server))
    }

    /// The user group of this name.
    pub(crate) fn user_group(&self, name: &str) -> Option<Arc<UserGroup>> {
        self.state().objects.groups.get(name).map(Arc::clone)
    }

    /// The file that the dynamic users of this group are written to.
    pub(crate) fn user_cache(&self, name: &str) -> Option<PathBuf> {
        self.state().objects.groups.cache(name).map(Path::to_owned)
    }

    /// The work that a stop waits for.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.cx.tasks
    }

    /// What serves that work.
    pub(crate) fn background(&self) -> &Tasks {
        &self.cx.background
    }

    /// The group's runtime directory.
    pub(crate) fn runtime_dir(&self) -> &Path {
        &self.cx.runtime_dir
    }
}

/// Opens the sockets that are not open yet.
fn open_all(
    objects: &Objects,
    workers: &Workers,
    running: &BTreeMap<String, Listeners>,
) -> anyhow::Result<BTreeMap<String, Opened>> {
    let mut opened = BTreeMap::new();
    let mut places: BTreeMap<_, &String> = BTreeMap::new();
    for (name, object) in &objects.servers {
        let Some(spec) = &object.listen else { continue };
        // Our sockets share ports: the kernel would let each have a part of the connections.
        let place = (spec.options.address, spec.options.interface.as_deref());
        if let Some(other) = places.insert(place, name) {
            anyhow::bail!("servers `{other}` and `{name}` both listen on {}", spec.options.address);
        }
        let there = running.get(name).map_or(0, |listeners| listeners.fit(spec, workers));
        if there >= spec.count(workers) {
            continue;
        }
        let ours = running
            .values()
            .any(|listeners| listeners.overlap(spec.options.address));
        opened.insert(name.clone(), Opened::open(name, spec, workers, ours, there)?);
    }
    Ok(opened)
}

/// What auditors need of the daemon.
fn surroundings(peers: &PeersConfig, cx: &Context, recording: Option<&Arc<Recording>>) -> Surroundings {
    let own = || Address::Unix(cx.runtime_dir.join("certgend.mint"));
    let peer = peers.certgend.as_ref();
    let address = peer.and_then(|peer| peer.address.as_ref());
    Surroundings {
        generator: match address.map(|address| &address.0) {
            Some(address @ (Address::Unix(_) | Address::Udp(_))) => address.clone(),
            // The check of the configuration leaves none of these.
            Some(Address::Tcp(_)) | None => own(),
        },
        certgend_uid: peer.and_then(|peer| peer.uid),
        recorder: recorder_peer(peers, cx),
        background: cx.background.clone(),
        recording: recording.map(Arc::clone),
    }
}

/// What is told of an auditor's certificates, and of its copies where these do not go to auditd.
fn status_of(tls: &TlsInterception, copies: Option<Value>) -> Value {
    let leaves = tls.leaves();
    let condition = leaves.condition();
    let mut status = json!({
        "certificate_generator": leaves.generator().to_string(),
        "connected": condition.connected,
        "last_error": condition.last_error.as_deref(),
        "certificates_cached": condition.cached,
        "certificates_awaited": condition.in_flight,
    });
    if let Some(copies) = copies {
        status["copies"] = copies;
    }
    if let Some(bypassed) = tls.bypassed() {
        status["bypassed"] = bypassed;
    }
    status
}

/// Who answers proxyd's name queries.
fn resolver_peer(peers: &PeersConfig, cx: &Context) -> Address {
    peer_or(peers.resolverd.as_ref(), cx, "resolverd.dns")
}

/// Who records what auditors see.
fn recorder_peer(peers: &PeersConfig, cx: &Context) -> Address {
    peer_or(peers.auditd.as_ref(), cx, "auditd/dump")
}

/// What is configured, or that socket of the group.
fn peer_or(peer: Option<&PeerConfig>, cx: &Context, socket: &str) -> Address {
    peer.and_then(|peer| peer.address.as_ref()).map_or_else(
        || Address::Unix(cx.runtime_dir.join(socket)),
        |address| address.0.clone(),
    )
}
