//! resolverd as a daemon of the group: start, reload, stop.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};
use sluice_config::Load;
use sluice_control::Methods;
use sluice_lifecycle::{Context, Daemon, DataSocket, Drain, Graph, Tasks, schema_of};

use crate::{
    config::{Config, ResolverdConfig},
    control,
    kind::ResolverConfig,
    resolvers::{Resolvers, Workshop},
    serve::{InCharge, Listening, start_own},
};

/// The name of the group's own socket, as a file and when it is passed in.
const SOCKET: &str = "resolverd.dns";

/// Answers the group's name queries.
pub(crate) struct Resolverd {
    resolvers: InCharge,
    workshop: Workshop,
    own: DataSocket,
    listening: Mutex<Vec<Arc<Listening>>>,
    tasks: Tasks,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
}

impl Resolverd {
    /// The resolvers in charge.
    pub(crate) fn resolvers(&self) -> Arc<Resolvers> {
        self.resolvers.load_full()
    }

    fn listening(&self) -> MutexGuard<'_, Vec<Arc<Listening>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uids(config: &ResolverdConfig) -> Vec<u32> {
    config.allow_uid.iter().map(|user| user.0).collect()
}

impl Daemon for Resolverd {
    const NAME: &'static str = "resolverd";
    const ABOUT: &'static str = "The DNS daemon of Sluice: answers the name queries of its group";

    const FEATURES: &'static [&'static str] = if cfg!(feature = "c-ares") { &["c-ares"] } else { &[] };

    type Config = Config;

    fn read(load: &mut Load) -> Config {
        Config::read(load)
    }

    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
        Map::from_iter([
            (
                "resolver".to_owned(),
                sluice_config::schema::nodes::<ResolverConfig>(generator).into(),
            ),
            ("resolverd".to_owned(), schema_of::<ResolverdConfig>(generator)),
        ])
    }

    fn graph(config: &Config) -> Option<Graph> {
        Some(config.graph())
    }

    async fn start(config: Config, mut cx: Context) -> anyhow::Result<Arc<Self>> {
        let workshop = Workshop {
            tasks: cx.background.clone(),
            logs: cx.logs.clone(),
            metrics: cx.metrics.clone(),
        };
        let nothing = Resolvers::default();
        let resolvers = Resolvers::build(&config.resolvers, &nothing, &workshop)?;
        resolvers.take_over_from(&nothing, &cx.background);
        let resolvers: InCharge = Arc::new(ArcSwap::from_pointee(resolvers));
        let mut listening = Vec::new();
        for listen in &config.own.listen {
            listening.push(Arc::new(Listening::start(listen, &resolvers, &cx.tasks).await?));
        }
        let passed = cx.activated.take_unix_listener(SOCKET);
        let path: PathBuf = cx.runtime_dir.join(SOCKET);
        let own = start_own(&path, passed, uids(&config.own), &resolvers, &cx.tasks)?;
        Ok(Arc::new(Self {
            resolvers,
            workshop,
            own,
            listening: Mutex::new(listening),
            tasks: cx.tasks,
            reloading: tokio::sync::Mutex::new(()),
        }))
    }

    fn methods(self: &Arc<Self>, methods: &mut Methods) {
        control::add(self, methods);
    }

    fn status(&self) -> Value {
        let mut listening = vec![json!({ "name": "group", "address": self.own.path().display().to_string() })];
        for other in self.listening().iter() {
            for transport in ["udp", "tcp"] {
                listening.push(json!({ "name": transport, "address": other.bound().to_string() }));
            }
        }
        json!({
            "listening": listening,
            "resolvers": self.resolvers().iter().count(),
            "connections": self.own.connections(),
        })
    }

    fn objects(&self) -> Vec<(&'static str, Vec<String>)> {
        vec![(
            "resolver",
            self.resolvers()
                .iter()
                .map(|resolver| resolver.name.to_string())
                .collect(),
        )]
    }

    async fn reload(self: &Arc<Self>, config: Config) -> anyhow::Result<()> {
        let _one = self.reloading.lock().await;
        let old = self.resolvers();
        let new = Arc::new(Resolvers::build(&config.resolvers, &old, &self.workshop)?);
        let before: Vec<Arc<Listening>> = self.listening().clone();
        let mut after = Vec::new();
        for listen in &config.own.listen {
            match before.iter().find(|own| own.is_at(listen)) {
                Some(own) => {
                    own.prepare(listen);
                    after.push(Arc::clone(own));
                }
                None => after.push(Arc::new(Listening::start(listen, &self.resolvers, &self.tasks).await?)),
            }
        }
        // Everything is built: nothing below can fail.
        self.resolvers.store(Arc::clone(&new));
        new.take_over_from(&old, &self.workshop.tasks);
        for own in before
            .iter()
            .filter(|own| !after.iter().any(|kept| Arc::ptr_eq(own, kept)))
        {
            own.stop();
        }
        for own in &after {
            own.commit();
        }
        self.own.allow(uids(&config.own));
        *self.listening() = after;
        Ok(())
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        drain.wait(&self.tasks).await;
    }
}
