//! Session tickets under rolling keys: AES-256-CBC, then HMAC-SHA-256, each key known by its name (RFC 5077 §4).

mod openssl;
mod rustls;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(super) use self::openssl::use_with_openssl;
pub(crate) use self::rustls::RustlsTickets;

use crate::config::TicketerConfig;
use crate::error::BuildError;

const NAME: usize = 16;
const IV: usize = 16;
const MAC: usize = 32;

/// Keys for session tickets: one that seals, and the earlier ones that still open until they are too old.
///
/// Servers that share it, or that follow one another after a reload, take each other's tickets as far as their session
/// contexts and certificates allow.
pub struct Ticketer {
    /// Nobody has configured it.
    #[cfg_attr(
        not(boring),
        expect(dead_code, reason = "only BoringSSL's kin cannot take a configured one")
    )]
    is_default: bool,
    check_interval: Duration,
    lifetime: Duration,
    keys: Mutex<Keys>,
}

struct Keys {
    checked: Instant,
    current: Arc<Key>,
    earlier: VecDeque<Arc<Key>>,
}

struct Key {
    name: [u8; NAME],
    aes: [u8; 32],
    hmac: [u8; 16],
    born: Instant,
}

impl Key {
    fn random(now: Instant) -> Result<Self, ::openssl::error::ErrorStack> {
        let mut key = Self {
            name: [0; NAME],
            aes: [0; 32],
            hmac: [0; 16],
            born: now,
        };
        ::openssl::rand::rand_bytes(&mut key.name)?;
        ::openssl::rand::rand_bytes(&mut key.aes)?;
        ::openssl::rand::rand_bytes(&mut key.hmac)?;
        Ok(key)
    }
}

impl Ticketer {
    /// Makes a ticketer with a first key of its own.
    ///
    /// # Errors
    /// [`BuildError`] if there are no random bytes, or the lifetime is zero.
    pub fn new(config: &TicketerConfig) -> Result<Arc<Self>, BuildError> {
        Self::with(config, false)
    }

    /// The one of a server whose configuration names none.
    ///
    /// # Errors
    /// [`BuildError`] if there are no random bytes.
    pub fn of_defaults() -> Result<Arc<Self>, BuildError> {
        Self::with(&TicketerConfig::default(), true)
    }

    fn with(config: &TicketerConfig, is_default: bool) -> Result<Arc<Self>, BuildError> {
        if config.local_lifetime == 0 {
            return Err(BuildError::refused("local_lifetime", ZeroLifetime));
        }
        let now = Instant::now();
        Ok(Arc::new(Self {
            is_default,
            check_interval: config.check_interval.0,
            lifetime: Duration::from_secs(config.local_lifetime.into()),
            keys: Mutex::new(Keys {
                checked: now,
                current: Arc::new(Key::random(now)?),
                earlier: VecDeque::new(),
            }),
        }))
    }

    /// How long a ticket made now is good for, at least.
    fn lifetime_hint(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs() / 2).unwrap_or(u32::MAX)
    }

    /// The key to seal with.
    fn sealing(&self, now: Instant) -> Arc<Key> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.roll(&mut keys, now);
        Arc::clone(&keys.current)
    }

    /// The key that is named `name`, if it is still good.
    fn opening(&self, name: &[u8], now: Instant) -> Option<Arc<Key>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.roll(&mut keys, now);
        std::iter::once(&keys.current)
            .chain(&keys.earlier)
            .find(|key| key.name == name && now.saturating_duration_since(key.born) < self.lifetime)
            .cloned()
    }

    /// At most once a check interval: drops keys that are too old, and replaces one that has lived half its life.
    fn roll(&self, keys: &mut Keys, now: Instant) {
        if now.saturating_duration_since(keys.checked) < self.check_interval {
            return;
        }
        keys.checked = now;
        keys.earlier
            .retain(|key| now.saturating_duration_since(key.born) < self.lifetime);
        if now.saturating_duration_since(keys.current.born) < self.lifetime / 2 {
            return;
        }
        // Without random bytes the old key goes on; opening it ends with its own life.
        if let Ok(key) = Key::random(now) {
            let old = std::mem::replace(&mut keys.current, Arc::new(key));
            keys.earlier.push_front(old);
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("must be at least 1 second")]
struct ZeroLifetime;

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer() -> Arc<Ticketer> {
        Ticketer::new(&TicketerConfig::default()).unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_key_seals_for_half_its_life_and_opens_for_all_of_it() {
        let ticketer = ticketer();
        let start = Instant::now();
        let first = ticketer.sealing(start);
        assert_eq!(ticketer.sealing(start + 5 * HOUR).name, first.name);
        let second = ticketer.sealing(start + 7 * HOUR);
        assert_ne!(second.name, first.name);
        assert!(ticketer.opening(&first.name, start + 11 * HOUR).is_some());
        assert!(ticketer.opening(&first.name, start + 13 * HOUR).is_none());
        assert!(ticketer.opening(&second.name, start + 13 * HOUR).is_some());
    }

    #[test]
    fn a_name_that_is_not_known_opens_nothing() {
        let ticketer = ticketer();
        assert!(ticketer.opening(&[7; NAME], Instant::now()).is_none());
        assert!(ticketer.opening(&[], Instant::now()).is_none());
    }

    #[test]
    fn keys_are_not_in_debug_output() {
        assert!(!format!("{:?}", ticketer()).contains("aes"));
    }

    #[test]
    fn a_lifetime_of_zero_is_refused() {
        let config = TicketerConfig {
            local_lifetime: 0,
            ..TicketerConfig::default()
        };
        assert_eq!(
            Ticketer::new(&config).unwrap_err().to_string(),
            "`local_lifetime`: must be at least 1 second"
        );
    }
}
