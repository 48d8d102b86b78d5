//! certgend as a daemon of the group: start, reload, stop.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};
use sluice_config::{
    Load,
    value::{HistogramMetrics, SchedAffinity},
};
use sluice_lifecycle::{Context, Daemon, DataSocket, Drain, Tasks, WorkerConfig, schema_of};
use sluice_telemetry::{LogKind, metrics::Registration, notice, warn};
use tokio::task::spawn_blocking;

use crate::config::{CertgendConfig, Config};
use crate::mint::{Mint, Minter};
use crate::rate::Rate;
use crate::serve;
use crate::stats::{Stats, StatsSource};

/// The name of the group's own socket, as a file and when it is passed in.
const SOCKET: &str = "certgend.mint";

/// The name of the UDP socket when it is passed in.
const UDP_SOCKET: &str = "certgend.udp";

/// Mints certificates for TLS interception.
pub(crate) struct Certgend {
    minter: Arc<Minter>,
    own: DataSocket,
    udp: Option<SocketAddr>,
    tasks: Tasks,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    _metrics: Registration,
}

fn durations(config: &Config) -> HistogramMetrics {
    let backend = config.own.backend.as_ref();
    backend
        .map(|backend| backend.duration_stats.clone())
        .unwrap_or_default()
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Keys of `worker` that are set and for a data plane only.
fn without_effect(worker: &WorkerConfig) -> impl Iterator<Item = &'static str> + use<> {
    let set = [
        ("max_io_events_per_tick", worker.max_io_events_per_tick.is_some()),
        ("sched_affinity", worker.sched_affinity != SchedAffinity::default()),
        (
            "thread_number_per_runtime",
            worker.thread_number_per_runtime.is_some_and(|number| number.get() > 1),
        ),
        ("thread_stack_size", worker.thread_stack_size.is_some()),
    ];
    set.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key)
}

/// Says what mints from now on.
fn announce(mint: &Mint) {
    match mint.ca() {
        Ok(ca) => notice!("certificates are minted"; "ca" => ca.subject.as_str()),
        Err(why) => warn!("no certificate can be minted: {}", why),
    }
}

impl Daemon for Certgend {
    const NAME: &'static str = "certgend";
    const ABOUT: &'static str = "Mints certificates for TLS interception";
    // It holds the CA key.
    const DUMPABLE: bool = false;

    type Config = Config;

    fn open(path: &Path) -> Load {
        Load::open_certgen(path)
    }

    fn read(load: &mut Load) -> Config {
        Config::read(load)
    }

    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
        Map::from_iter([("certgend".to_owned(), schema_of::<CertgendConfig>(generator))])
    }

    async fn start(config: Config, mut cx: Context) -> anyhow::Result<Arc<Self>> {
        let mint = Mint::build(&config, true)?;
        announce(&mint);
        let stats = Arc::new(Stats::new(durations(&config)));
        let metrics = cx.metrics.register(Arc::new(StatsSource(Arc::clone(&stats))));
        for key in cx.worker.iter().flat_map(without_effect) {
            warn!(
                "`worker.{}` has no effect: the threads that sign have no runtime of their own",
                key
            );
        }
        let threads = cx.worker.as_ref().and_then(|worker| worker.thread_number);
        let minter = Arc::new(Minter::new(
            mint,
            Rate::new(config.own.mint_rate, Instant::now()),
            stats,
            threads.map_or_else(cpus, NonZeroUsize::get),
            cx.logs.logger(LogKind::Audit, "la-certgend"),
            cx.tasks.clone(),
        ));
        let keys = Arc::clone(&minter.keys);
        cx.background.spawn(keys.run(cx.background.clone()));
        let udp = match serve::wish(config.stand_alone, &cx.group, cx.activated.take_udp_socket(UDP_SOCKET)) {
            Some(wish) => Some(wish.open(&minter, &cx.tasks).await?),
            None => None,
        };
        let passed = cx.activated.take_unix_listener(SOCKET);
        let path = cx.runtime_dir.join(SOCKET);
        let own = serve::unix(&path, passed, config.uids(), &minter, &cx.tasks)?;
        Ok(Arc::new(Self {
            minter,
            own,
            udp,
            tasks: cx.tasks,
            reloading: tokio::sync::Mutex::new(()),
            _metrics: metrics,
        }))
    }

    fn status(&self) -> Value {
        let mut listening = vec![json!({ "name": "mint", "address": self.own.path().display().to_string() })];
        if let Some(udp) = self.udp {
            listening.push(json!({ "name": "udp", "address": udp.to_string() }));
        }
        let mint = self.minter.mint();
        let stats = &self.minter.stats;
        let mut status = json!({
            "listening": listening,
            "connections": self.own.connections(),
            "cached": mint.cached(),
            "rsa_keys": self.minter.keys.len(),
            "requests": stats.request_total.get(),
            "minted": stats.request_ok.get().saturating_sub(stats.request_cached.get()),
            "from_cache": stats.request_cached.get(),
        });
        match mint.ca() {
            Ok(ca) => {
                status["ca"] = json!(ca.subject);
                status["ca_not_after"] = json!(ca.not_after);
            }
            Err(why) => status["note"] = json!(why),
        }
        status
    }

    async fn reload(self: &Arc<Self>, config: Config) -> anyhow::Result<()> {
        let _one = self.reloading.lock().await;
        // A CA that was there and is gone is a mistake; one that never was there may still be missing.
        let may_lack = self.minter.mint().ca().is_err();
        let (config, mint) = spawn_blocking(move || {
            let mint = Mint::build(&config, may_lack);
            (config, mint)
        })
        .await
        .context("the thread has failed")?;
        let mint = mint?;
        // Everything is built: nothing below can fail.
        announce(&mint);
        self.minter.replace(mint);
        self.minter.rate.configure(config.own.mint_rate);
        self.minter.stats.configure(&durations(&config));
        self.own.allow(config.uids());
        Ok(())
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        drain.wait(&self.tasks).await;
    }
}
