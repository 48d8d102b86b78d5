//! Listening sockets: opening them, keeping them over a reload, accepting.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sluice_sys::socket::{ListenOptions, TcpOptions};
use sluice_telemetry::warn;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::server::{Accepted, Server};
use crate::task::Peers;
use crate::worker::{Worker, Workers};

/// Pause after an accept that failed for want of descriptors or memory: the connection stays queued meanwhile, and
/// trying again at once would only burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time between two lines about it in the process log; the counter has them all.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// Connections taken from the queue of a socket that closes; a queue is hardly ever longer.
const MOST_QUEUED: usize = 4096;

/// What a server wants to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenSpec {
    pub(crate) options: ListenOptions,
    /// Set on the listening socket; Linux hands them on to the accepted ones.
    pub(crate) tcp: TcpOptions,
    pub(crate) instances: usize,
    pub(crate) in_worker: bool,
    /// A connection is served by the worker that is bound to the CPU which its packets come in on.
    pub(crate) follow_cpu: bool,
}

impl ListenSpec {
    /// Whether sockets of `old` can go on for this one, with options set anew. An option that is to have the system's
    /// value again cannot be set. Sockets that are too many go on as well: closing one of several that share a port
    /// resets whoever is in the middle of connecting to it.
    fn same_sockets(&self, old: &Self, workers: &Workers) -> bool {
        let bound = |spec: &Self| {
            let options = &spec.options;
            (
                options.address,
                options.only_v6,
                options.interface.clone(),
                options.transparent,
                spec.in_each(workers),
                spec.follow_cpu,
            )
        };
        bound(self) == bound(old) && self.options.sets_all_of(&old.options) && self.tcp.sets_all_of(&old.tcp)
    }

    /// Whether each worker has a socket of its own.
    fn in_each(&self, workers: &Workers) -> bool {
        self.in_worker && workers.dedicated()
    }

    /// How many sockets it wants.
    pub(crate) fn count(&self, workers: &Workers) -> usize {
        if self.in_each(workers) {
            workers.all().len()
        } else {
            self.instances.max(1)
        }
    }
}

/// A listener cannot be opened.
#[derive(Debug, Error)]
#[error("server `{server}` cannot listen on {address}: {source}")]
pub(crate) struct ListenError {
    server: String,
    address: SocketAddr,
    source: io::Error,
}

/// The sockets of one server.
pub(crate) struct Listeners {
    spec: ListenSpec,
    /// The server that new connections go to; a reload puts another one in.
    server: Arc<ArcSwap<Server>>,
    /// Second descriptors of the sockets, to set options on.
    sockets: Vec<std::net::TcpListener>,
    stop: CancellationToken,
}

/// Sockets that are open and do not accept yet. Each has its second descriptor already, so that nothing can fail when
/// they are put to work.
pub(crate) struct Opened {
    spec: ListenSpec,
    /// How many are at work already, which these join.
    beside: usize,
    sockets: Vec<(std::net::TcpListener, std::net::TcpListener)>,
}

impl Opened {
    /// Opens the sockets of a server that it does not have yet: `beside` so many. `ours` tells that this process
    /// listens on the port already.
    ///
    /// # Errors
    /// [`ListenError`], `EADDRINUSE` if another process has the port.
    pub(crate) fn open(
        name: &str,
        spec: &ListenSpec,
        workers: &Workers,
        ours: bool,
        beside: usize,
    ) -> Result<Self, ListenError> {
        let error = |source| ListenError {
            server: name.to_owned(),
            address: spec.options.address,
            source,
        };
        if !ours {
            // Our sockets share their port, so the kernel would let us share one with a stranger of our own uid too.
            let alone = ListenOptions {
                reuse_port: false,
                ..spec.options.clone()
            };
            alone.listen().map_err(error)?;
        }
        let sockets = (beside..spec.count(workers))
            .map(|i| {
                let socket = spec.options.listen()?;
                spec.tcp.apply((&socket).into(), spec.options.address.is_ipv6())?;
                if let (true, true, [cpu]) = (spec.in_each(workers), spec.follow_cpu, &*workers.turn(i).cpus) {
                    sluice_sys::socket::prefer_cpu(&socket, *cpu)?;
                }
                let second = socket.try_clone()?;
                Ok((socket, second))
            })
            .collect::<Result<_, _>>()
            .map_err(error)?;
        Ok(Self {
            spec: spec.clone(),
            beside,
            sockets,
        })
    }

