//! Datagrams between two ends: a client's association and whatever it leads to.
//!
//! - [`Socket`]: a UDP socket that receives and sends in batches.
//! - [`Ends`]: what a relay asks of whoever owns its two ends: they strip and add headers, know addresses, and decide what
//!   may pass.
//! - [`Relay`]: the future that moves datagrams between them, with limits and an idle check.
//!
//! Datagrams are received into memory of the thread and sent from there. An association owns memory only for those that a
//! limit or a full socket holds up: it does not receive more until they are gone, and what comes meanwhile waits in the
//! socket's buffer, as it would with a slow receiver.

mod relay;
mod socket;

pub use relay::{Relay, RelayOptions};
pub use socket::{Socket, batch_size};

use std::cell::RefCell;
use std::task::{Context, Poll};

use sluice_sys::udp::{Receiver, Sender};

use crate::relay::Side;

/// A datagram on its way between two ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel<F> {
    /// Where its payload begins in the memory that comes with it.
    pub start: usize,
    /// Bytes of the payload.
    pub len: usize,
    /// The far address: where it goes to if it comes from the client, else where it comes from.
    pub far: F,
}

impl<F> Parcel<F> {
    /// The payload.
    ///
    /// # Panics
    /// If `memory` is not the one that the parcel lies in.
    #[must_use]
    pub fn payload<'m>(&self, memory: &'m [u8]) -> &'m [u8] {
        &memory[self.start..][..self.len]
    }
}

/// What has become of the first parcels that an end was to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// So many have gone out, or are the end's own affair from now on.
    Sent(usize),
    /// So many have not and never will; they count against no limit.
    Dropped(usize),
}

/// The tables that sending needs, of the thread.
#[derive(Default)]
pub struct Tables {
    /// The system call's.
    pub sender: Sender,
    /// Room for what goes before the payloads of a batch.
    pub heads: Vec<u8>,
}

/// The two ends of a [`Relay`], and what is around them.
pub trait Ends {
    /// What is known of a far address.
    type Far;
    /// Why the relay cannot go on.
    type Error;

    /// Receives a batch from one end and appends what of it is to be relayed. Ready with the number of datagrams that
    /// came, even if none of them may pass.
    ///
    /// # Errors
    /// Those that end the relay.
    fn poll_receive(
        &mut self,
        from: Side,
        cx: &mut Context<'_>,
        receiver: &mut Receiver,
        parcels: &mut Vec<Parcel<Self::Far>>,
    ) -> Poll<Result<usize, Self::Error>>;

    /// Sends parcels to one end, in order; there is one at least, and ready is only who has dealt with one at least.
    ///
    /// # Errors
    /// Those that end the relay.
    fn poll_send(
        &mut self,
        to: Side,
        cx: &mut Context<'_>,
        tables: &mut Tables,
        memory: &[u8],
        parcels: &[Parcel<Self::Far>],
    ) -> Poll<Result<Done, Self::Error>>;

    /// Does whatever else there is to do, at every turn of the relay.
    ///
    /// # Errors
    /// Those that end the relay.
    fn tend(&mut self, cx: &mut Context<'_>, tables: &mut Tables) -> Result<(), Self::Error> {
        let _ = (cx, tables);
        Ok(())
    }

    /// Asked at every check: why the relay must end, if it must. `idle` tells for how many checks in a row no datagram has
    /// come from either end.
    fn check(&self, idle: usize) -> Option<Self::Error>;

    /// The relay has ended.
    fn ended(&mut self, why: Self::Error);
}

#[derive(Default)]
struct Scratch {
    receiver: Receiver,
    tables: Tables,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's memory to `f`, which must not poll another relay inside.
fn with_scratch<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(f)
}

/// Lends the thread's memory for received datagrams to `f`, which must not poll a relay inside.
pub fn with_receiver<R>(f: impl FnOnce(&mut Receiver) -> R) -> R {
    with_scratch(|scratch| f(&mut scratch.receiver))
}

#[cfg(test)]
mod tests;
