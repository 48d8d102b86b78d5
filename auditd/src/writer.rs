//! The thread that takes records and writes them.
//!
//! It does all in turns: takes what has come, commits it, and only then answers and tells. While nothing can be written it
//! takes nothing, so that senders keep what they have, and tries again every second.

use std::{
    collections::BTreeSet,
    net::UdpSocket,
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, TryRecvError},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use sluice_bus::{BusError, Event, Peer, Router, Waker, wait};
use sluice_telemetry::{debug, error, info, notice, warn};
use sluice_wire::audit::{Batch, Hello, Id, Message, Refusal, RefusalCode, Welcome};

use crate::{
    config::AuditdConfig,
    intake::{Intake, Told},
    live::Live,
    recent::Recent,
    stats::Stats,
    store::{Store, StoreError, Tidy},
};

/// Bytes after which a turn takes no more.
const TURN: usize = 8 << 20;

/// Datagrams that a turn takes.
const DATAGRAMS: usize = 1024;

/// From one attempt to write to the next.
const REST: Duration = Duration::from_secs(1);

/// From one word about a failure that lasts to the next.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Senders that may talk to us at a time.
const MAX_STREAMS: usize = 1024;

/// What the daemon tells the writer.
pub(crate) enum Order {
    /// Puts other settings in force.
    Configure(Box<Settings>),
    /// Closes the open files; what became of it is answered.
    Rotate(Sender<u64>),
}

/// What a reload may change.
pub(crate) struct Settings {
    pub(crate) config: AuditdConfig,
    /// Where files go.
    pub(crate) dir: PathBuf,
    /// The folder, if it is another one than before.
    pub(crate) store: Option<Store>,
    /// The UDP door; `Some(None)` closes it.
    pub(crate) udp: Option<Option<UdpSocket>>,
}

/// What the writer shares with the daemon.
pub(crate) struct Shared {
    pub(crate) stats: Arc<Stats>,
    pub(crate) recent: Recent,
    pub(crate) waker: Waker,
    pub(crate) stopping: AtomicBool,
    live: Mutex<Option<Live>>,
    tidy: Mutex<Option<Tidy>>,
    /// Wakes those who tidy: a file was begun or closed, there are too many bytes, or other limits hold.
    pub(crate) untidy: tokio::sync::Notify,
}

impl Shared {
    pub(crate) fn new() -> Result<Arc<Self>, BusError> {
        Ok(Arc::new(Self {
            stats: Stats::new(),
            recent: Recent::new(),
            waker: Waker::new()?,
            stopping: AtomicBool::new(false),
            live: Mutex::new(None),
            tidy: Mutex::new(None),
            untidy: tokio::sync::Notify::new(),
        }))
    }