    /// Begins to accept for `server`, in place of `running`, or beside them if these are more sockets of the same.
    pub(crate) fn start(self, running: Option<Listeners>, server: Arc<Server>, workers: &Arc<Workers>) -> Listeners {
        let (mut listeners, _closing) = match running {
            Some(mut running) if self.beside > 0 => {
                running.replace(&self.spec, server);
                (running, None)
            }
            closing => {
                let fresh = Listeners {
                    spec: self.spec.clone(),
                    server: Arc::new(ArcSwap::new(server)),
                    sockets: Vec::new(),
                    stop: CancellationToken::new(),
                };
                (fresh, closing)
            }
        };
        let in_each = self.spec.in_each(workers);
        for (socket, second) in self.sockets {
            let worker = workers.turn(listeners.sockets.len());
            let acceptor = Acceptor {
                server: Arc::clone(&listeners.server),
                home: Arc::clone(worker),
                // With one worker, or a socket in each, a connection stays where it was accepted.
                others: (!in_each && workers.all().len() > 1).then(|| Arc::clone(workers)),
                stop: listeners.stop.clone(),
                bound: self.spec.options.address,
                follow_cpu: self.spec.follow_cpu,
            };
            worker.spawn(acceptor.run(second));
            listeners.sockets.push(socket);
        }
        listeners
    }
}

