//! Datagrams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sluice_addr::Upstream;
use sluice_config::value::{SocketBuffer, UdpMiscOpts};
use sluice_io::udp::Socket;
use sluice_sys::udp::UdpBind;

use super::DirectFixed;
use crate::config::udp_options;
use crate::connect::{Connect, ConnectError, ConnectFailure, Path};
use crate::dial::Order;
use crate::escaper::terms::Target;
use crate::resolve::{Family, Resolver};
use crate::udp::{Complaints, Connected, Lookup, Outlet, Remote, Roaming, Shape, Way, addresses};
use crate::user::Permit;

/// The way of one association.
struct OwnWay {
    escaper: Arc<DirectFixed>,
    resolver: Resolver,
    order: Order,
    options: UdpMiscOpts,
    buffer: SocketBuffer,
    index: Option<u64>,
}

impl DirectFixed {
    /// A way to any target.
    pub(crate) fn roam(direct: &Arc<Self>, req: &Connect<'_>, shape: Shape) -> Outlet {
        let way = OwnWay {
            escaper: Arc::clone(direct),
            resolver: req.worker.resolver.clone(),
            order: direct.terms.order(req.permit),
            options: direct.udp_options_for(req.permit),
            buffer: shape.buffer,
            index: req.path_index.filter(|_| direct.path_selection),
        };
        let complaints = Complaints::new(&direct.common, req.task_id);
        Outlet {
            remote: Remote::Roaming(Box::new(Roaming::new(Box::new(way), shape, complaints))),
            path: Path::default(),
            limit: direct.udp_limit,
        }
    }

    /// A way to the upstream of `req` alone.
    pub(crate) async fn connect_udp(&self, req: &Connect<'_>, shape: Shape) -> Result<Outlet, ConnectFailure> {
        let stats = self.common.stats.mine();
        stats.attempt.add(1);
        let order = self.terms.order(req.permit);
        let found = self.look_up(req.worker.resolver.clone(), req.upstream, order, req.permit);
        let ip = self.choose(req.upstream, &found.await?, None, order)?;
        let peer = SocketAddr::new(ip, req.upstream.port);
        let mut path = Path {
            peer: Some(peer),
            ..Path::default()
        };
        let index = req.path_index.filter(|_| self.path_selection);
        let bind = self.udp_bind(Family::of(ip), index, self.udp_options_for(req.permit), shape.buffer);
        path.bind_ip = Some(bind.address.ip()).filter(|ip| !ip.is_unspecified());
        let connected = Socket::new(bind.open().map_err(|source| ConnectError::Socket { peer, source })?)
            .and_then(|socket| socket.connect(peer).map(|()| socket));
        let socket = match connected {
            Ok(socket) => socket,
            Err(source) => {
                return Err(ConnectFailure {
                    error: ConnectError::Connect { peer, source },
                    path: Box::new(path),
                });
            }
        };
        path.local = socket.local_addr().ok();
        stats.establish.add(1);
        let complaints = Complaints::new(&self.common, req.task_id);
        Ok(Outlet {
            remote: Remote::Connected(Box::new(Connected::new(socket, peer, shape, complaints))),
            path,
            limit: self.udp_limit,
        })
    }

    fn udp_options_for(&self, permit: Option<&Permit>) -> UdpMiscOpts {
        let users = permit.and_then(|permit| permit.user.config.udp_remote_misc_opts);
        self.udp_options.with(users.unwrap_or_default())
    }

    fn udp_bind(&self, family: Family, index: Option<u64>, options: UdpMiscOpts, buffer: SocketBuffer) -> UdpBind {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let source = self.dialer.bind.source(any, index);
        UdpBind {
            interface: source.interface,
            receive_buffer: buffer.recv.map(|size| size.as_usize()),
            send_buffer: buffer.send.map(|size| size.as_usize()),
            only_v6: Some(true),
            options: udp_options(options),
            ..UdpBind::new(source.address.unwrap_or_else(|| SocketAddr::new(any, 0)))
        }
    }

    /// The addresses of a target.
    fn look_up(&self, resolver: Resolver, upstream: &Upstream, order: Order, permit: Option<&Permit>) -> Lookup {
        let domain = match self.terms.target(&upstream.host, order, permit) {
            Target::Address(ip) => return Box::pin(std::future::ready(Ok([ip].into()))),
            Target::Addresses(ips) => return Box::pin(std::future::ready(Ok(ips.into()))),
            Target::Domain(domain) => domain,
        };
        let zone = Arc::clone(&self.dialer.resolver);
        let patience = self.dialer.happy_eyeballs.resolution_delay;
        Box::pin(async move {
            let found = addresses(resolver, zone, domain.clone(), order, patience).await;
            found.map_err(|source| ConnectError::Resolve { domain, source })
        })
    }

    /// One of some addresses that datagrams may go to: the one in use, else one of the preferred family.
    fn choose(
        &self,
        name: &Upstream,
        found: &[IpAddr],
        used: Option<IpAddr>,
        order: Order,
    ) -> Result<IpAddr, ConnectError> {
        let mut refused = None;
        let mut may = |ip: &&IpAddr| match self.dialer.may_connect(**ip) {
            Ok(()) => true,
            Err(error) => {
                refused = Some(error);
                false
            }
        };
        if let Some(used) = used.filter(|used| found.contains(used) && may(&used)) {
            return Ok(used);
        }
        for family in [Some(order.first), order.second].into_iter().flatten() {
            let of_family = found.iter().filter(|&&ip| Family::of(ip) == family);
            let fine: Vec<_> = of_family.filter(&mut may).collect();
            let at = if order.shuffle {
                fastrand::usize(..fine.len().max(1))
            } else {
                0
            };
            if let Some(&&ip) = fine.get(at) {
                return Ok(ip);
            }
        }
        Err(refused.unwrap_or_else(|| ConnectError::NoAddress {
            escaper: Arc::clone(&self.common.name),
            domain: name.host.to_string().into(),
        }))
    }
}

impl Way for OwnWay {
    fn check(&self, ip: IpAddr) -> Result<(), ConnectError> {
        self.escaper.dialer.may_connect(ip)
    }

    fn admits(&self, ip: IpAddr) -> bool {
        self.escaper.dialer.admits(ip)
    }

    fn open(&self, family: Family) -> io::Result<Socket> {
        let bind = self.escaper.udp_bind(family, self.index, self.options, self.buffer);
        Socket::new(bind.open()?)
    }

    fn look_up(&self, name: &Upstream, permit: Option<&Permit>) -> Lookup {
        self.escaper.look_up(self.resolver.clone(), name, self.order, permit)
    }

    fn choose(&self, name: &Upstream, found: &[IpAddr], used: Option<IpAddr>) -> Result<IpAddr, ConnectError> {
        self.escaper.choose(name, found, used, self.order)
    }
}
