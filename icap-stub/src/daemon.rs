//! icap-stub as a daemon of the group: start, reload, stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};
use sluice_config::Load;
use sluice_lifecycle::{Context, Daemon, Drain, Tasks, schema_of};

use crate::config::IcapStubConfig;
use crate::conversation::Shared;
use crate::listen::Listening;
use crate::rules::Services;
use crate::stats::Stats;

/// What it says of itself where nothing tells it to listen.
const NOTE: &str = "`icap_stub` names no address: no service is offered";

/// Answers ICAP requests for trials and tests.
pub(crate) struct IcapStub {
    shared: Shared,
    listening: Mutex<Vec<Arc<Listening>>>,
    tasks: Tasks,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
}

impl IcapStub {
    fn listening(&self) -> MutexGuard<'_, Vec<Arc<Listening>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Daemon for IcapStub {
    const NAME: &'static str = "icap-stub";
    const ABOUT: &'static str = "Answers ICAP requests for trials and tests";

    type Config = IcapStubConfig;

    fn read(load: &mut Load) -> IcapStubConfig {
        IcapStubConfig::read(load)
    }

    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
        Map::from_iter([("icap_stub".to_owned(), schema_of::<IcapStubConfig>(generator))])
    }

    async fn start(config: IcapStubConfig, cx: Context) -> anyhow::Result<Arc<Self>> {
        let shared = Shared {
            services: Arc::new(ArcSwap::from_pointee(Services::new(&config))),
            stats: Arc::new(Stats::default()),
            tasks: cx.tasks.clone(),
        };
        let mut listening = Vec::new();
        for listen in &config.listen {
            listening.push(Arc::new(Listening::start(listen, &shared, &cx.tasks).await?));
        }
        Ok(Arc::new(Self {
            shared,
            listening: Mutex::new(listening),
            tasks: cx.tasks,
            reloading: tokio::sync::Mutex::new(()),
        }))
    }

    fn status(&self) -> Value {
        let addresses: Vec<_> = self
            .listening()
            .iter()
            .map(|listening| json!({"name": "icap", "address": listening.address()}))
            .collect();
        let mut status = self.shared.stats.to_json();
        if let Some(status) = status.as_object_mut() {
            if addresses.is_empty() {
                status.insert("note".into(), NOTE.into());
            }
            status.insert("listening".into(), addresses.into());
        }
        status
    }

    fn objects(&self) -> Vec<(&'static str, Vec<String>)> {
        vec![("service", self.shared.services.load().names())]
    }

    async fn reload(self: &Arc<Self>, config: IcapStubConfig) -> anyhow::Result<()> {
        let _one = self.reloading.lock().await;
        let before = self.listening().clone();
        let mut after = Vec::new();
        for listen in &config.listen {
            match before.iter().find(|own| own.config == *listen) {
                Some(own) => after.push(Arc::clone(own)),
                None => after.push(Arc::new(Listening::start(listen, &self.shared, &self.tasks).await?)),
            }
        }
        // Everything is there: nothing below can fail.
        self.shared.services.store(Arc::new(Services::new(&config)));
        for own in before
            .iter()
            .filter(|own| !after.iter().any(|kept| Arc::ptr_eq(own, kept)))
        {
            own.stop();
        }
        *self.listening() = after;
        Ok(())
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        drain.wait(&self.tasks).await;
    }
}