impl Listeners {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.spec.options.address
    }

    /// Whether they have the port of `other`, on an address that takes part of what comes to `other`'s.
    pub(crate) fn overlap(&self, other: SocketAddr) -> bool {
        let own = self.address();
        let everywhere = own.ip().is_unspecified() || other.ip().is_unspecified();
        own.port() == other.port() && (everywhere || own.ip() == other.ip())
    }

    /// How many of the sockets can go on under `spec`: all, or none.
    pub(crate) fn fit(&self, spec: &ListenSpec, workers: &Workers) -> usize {
        if spec.same_sockets(&self.spec, workers) {
            self.sockets.len()
        } else {
            0
        }
    }

    /// Hands new connections to `server` from now on, with options that changed set on the sockets.
    pub(crate) fn replace(&mut self, spec: &ListenSpec, server: Arc<Server>) {
        if *spec != self.spec {
            for socket in &self.sockets {
                if let Err(error) = spec
                    .options
                    .update(socket)
                    .and_then(|()| spec.tcp.apply(socket.into(), spec.options.address.is_ipv6()))
                {
                    warn!("a listening socket keeps an option"; "address" => %self.address(), "error" => %error);
                }
            }
            self.spec = spec.clone();
        }
        self.server.store(server);
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One accept loop.
struct Acceptor {
    server: Arc<ArcSwap<Server>>,
    home: Arc<Worker>,
    others: Option<Arc<Workers>>,
    stop: CancellationToken,
    bound: SocketAddr,
    follow_cpu: bool,
}

impl Acceptor {
    async fn run(self, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                warn!("a listening socket cannot be watched"; "address" => %self.bound, "error" => %error);
                return;
            }
        };
        self.server.load().common().stats.mine().listening.add(1);
        let mut stopping = pin!(self.stop.cancelled());
        let mut warned: Option<Instant> = None;
        loop {
            let accepted = poll_fn(|cx| {
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    return Poll::Ready(Some(accepted));
                }
                stopping.as_mut().poll(cx).map(|()| None)
            })
            .await;
            match accepted {
                None => break,
                Some(Ok((tcp, client))) => self.place(tcp, client),
                Some(Err(error)) => {
                    self.server.load().common().stats.mine().accept_failed.add(1);
                    // A connection that was given up before we took it is no trouble of ours.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        if warned.is_none_or(|at| at.elapsed() >= WARN_PAUSE) {
                            warn!("accept failed"; "address" => %self.bound, "error" => %error);
                            warned = Some(Instant::now());
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        self.take_queued(listener);
        self.server.load().common().stats.mine().listening_ended.add(1);
    }

    /// Takes what the kernel has queued and not yet reported: closing the socket would reset it.
    fn take_queued(&self, listener: TcpListener) {
        let Ok(socket) = listener.into_std() else { return };
        for _ in 0..MOST_QUEUED {
            let Ok((tcp, client)) = socket.accept() else { return };
            if tcp.set_nonblocking(true).is_ok()
                && let Ok(tcp) = TcpStream::from_std(tcp)
            {
                self.place(tcp, client);
            }
        }
    }

    /// Starts a task for the connection, here or on the worker whose turn it is.
    fn place(&self, tcp: TcpStream, client: SocketAddr) {
        let accepted = Instant::now();
        let server = self.server.load_full();
        let stats = server.common().stats.mine();
        stats.accepted.add(1);
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        if !server.common().admits(client.ip()) {
            stats.dropped.add(1);
            return;
        }
        let bound = if self.bound.ip().is_unspecified() {
            tcp.local_addr().unwrap_or(self.bound)
        } else {
            self.bound
        };
        let bound = SocketAddr::new(bound.ip().to_canonical(), bound.port());
        let peers = Peers {
            client,
            server: bound,
            told: None,
        };
        match &self.others {
            None => self.home.spawn(server.serve(
                Accepted {
                    stream: tcp.into(),
                    peers,
                    accepted,
                },
                Arc::clone(&self.home),
            )),
            Some(workers) => {
                let cpu = if self.follow_cpu {
                    sluice_sys::socket::incoming_cpu(&tcp)
                } else {
                    None
                };
                let worker = cpu
                    .and_then(|cpu| workers.on_cpu(cpu))
                    .unwrap_or_else(|| workers.next());
                if Arc::ptr_eq(worker, &self.home) {
                    worker.spawn(server.serve(
                        Accepted {
                            stream: tcp.into(),
                            peers,
                            accepted,
                        },
                        Arc::clone(worker),
                    ));
                    return;
                }
                // The socket leaves this thread's event queue and joins the other one's.
                let Ok(std) = tcp.into_std() else { return };
                let there = Arc::clone(worker);
                worker.spawn(async move {
                    if let Ok(tcp) = TcpStream::from_std(std) {
                        server
                            .serve(
                                Accepted {
                                    stream: tcp.into(),
                                    peers,
                                    accepted,
                                },
                                there,
                            )
                            .await;
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use sluice_lifecycle::Tasks;
    use sluice_telemetry::metrics::Registry;

    use super::*;
    use crate::peer::Address;
    use crate::resolve::{Options, Resolver};
    use crate::server::ServerCommon;
    use crate::server::dummy_close::DummyClose;
    use crate::stats::StatsBook;
    use crate::worker::WorkerOptions;

    fn workers(tasks: &Tasks) -> Workers {
        let options = WorkerOptions {
            threads: vec![Vec::new()],
            stack_size: None,
            max_events: 64,
            dedicated: false,
        };
        let resolver = || Resolver::new(Address::Unix("/nowhere".into()), Options::default());
        Workers::start(&options, tasks, resolver).unwrap()
    }

    #[test]
    fn a_socket_that_closes_takes_what_waits_in_its_queue() {
        let tasks = Tasks::new();
        let workers = workers(&tasks);
        let stats = StatsBook::new(Registry::new()).server("s", &Default::default());
        let common = ServerCommon::bare("s".into(), "DummyClose", Arc::clone(&stats), None);
        let socket = ListenOptions::new("127.0.0.1:0".parse().unwrap(), 64).listen().unwrap();
        let bound = socket.local_addr().unwrap();
        let mut clients: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(bound).unwrap()).collect();
        let stop = CancellationToken::new();
        stop.cancel();
        let acceptor = Acceptor {
            server: Arc::new(ArcSwap::from_pointee(Server::DummyClose(DummyClose { common }))),
            home: Arc::clone(workers.turn(0)),
            others: None,
            stop,
            bound,
            follow_cpu: false,
        };
        workers.turn(0).spawn(acceptor.run(socket));
        for client in &mut clients {
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        }
        workers.stop();
        assert_eq!(stats.sum(|c| &c.accepted), 8);
    }
}
