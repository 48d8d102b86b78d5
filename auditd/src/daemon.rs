//! auditd as a daemon of the group: start, reload, stop.

use std::{
    fs::{self, DirBuilder},
    net::{SocketAddr, UdpSocket},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};
use sluice_bus::Router;
use sluice_config::Load;
use sluice_control::{Methods, paths};
use sluice_lifecycle::{Context, Daemon, Drain, Tasks, schema_of};
use sluice_telemetry::{debug, metrics::Registration, warn};

use crate::{
    config::AuditdConfig,
    control,
    live::Live,
    store::Store,
    writer::{Order, Settings, Shared, Writer},
};

/// The folder with our sockets, in the group's runtime directory.
const FOLDER: &str = "auditd";

/// Where senders connect to.
const DUMP: &str = "dump";

/// Where followers connect to.
const LIVE: &str = "live";

/// The name of the UDP door when the service manager passes it in.
const UDP: &str = "auditd.udp";

/// When closed files that could not be deleted or compressed are looked at again.
const TIDY_AGAIN: Duration = Duration::from_secs(60);

/// What is read of the main file.
pub(crate) struct Config {
    own: AuditdConfig,
    /// `directory`, seen from the file that names it.
    directory: Option<PathBuf>,
}

/// Takes dumps and events.
pub(crate) struct Auditd {
    group: String,
    folder: PathBuf,
    pub(crate) shared: Arc<Shared>,
    orders: Mutex<mpsc::Sender<Order>>,
    now: Mutex<Now>,
    writer: Mutex<Option<JoinHandle<()>>>,
    pub(crate) tasks: Tasks,
    reloading: tokio::sync::Mutex<()>,
    _metrics: Registration,
}

/// What is in force.
#[derive(Clone)]
struct Now {
    config: AuditdConfig,
    dir: PathBuf,
    udp: Option<SocketAddr>,
    passed_in: bool,
}

impl Auditd {
    fn now(&self) -> Now {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn runtime_dir(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// Where files are written.
    pub(crate) fn dir(&self) -> PathBuf {
        self.now().dir
    }

    /// Tells the writer something.
    pub(crate) fn order(&self, order: Order) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = orders.send(order); // the writer is gone, and so are we
        self.shared.waker.wake();
    }
}

impl Daemon for Auditd {
    const NAME: &'static str = "auditd";
    const ABOUT: &'static str = "Takes stream dumps and audit events, and writes captures and event logs";

    type Config = Config;

    fn read(load: &mut Load) -> Config {
        let own: AuditdConfig = load.section("auditd").unwrap_or_default();
        own.check(load);
        let base = load.base_dir().to_owned();
        let directory = own.directory.as_ref().map(|dir| dir.resolve(&base));
        Config { own, directory }
    }

    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
        Map::from_iter([("auditd".to_owned(), schema_of::<AuditdConfig>(generator))])
    }

    async fn start(config: Config, mut cx: Context) -> anyhow::Result<Arc<Self>> {
        let folder = cx.runtime_dir.join(FOLDER);
        let is_shared = make_folder(&folder, &cx.runtime_dir)?;
        let router = Router::bind(&folder.join(DUMP))?;
        share(&folder.join(DUMP), is_shared)?;
        let live = config.own.live.then(|| open_live(&folder, is_shared)).transpose()?;
        let passed = cx.activated.take_udp_socket(UDP);
        let passed_in = passed.is_some();
        let udp = match passed {
            Some(socket) => Some(ready(socket)?),
            None => config.own.listen.as_ref().map(bind_udp).transpose()?,
        };
        let udp_addr = udp.as_ref().map(UdpSocket::local_addr).transpose()?;
        let dir = config
            .directory
            .clone()
            .unwrap_or_else(|| default_dir(&cx.group, &cx.runtime_dir));
        // A folder that nobody has asked for is made when there is something to write.
        let store = match &config.directory {
            Some(dir) => Some(Store::open(dir, &config.own)?),
            None => None,
        };
        let mut instance = [0; 16];
        getrandom::fill(&mut instance).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
        let shared = Shared::new()?;
        *shared.live() = live;
        let (orders, received) = mpsc::channel();
        let settings = Settings {
            config: config.own.clone(),
            dir: dir.clone(),
            store,
            udp: Some(udp),
        };
        let writer = Writer::new(router, settings, instance, Arc::clone(&shared), received);
        let thread = std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .spawn(move || writer.run())
            .context("start of the writing thread")?;
        let stats = Arc::clone(&shared.stats);
        let daemon = Arc::new(Self {
            group: cx.group,
            folder,
            shared: Arc::clone(&shared),
            orders: Mutex::new(orders),
            now: Mutex::new(Now {
                config: config.own,
                dir,
                udp: udp_addr,
                passed_in,
            }),
            writer: Mutex::new(Some(thread)),
            tasks: cx.tasks.clone(),
            reloading: tokio::sync::Mutex::new(()),
            _metrics: cx.metrics.register(stats),
        });
        cx.background.spawn(tidy_loop(shared, cx.background.clone()));
        Ok(daemon)
    }

    fn methods(self: &Arc<Self>, methods: &mut Methods) {
        control::add(self, methods);
    }

    fn status(&self) -> Value {
        let now = self.now();
        let mut listening = vec![json!({ "name": "dump", "address": self.folder.join(DUMP) })];
        if now.config.live {
            listening.push(json!({ "name": "live", "address": self.folder.join(LIVE) }));
        }
        if let Some(udp) = now.udp {
            listening.push(json!({ "name": "udp", "address": udp.to_string() }));
        }
        let mut status = json!({
            "listening": listening,
            "directory": now.dir,
            "audit": self.shared.stats.status(),
        });
        if let Some(failure) = self.shared.stats.failure().as_deref() {
            status["note"] = format!("nothing can be written, senders have to wait: {failure}").into();
        }
        status
    }

