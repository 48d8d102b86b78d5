//! Checking passwords without holding a worker up.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ring::hmac;
use ring::rand::SystemRandom;
use sluice_lifecycle::Tasks;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::member::User;

/// Passwords that one worker remembers as right, half of them at least the ones used last.
const MOST: usize = 2048;

/// How long a client waits for a check at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// A keyed hash: it says nothing about what it was made of to whoever does not know the worker's key.
pub(crate) type Digest = [u8; 32];

/// There are too many checks to make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// What one worker knows of passwords.
pub(crate) struct Passwords {
    key: hmac::Key,
    right: Mutex<Generations>,
    tasks: Tasks,
    /// Lets as many slow checks run as there are CPUs, of all workers together; the others wait.
    slots: Arc<Semaphore>,
}

/// A bounded set that forgets what was not asked for in the longest time, roughly.
#[derive(Default)]
struct Generations {
    young: HashSet<Digest>,
    old: HashSet<Digest>,
}

impl Generations {
    fn contains(&mut self, digest: &Digest) -> bool {
        if self.young.contains(digest) {
            return true;
        }
        let found = self.old.remove(digest);
        if found {
            self.insert(*digest);
        }
        found
    }

    fn insert(&mut self, digest: Digest) {
        if self.young.len() >= MOST / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest);
    }
}

impl Passwords {
    /// Knows none yet. Slow checks run as blocking work of `tasks`.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub(crate) fn new(tasks: &Tasks, slots: &Arc<Semaphore>) -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            right: Mutex::default(),
            tasks: tasks.clone(),
            slots: Arc::clone(slots),
        })
    }

    /// The digest of a secret, with a number that sets apart what it is a secret of.
    pub(crate) fn digest(&self, id: u64, secret: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&id.to_le_bytes());
        context.update(secret);
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// Whether `password` is the user's.
    ///
    /// # Errors
    /// [`Busy`]: that took too long to find out.
    pub(crate) async fn check(&self, user: &Arc<User>, password: &str) -> Result<bool, Busy> {
        let token = &user.config.token;
        if !token.is_slow() {
            return Ok(token.verify(password));
        }
        let digest = self.digest(user.id, password.as_bytes());
        if self.right().contains(&digest) {
            return Ok(true);
        }
        let is_right = timeout(PATIENCE, self.check_slowly(user, password))
            .await
            .map_err(|_| Busy)?;
        if is_right {
            self.right().insert(digest);
        }
        Ok(is_right)
    }

    async fn check_slowly(&self, user: &Arc<User>, password: &str) -> bool {
        let Ok(slot) = self.slots.clone().acquire_owned().await else {
            return false;
        };
        let (user, password) = (Arc::clone(user), password.to_owned());
        let checked = self.tasks.spawn_blocking(move || {
            let _slot = slot;
            user.config.token.verify(&password)
        });
        checked.await.unwrap_or(false)
    }

    fn right(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_number_is_bounded() {
        let mut set = Generations::default();
        let digest = |n: usize| {
            let mut digest = Digest::default();
            digest[..8].copy_from_slice(&n.to_le_bytes());
            digest
        };
        set.insert(digest(0));
        for n in 1..10 * MOST {
            set.insert(digest(n));
            assert!(set.contains(&digest(0)), "{n}");
            assert!(set.young.len() + set.old.len() <= MOST);
        }
        assert!(!set.contains(&digest(1)));
    }

    #[test]
    fn digests_of_two_workers_differ() {
        let (tasks, slots) = (Tasks::new(), Arc::new(Semaphore::new(1)));
        let [one, other] = [(); 2].map(|()| Passwords::new(&tasks, &slots).unwrap());
        assert_eq!(one.digest(1, b"x"), one.digest(1, b"x"));
        assert_ne!(one.digest(1, b"x"), one.digest(2, b"x"));
        assert_ne!(one.digest(1, b"x"), other.digest(1, b"x"));
    }
}
