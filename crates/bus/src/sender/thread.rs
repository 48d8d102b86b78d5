//! The thread that sends.

use std::{
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use sluice_wire::audit::{Hello, Id, Message, put_batch};

use super::{SenderConfig, Shared};
use crate::{BusError, Dealer, Event, wait};

/// Batches that are sent and not acknowledged, at most.
const WINDOW: u64 = 32;

/// A batch fills for so long, unless somebody waits until it is written: each costs a system call and a switch of threads
/// at either end.
const LINGER: Duration = Duration::from_millis(20);

/// An answer is overdue after this; then we ask what is written.
const OVERDUE: Duration = Duration::from_secs(1);

/// After an error of the socket, until it is made anew.
const REST: Duration = Duration::from_millis(500);

/// The connection to auditd.
pub(super) struct Line {
    config: SenderConfig,
    stream: Id,
    shared: Arc<Shared>,
    dealer: Dealer,
    /// The auditd that has answered; none until one has.
    instance: Option<Id>,
    /// The last batch that was sent to it.
    sent: u64,
    /// The last batch that was ever sent.
    reached: u64,
    /// The last batch that was sent before the last hello.
    asked: u64,
    /// Messages with open flows that are still to be sent to it.
    announce: Vec<(u32, Vec<u8>)>,
    /// When something was last heard, or asked.
    last: Instant,
    /// A hello is to be sent.
    greet: bool,
    begun: Instant,
    /// An auditd has answered once.
    met: bool,
}

impl Line {
    pub(super) fn open(config: &SenderConfig, stream: Id, shared: Arc<Shared>) -> Result<Self, BusError> {
        Ok(Self {
            config: config.clone(),
            stream,
            shared,
            dealer: Dealer::connect(&config.path)?,
            instance: None,
            sent: 0,
            reached: 0,
            asked: 0,
            announce: Vec::new(),
            last: Instant::now(),
            greet: true,
            begun: Instant::now(),
            met: false,
        })
    }

    pub(super) fn run(&mut self) {
        while !self.is_done() {
            if self.turn().is_err() {
                self.renew();
            }
        }
        self.shared.connected.store(false, Ordering::Relaxed);
    }

    fn is_done(&self) -> bool {
        self.shared.given_up.load(Ordering::Acquire)
    }

    /// Receives and sends all that can be, then waits.
    fn turn(&mut self) -> Result<(), BusError> {
        if !self.met && self.begun.elapsed() > self.config.grace {
            self.shared.expected.store(self.config.path.exists(), Ordering::Relaxed);
        }
        self.shared.waker.clear();
        while let Some(message) = self.dealer.recv()? {
            self.heard(&message);
        }
        if self.is_waiting() && self.last.elapsed() >= OVERDUE {
            self.greet = true;
        }
        self.linger()?;
        let took_all = self.send()?;
        if self.is_done() {
            return Ok(());
        }
        let socket = self.dealer.socket();
        let line = if took_all {
            Event::Readable(socket)
        } else {
            Event::Writable(socket)
        };
        let limit = if self.is_waiting() { OVERDUE } else { Duration::MAX };
        wait(&[line, Event::Fd(self.shared.waker.as_fd())], limit)
    }

    /// Lets a batch fill that nobody waits for.
    fn linger(&mut self) -> Result<(), BusError> {
        let until = Instant::now() + LINGER;
        while self.instance.is_some() && !self.greet && self.shared.queue.is_filling(self.sent) && !self.is_done() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.urgent.load(Ordering::Acquire) {
                break;
            }
            let socket = self.dealer.socket();
            wait(&[Event::Readable(socket), Event::Fd(self.shared.waker.as_fd())], left)?;
            self.shared.waker.clear();
            while let Some(message) = self.dealer.recv()? {
                self.heard(&message);
            }
        }
        self.shared.urgent.store(false, Ordering::Release);
        Ok(())
    }

    /// Whether an answer is due.
    fn is_waiting(&self) -> bool {
        self.instance.is_none() || self.sent > *self.shared.acknowledged.borrow()
    }

    /// Sends what may be sent now; `false` if the socket takes no more.
    fn send(&mut self) -> Result<bool, BusError> {
        if self.greet {
            let hello = Message::Hello(Hello {
                stream: self.stream,
                base: self.shared.queue.base(),
                sender: self.config.name.clone(),
            });
            if !self.dealer.send(&hello.to_vec())? {
                self.shared.connected.store(false, Ordering::Relaxed);
                return Ok(false);
            }
            self.greet = false;
            self.asked = self.sent;
            self.last = Instant::now();
        }
        if self.instance.is_none() {
            return Ok(true);
        }
        while let Some((count, records)) = self.announce.last() {
            let mut message = Vec::new();
            put_batch(&mut message, &self.stream, 0, *count, records);
            if !self.dealer.send(&message)? {
                return Ok(false);
            }
            self.announce.pop();
        }
        let mut message = Vec::new();
        loop {
            let acknowledged = *self.shared.acknowledged.borrow();
            if self.sent >= acknowledged + WINDOW {
                return Ok(true);
            }
            if self.sent >= self.shared.queue.closed() {
                self.shared.queue.close();
            }
            let Some(batch) = self.shared.queue.batch(self.sent + 1) else {
                return Ok(true);
            };
            message.clear();
            put_batch(&mut message, &self.stream, batch.seq, batch.count, &batch.records);
            if !self.dealer.send(&message)? {
                return Ok(false);
            }
            if self.sent == acknowledged {
                self.last = Instant::now(); // from now on an answer is due
            }
            self.sent = batch.seq;
            if batch.seq <= self.reached {
                self.shared.resent.fetch_add(1, Ordering::Relaxed);
            }
            self.reached = self.reached.max(batch.seq);
        }
    }

    fn heard(&mut self, message: &[u8]) {
        match Message::take(message) {
            Ok(Some(Message::Ack { stream, seq })) if stream == self.stream => {
                self.last = Instant::now();
                self.written(seq);
            }
            Ok(Some(Message::Welcome(welcome))) if welcome.stream == self.stream => {
                self.last = Instant::now();
                self.met = true;
                self.shared.expected.store(true, Ordering::Relaxed);
                self.shared.connected.store(true, Ordering::Relaxed);
                self.written(welcome.written);
                // It reads in order: what it was sent before the hello and does not have by now was lost on the way.
                if self.instance != Some(welcome.instance) {
                    self.instance = Some(welcome.instance);
                    self.announce = self.shared.queue.announcements();
                    self.sent = *self.shared.acknowledged.borrow();
                } else if welcome.written < self.asked {
                    self.sent = *self.shared.acknowledged.borrow();
                }
            }
            // A hello puts everything right. Others of our batches may be refused before it is answered.
            Ok(Some(Message::Refusal(_))) if self.instance.is_some() => {
                self.instance = None;
                self.greet = true;
            }
            _ => {} // not for us
        }
    }

    fn written(&mut self, seq: u64) {
        // Nobody can have written what was not sent.
        let seq = seq.min(self.reached);
        if seq > *self.shared.acknowledged.borrow() {
            self.shared.queue.acknowledge(seq);
            self.shared.acknowledged.send_replace(seq);
            self.sent = self.sent.max(seq);
        }
    }

    /// Makes the socket anew after an error that it does not recover from.
    fn renew(&mut self) {
        self.shared.connected.store(false, Ordering::Relaxed);
        self.instance = None;
        self.greet = true;
        std::thread::park_timeout(REST);
        if let Ok(dealer) = Dealer::connect(&self.config.path) {
            self.dealer = dealer;
        }
    }
}