    async fn reload(self: &Arc<Self>, config: Config) -> anyhow::Result<()> {
        let _one = self.reloading.lock().await;
        let before = self.now();
        let dir = config
            .directory
            .clone()
            .unwrap_or_else(|| default_dir(&self.group, self.runtime_dir()));
        let store = match &config.directory {
            Some(dir) if *dir != before.dir => Some(Store::open(dir, &config.own)?),
            _ => None,
        };
        let udp = if before.passed_in || config.own.listen == before.config.listen {
            None
        } else {
            Some(config.own.listen.as_ref().map(bind_udp).transpose()?)
        };
        let is_shared = make_folder(&self.folder, self.runtime_dir())?;
        let live = match (before.config.live, config.own.live) {
            (false, true) => Some(open_live(&self.folder, is_shared)?),
            _ => None,
        };
        let udp_addr = match &udp {
            Some(udp) => udp.as_ref().map(UdpSocket::local_addr).transpose()?,
            None => before.udp,
        };
        // Everything is built: nothing below can fail.
        if live.is_some() || !config.own.live {
            *self.shared.live() = live;
        }
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Now {
            config: config.own.clone(),
            dir: dir.clone(),
            udp: udp_addr,
            passed_in: before.passed_in,
        };
        let settings = Settings {
            config: config.own,
            dir,
            store,
            udp,
        };
        self.order(Order::Configure(Box::new(settings)));
        Ok(())
    }

    async fn stop(self: &Arc<Self>, drain: Drain) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.waker.wake();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let joined = self.tasks.spawn_blocking(move || {
            if let Some(writer) = writer {
                let _ = writer.join(); // its panic is in the log
            }
        });
        let _ = joined.await;
        *self.shared.live() = None;
        drain.wait(&self.tasks).await;
    }
}

/// Makes the folder of our sockets, for ourselves or for the group; tells which.
///
/// In a runtime directory that is another's, as under systemd, the other daemons have other uids and our group.
fn make_folder(folder: &Path, runtime_dir: &Path) -> anyhow::Result<bool> {
    let uid = rustix::process::geteuid().as_raw();
    let is_shared = fs::metadata(runtime_dir)?.uid() != uid;
    let made = DirBuilder::new().mode(0o700).create(folder);
    if made.is_err() {
        let meta = fs::symlink_metadata(folder).with_context(|| format!("make the folder `{}`", folder.display()))?;
        if !meta.is_dir() || meta.uid() != uid {
            bail!("`{}` is there and not a folder of ours", folder.display());
        }
    }
    let mode = if is_shared { 0o750 } else { 0o700 };
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
    Ok(is_shared)
}

/// Lets the group connect to a socket, if it may enter the folder.
fn share(socket: &Path, is_shared: bool) -> anyhow::Result<()> {
    let mode = if is_shared { 0o660 } else { 0o600 };
    fs::set_permissions(socket, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn open_live(folder: &Path, is_shared: bool) -> anyhow::Result<Live> {
    let path = folder.join(LIVE);
    let live = Live::open(&path)?;
    share(&path, is_shared)?;
    Ok(live)
}

fn bind_udp(spec: &sluice_config::value::SockAddrSpec) -> anyhow::Result<UdpSocket> {
    let addr = spec.resolve()?;
    let socket = UdpSocket::bind(addr).with_context(|| format!("bind of UDP `{addr}`"))?;
    warn!("whoever can reach this address can write into captures"; "address" => %addr);
    ready(socket)
}

fn ready(socket: UdpSocket) -> anyhow::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where files go if nobody says where: where the system has its state, or the user; and with the rest of a group whose
/// runtime directory is a place of its own.
fn default_dir(group: &str, runtime_dir: &Path) -> PathBuf {
    let system = Path::new("/var/lib/sluice/audit");
    let is_systems = runtime_dir == Path::new("/run/sluice").join(group);
    if !is_systems && runtime_dir != paths::default_dir(group) {
        return runtime_dir.join("audit");
    }
    let existing = system.ancestors().find(|path| path.exists());
    let usable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    if is_systems && existing.is_some_and(usable) {
        return system.join(group);
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    match state.filter(|path| path.is_absolute()).or_else(home) {
        Some(state) => state.join("sluice").join(group).join("audit"),
        None => system.join(group),
    }
}

/// Compresses and deletes closed files: when one was closed, or becomes too old.
async fn tidy_loop(shared: Arc<Shared>, tasks: Tasks) {
    loop {
        let mut next = None;
        if let Some(tidy) = shared.tidy() {
            let done = tasks.spawn_blocking(move || tidy.run(SystemTime::now())).await;
            match done {
                Ok(Ok(tidied)) => {
                    shared.stats.tidied(&tidied);
                    // Past it, however timers and clocks are rounded.
                    next = tidied.next.map(|next| next + Duration::from_secs(1));
                }
                Ok(Err(e)) => {
                    warn!("closed files cannot be compressed or deleted"; "error" => %e);
                    next = Some(TIDY_AGAIN);
                }
                Err(e) => debug!("tidying was ended"; "error" => %e),
            }
        }
        let is_time = async {
            match next {
                Some(next) => tokio::time::sleep(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tasks.quitting() => return,
            () = shared.untidy.notified() => {}
            () = is_time => {}
        }
    }
}
