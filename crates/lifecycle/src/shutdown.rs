//! When a daemon stops: the states between serving and gone, without clock or I/O.

use std::time::Duration;

use serde::Serialize;
use sluice_control::{Code, Error};

/// What a daemon is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Serving.
    Online,
    /// Asked to stop and still serving, for a successor to start or the order to be taken back.
    Waiting,
    /// No longer accepting, tasks end.
    Draining,
    /// Ending now.
    Quitting,
}

/// What somebody wants of the daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Stop, after `delay` (the configured one if `None`), granting tasks `drain`.
    Offline {
        delay: Option<Duration>,
        drain: Option<Duration>,
    },
    /// Take a stop back.
    Cancel,
    /// End now.
    Force,
}

/// What the caller of the machine must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Stay,
    /// Call [`Machine::waited`] after this time, unless another `Wait` or a `Stay` from [`Order::Cancel`] comes.
    Wait(Duration),
    /// Drain, granting this time.
    Drain(Duration),
    /// Drop everything.
    Quit,
}

/// The states and what leads from one to the next.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    delay: Duration,
    drain: Duration,
    /// Wish of the order that is being waited out.
    wished: Option<Duration>,
}

impl Machine {
    /// A daemon that serves, with the configured times.
    pub(crate) fn online(delay: Duration, drain: Duration) -> Self {
        Self {
            state: State::Online,
            delay,
            drain,
            wished: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Takes an order: what to do, and what to tell who gave it. Answers in every state, at once.
    pub(crate) fn order(&mut self, order: Order) -> (Step, Result<String, Error>) {
        match (self.state, order) {
            (State::Online | State::Waiting, Order::Offline { delay, drain }) => self.offline(delay, drain),
            (State::Draining, Order::Offline { drain: Some(drain), .. }) => (
                Step::Drain(drain),
                told(format!("draining, at most {} s more", drain.as_secs())),
            ),
            (state @ (State::Draining | State::Quitting), Order::Offline { .. }) => (Step::Stay, told(already(state))),
            (State::Online, Order::Cancel) => (Step::Stay, told("no shutdown to cancel")),
            (State::Waiting, Order::Cancel) => {
                self.state = State::Online;
                (Step::Stay, told("shutdown cancelled, online again"))
            }
            (state @ (State::Draining | State::Quitting), Order::Cancel) => {
                let message = format!("{}, too late to cancel", already(state));
                (Step::Stay, Err(Error::new(Code::State, message)))
            }
            (State::Quitting, Order::Force) => (Step::Stay, told(already(State::Quitting))),
            (_, Order::Force) => {
                self.state = State::Quitting;
                (Step::Quit, told("quitting, tasks are dropped"))
            }
        }
    }

    fn offline(&mut self, delay: Option<Duration>, drain: Option<Duration>) -> (Step, Result<String, Error>) {
        let delay = delay.unwrap_or(self.delay);
        self.wished = drain;
        if delay.is_zero() {
            return (self.begin(), told("shutting down"));
        }
        self.state = State::Waiting;
        (
            Step::Wait(delay),
            told(format!("shutting down in {:.1} s", delay.as_secs_f64())),
        )
    }

    /// The waiting time is over.
    pub(crate) fn waited(&mut self) -> Step {
        match self.state {
            State::Waiting => self.begin(),
            _ => Step::Stay,
        }
    }

    fn begin(&mut self) -> Step {
        self.state = State::Draining;
        Step::Drain(self.wished.unwrap_or(self.drain))
    }
}

fn told(text: impl Into<String>) -> Result<String, Error> {
    Ok(text.into())
}

fn already(state: State) -> &'static str {
    match state {
        State::Online => "online",
        State::Waiting => "waiting to shut down",
        State::Draining => "the drain has begun",
        State::Quitting => "quitting",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFLINE: Order = Order::Offline {
        delay: None,
        drain: None,
    };
    const DELAY: Duration = Duration::from_secs(4);
    const DRAIN: Duration = Duration::from_secs(5);

    fn after(orders: &[Order]) -> Machine {
        let mut machine = Machine::online(DELAY, DRAIN);
        for order in orders {
            let _ = machine.order(*order);
        }
        machine
    }

    #[test]
    fn a_stop_waits_then_drains() {
        let mut machine = after(&[]);
        assert_eq!(machine.order(OFFLINE).0, Step::Wait(DELAY));
        assert_eq!(machine.state(), State::Waiting);
        assert_eq!(machine.waited(), Step::Drain(DRAIN));
        assert_eq!(machine.state(), State::Draining);
    }

    #[test]
    fn a_second_order_restarts_the_wait_or_ends_it() {
        let mut machine = after(&[OFFLINE]);
        assert_eq!(machine.order(OFFLINE).0, Step::Wait(DELAY));
        let now = Order::Offline {
            delay: Some(Duration::ZERO),
            drain: Some(Duration::from_secs(1)),
        };
        assert_eq!(machine.order(now).0, Step::Drain(Duration::from_secs(1)));
        assert_eq!(machine.order(OFFLINE).0, Step::Stay);
        assert_eq!(
            machine.order(now).0,
            Step::Drain(Duration::from_secs(1)),
            "a drain can be shortened"
        );
    }

    #[test]
    fn a_shutdown_is_cancelled_while_waiting_only_and_always_answered() {
        let mut machine = after(&[OFFLINE]);
        assert!(machine.order(Order::Cancel).1.is_ok());
        assert_eq!((machine.state(), machine.waited()), (State::Online, Step::Stay));
        assert!(machine.order(Order::Cancel).1.is_ok());
        let _ = machine.order(OFFLINE);
        machine.waited();
        let (step, told) = machine.order(Order::Cancel);
        assert_eq!((step, told.unwrap_err().code()), (Step::Stay, Code::State));
        assert!(after(&[Order::Force]).order(Order::Cancel).1.is_err());
    }

    #[test]
    fn force_works_in_every_state_once() {
        let mut draining = after(&[OFFLINE]);
        draining.waited();
        for mut machine in [after(&[]), after(&[OFFLINE]), draining] {
            assert_eq!(machine.order(Order::Force).0, Step::Quit);
            assert_eq!(machine.order(Order::Force).0, Step::Stay);
            assert_eq!(machine.order(OFFLINE).0, Step::Stay);
        }
    }
}