    /// The door for followers, if it is open.
    pub(crate) fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done with closed files.
    pub(crate) fn tidy(&self) -> Option<Tidy> {
        self.tidy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The writer.
pub(crate) struct Writer {
    router: Router,
    udp: Option<UdpSocket>,
    config: AuditdConfig,
    dir: PathBuf,
    store: Option<Store>,
    intake: Intake,
    /// Names this life, for senders.
    instance: Id,
    /// Senders that have said hello to this life.
    greeted: BTreeSet<Id>,
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    /// Settings that wait until everything is written.
    waiting: Option<Box<Settings>>,
    last_said: Option<Instant>,
}

/// What is answered after a commit.
enum Reply {
    Ack(Peer, Id),
    Refusal(Peer, RefusalCode, &'static str),
    Welcome(Peer, Id),
}

impl Writer {
    pub(crate) fn new(
        router: Router,
        settings: Settings,
        instance: Id,
        shared: Arc<Shared>,
        orders: Receiver<Order>,
    ) -> Self {
        Self {
            router,
            intake: Intake::new(settings.config.format),
            udp: settings.udp.flatten(),
            config: settings.config,
            dir: settings.dir,
            store: settings.store,
            instance,
            greeted: BTreeSet::new(),
            shared,
            orders,
            waiting: None,
            last_said: None,
        }
    }

    /// Works until it is told to stop, and everything that was taken is written.
    pub(crate) fn run(mut self) {
        self.offer_tidy();
        while !self.shared.stopping.load(Ordering::Acquire) {
            self.shared.waker.clear();
            self.obey();
            if let Err(e) = self.turn().and_then(|is_idle| self.rest(is_idle)) {
                error!("the socket for senders is of no more use"; "error" => %e);
                let _ = wait(&[Event::Fd(self.shared.waker.as_fd())], REST);
            }
        }
        self.commit(&mut Told::default());
    }

    /// Takes, writes, answers. Tells whether there was nothing to do.
    fn turn(&mut self) -> Result<bool, BusError> {
        let mut told = Told::default();
        let mut replies = Vec::new();
        let mut is_idle = true;
        self.intake.live = self.shared.live().is_some();
        if self.store.is_none() && self.shared.stats.failure().is_some() && !self.open() {
            return Ok(true);
        }
        // A commit goes to one file, whose limit it should not miss by far.
        let limit = TURN.min(self.config.rotate.size.as_usize().max(1));
        while self.gathered() < limit {
            let Some((peer, message)) = self.router.recv()? else {
                break;
            };
            is_idle = false;
            self.take(peer, &message, &mut replies, &mut told);
            if self.shared.stats.stuck.load(Ordering::Relaxed) && self.store.is_none() {
                return Ok(true);
            }
        }
        is_idle &= self.take_datagrams();
        while !self.commit(&mut told) {
            // All that was taken is kept until it is written.
            let _ = wait(&[Event::Fd(self.shared.waker.as_fd())], REST);
            self.shared.waker.clear();
            if self.shared.stopping.load(Ordering::Acquire) {
                return Ok(true);
            }
        }
        for reply in replies {
            self.reply(reply)?;
        }
        Ok(is_idle)
    }

    fn rest(&mut self, is_idle: bool) -> Result<(), BusError> {
        if !is_idle {
            return Ok(());
        }
        let waker = Event::Fd(self.shared.waker.as_fd());
        // While nothing can be written, nobody is listened to.
        if self.shared.stats.stuck.load(Ordering::Relaxed) {
            return wait(&[waker], REST);
        }
        let mut events = vec![waker, Event::Readable(self.router.socket())];
        events.extend(self.udp.as_ref().map(|udp| Event::Fd(udp.as_fd())));
        let due = self.store.as_ref().and_then(Store::due);
        wait(&events, due.unwrap_or(Duration::MAX))
    }

    fn gathered(&self) -> usize {
        self.store.as_ref().map_or(0, Store::gathered)
    }

    fn take(&mut self, peer: Peer, message: &[u8], replies: &mut Vec<Reply>, told: &mut Told) {
        match Message::take(message) {
            Ok(Some(Message::Hello(hello))) => self.greet(peer, &hello, replies),
            Ok(Some(Message::Batch(batch))) => self.batch(peer, batch, replies, told),
            Ok(Some(Message::Ack { .. } | Message::Refusal(_) | Message::Welcome(_)) | None) => {
                replies.push(Reply::Refusal(
                    peer,
                    RefusalCode::Unknown,
                    "this message is not known here",
                ));
            }
            Err(e) => {
                debug!("a message that is none"; "error" => %e);
                replies.push(Reply::Refusal(peer, RefusalCode::Malformed, "this is not a message"));
            }
        }
    }

    fn greet(&mut self, peer: Peer, hello: &Hello, replies: &mut Vec<Reply>) {
        if !self.open() {
            return; // it will ask again
        }
        let Some(store) = &mut self.store else { return };
        if self.greeted.len() >= MAX_STREAMS {
            self.greeted.pop_first();
        }
        if self.greeted.insert(hello.stream) {
            info!("a sender is here"; "sender" => &hello.sender);
        }
        let base = hello.base.saturating_sub(1);
        if store.last_of(&hello.stream).is_none_or(|last| last < base) {
            store.follow(hello.stream, base);
        }
        replies.push(Reply::Welcome(peer, hello.stream));
    }

    fn batch(&mut self, peer: Peer, batch: Batch<'_>, replies: &mut Vec<Reply>, told: &mut Told) {
        let stats = &self.shared.stats;
        let refusal = |code, text| Reply::Refusal(peer.clone(), code, text);
        let store = self.store.as_mut().filter(|_| self.greeted.contains(&batch.stream));
        let Some((store, last)) =
            store.and_then(|store| Some((store.last_of(&batch.stream)?, store)).map(|(l, s)| (s, l)))
        else {
            stats.refused.add(1);
            replies.push(refusal(RefusalCode::NoHello, "say hello first"));
            return;
        };
        if batch.seq != 0 {
            if batch.seq <= last {
                replies.push(Reply::Ack(peer, batch.stream));
                return;
            }
            if batch.seq != last + 1 {
                stats.refused.add(1);
                replies.push(refusal(
                    RefusalCode::OutOfOrder,
                    "this batch does not follow the last one",
                ));
                return;
            }
            store.follow(batch.stream, batch.seq);
            replies.push(Reply::Ack(peer, batch.stream));
        }
        stats.batches.add(1);
        for record in batch.records() {
            match record {
                Ok(record) => self.intake.take(batch.stream, &record, batch.seq == 0, store, told),
                Err(e) => {
                    debug!("a record that is none"; "error" => %e);
                    told.malformed += 1;
                }
            }
        }
    }

    fn take_datagrams(&mut self) -> bool {
        if self.udp.is_none() || !self.open() {
            return true;
        }
        let (Some(udp), Some(store)) = (&self.udp, &mut self.store) else {
            return true;
        };
        let mut packet = [0; 65_536];
        for taken in 0..DATAGRAMS {
            let Ok((length, from)) = udp.recv_from(&mut packet) else {
                return taken == 0;
            };
            self.shared.stats.datagrams.add(1);
            let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
            if let Err(e) = self.intake.datagram(at, from, &packet[..length], store) {
                debug!("a datagram that is no exported PDU"; "from" => %from, "error" => %e);
                self.shared.stats.datagrams_malformed.add(1);
            }
        }
        false
    }

    /// Opens the folder if that was not done; tells whether it is open.
    fn open(&mut self) -> bool {
        if self.store.is_some() {
            return true;
        }
        match Store::open(&self.dir, &self.config) {
            Ok(store) => {
                self.store = Some(store);
                self.offer_tidy();
                self.shared.untidy.notify_one();
                self.works();
                true
            }
            Err(e) => {
                self.fails(&e);
                false
            }
        }
    }

    /// Writes what was gathered, and tells about it. `false`: nothing of it is written, and it is kept.
    fn commit(&mut self, told: &mut Told) -> bool {
        let Some(store) = &mut self.store else {
            return true;
        };
        let before = store.last_files();
        let written = store.commit().and_then(|bytes| store.sync_if_due().map(|()| bytes));
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(e) => {
                self.fails(&e);
                return false;
            }
        };
        let rotated = store.rotate_if_due();
        let begun = store.last_files() != before;
        let stats = &self.shared.stats;
        stats.written.add(bytes);
        let too_many = stats.is_over(bytes, self.config.keep.size.0);
        stats.rotated.add(rotated);
        stats.flows.store(
            u64::try_from(self.intake.flows()).unwrap_or_default(),
            Ordering::Relaxed,
        );
        let told = std::mem::take(told);
        stats.records.add(told.records);
        stats.malformed.add(told.malformed);
        stats.lost.add(told.lost);
        if told.lost > 0 {
            warn!("a sender has lost records"; "records" => told.lost);
        }
        self.shared.recent.add(told.lines);
        if let Some(live) = &*self.shared.live() {
            stats.untold.add(live.tell(told.live));
        }
        if bytes > 0 || rotated > 0 {
            self.offer_tidy();
        }
        if begun || rotated > 0 || too_many {
            self.shared.untidy.notify_one();
        }
        self.works();
        true
    }

    fn offer_tidy(&self) {
        let tidy = self.store.as_ref().map(Store::tidy);
        *self.shared.tidy.lock().unwrap_or_else(PoisonError::into_inner) = tidy;
    }

    /// Says that nothing can be written: at once, then every ten seconds.
    fn fails(&mut self, e: &StoreError) {
        let stats = &self.shared.stats;
        stats.failed.add(1);
        stats.stuck.store(true, Ordering::Relaxed);
        let text = chain(e);
        if self.last_said.is_none_or(|last| last.elapsed() >= SAY_AGAIN) {
            error!("nothing can be written, senders have to wait"; "error" => &text);
            self.last_said = Some(Instant::now());
        }
        *stats.failure() = Some(text);
    }

    fn works(&mut self) {
        if self.shared.stats.stuck.swap(false, Ordering::Relaxed) {
            notice!("writing again");
            *self.shared.stats.failure() = None;
            self.last_said = None;
        }
    }

    fn reply(&self, reply: Reply) -> Result<(), BusError> {
        let written = |stream: &Id| {
            let store = self.store.as_ref();
            store.and_then(|store| store.written_of(stream)).unwrap_or_default()
        };
        let (peer, message) = match reply {
            Reply::Ack(peer, stream) => (
                peer,
                Message::Ack {
                    stream,
                    seq: written(&stream),
                },
            ),
            Reply::Refusal(peer, code, text) => {
                let text = text.to_owned();
                (peer, Message::Refusal(Refusal { code, text }))
            }
            Reply::Welcome(peer, stream) => {
                let welcome = Welcome {
                    stream,
                    instance: self.instance,
                    written: written(&stream),
                };
                (peer, Message::Welcome(welcome))
            }
        };
        // One who is gone, or does not listen, asks again.
        self.router.send(&peer, &message.to_vec()).map(|_| ())
    }

    fn obey(&mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Configure(settings)) => self.waiting = Some(settings),
                Ok(Order::Rotate(answer)) => {
                    let rotated = self.store.as_mut().map_or(0, Store::rotate);
                    self.shared.stats.rotated.add(rotated);
                    self.offer_tidy();
                    self.shared.untidy.notify_one();
                    let _ = answer.send(rotated); // nobody waits any more
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        if self.gathered() == 0
            && let Some(settings) = self.waiting.take()
        {
            self.configure(*settings);
        }
    }

    fn configure(&mut self, settings: Settings) {
        if let Some(store) = settings.store {
            self.store = Some(store);
        } else if self.dir != settings.dir {
            self.store = None;
        }
        if let Some(store) = &mut self.store {
            store.configure(&settings.config);
        }
        if let Some(udp) = settings.udp {
            self.udp = udp;
        }
        self.intake.format = settings.config.format;
        self.config = settings.config;
        self.dir = settings.dir;
        self.offer_tidy();
        self.shared.untidy.notify_one();
    }
}

/// An error with all its reasons, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        text.push_str(&format!(": {reason}"));
        source = reason.source();
    }
    text
}
