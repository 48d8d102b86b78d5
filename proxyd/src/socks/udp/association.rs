//! An association at work: a client, a way out, and the task that both count for.

use std::sync::Arc;
use std::task::{Context, Poll};

use sluice_io::relay::Side;
use sluice_io::udp::{Done, Ends, Parcel, Tables};
use sluice_sys::udp::Receiver;

use super::client_end::ClientEnd;
use crate::error::TaskError;
use crate::server::socks_proxy::SocksProxy;
use crate::task::Task;
use crate::tunnel::Checks;
use crate::udp::{Far, Remote};

pub(super) struct Association {
    server: Arc<SocksProxy>,
    task: Task,
    client: ClientEnd,
    remote: Remote,
    checks: Checks,
}

impl Association {
    pub(super) fn new(server: Arc<SocksProxy>, task: Task, client: ClientEnd, remote: Remote) -> Self {
        Self {
            server,
            task,
            client,
            remote,
            checks: Checks::default(),
        }
    }
}

impl Ends for Association {
    type Far = Far;
    type Error = TaskError;

    fn poll_receive(
        &mut self,
        from: Side,
        cx: &mut Context<'_>,
        receiver: &mut Receiver,
        parcels: &mut Vec<Parcel<Far>>,
    ) -> Poll<Result<usize, TaskError>> {
        let traffic = &self.task.traffic;
        match from {
            Side::Client => self.client.poll_receive(cx, receiver, parcels, &self.server, traffic),
            Side::Upstream => self.remote.poll_receive(cx, receiver, parcels, traffic).map(Ok),
        }
    }

    fn poll_send(
        &mut self,
        to: Side,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        parcels: &[Parcel<Far>],
    ) -> Poll<Result<Done, TaskError>> {
        let traffic = &self.task.traffic;
        let done = match to {
            Side::Client => self.client.poll_send(cx, tables, memory, parcels, traffic),
            Side::Upstream => self.remote.poll_send(cx, tables, memory, parcels, traffic),
        };
        done.map(Ok)
    }

    fn tend(&mut self, cx: &mut Context<'_>, tables: &mut Tables) -> Result<(), TaskError> {
        self.client.poll_control(cx)?;
        self.remote.tend(cx, tables, &self.task.traffic);
        Ok(())
    }

    fn check(&self, idle: usize) -> Option<TaskError> {
        self.checks.run(&self.task, idle)
    }

    fn ended(&mut self, why: TaskError) {
        self.task.failed(&why);
    }
}
