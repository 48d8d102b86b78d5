//! Keys of minted certificates.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openssl::pkey::{Id, PKey};
use openssl::rsa::Rsa;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use sluice_lifecycle::Tasks;
use sluice_telemetry::warn;
use tokio::sync::Notify;
use tokio::time::sleep;

/// The bits of an RSA key.
const RSA_BITS: u32 = 2048;

/// RSA keys that lie ready, and the most that are in use.
const POOL: usize = 8;

/// A key of the pool that is in so many certificates gives way to a new one.
const USES: u32 = 256;

/// The pause between two keys that take the place of used ones: making one takes a good part of a second.
const PAUSE: Duration = Duration::from_secs(5);

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum KeyKind {
    Ed25519,
    P256,
    Rsa,
}

impl KeyKind {
    /// The name in logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
            Self::Rsa => "rsa2048",
        }
    }
}

/// A key could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// OpenSSL refuses.
    #[error("a key can not be made")]
    Openssl(#[from] openssl::error::ErrorStack),
    /// ring refuses, or its encoding is not the one we know.
    #[error("a P-256 key can not be made")]
    P256,
}

/// The key of a minted certificate.
pub(crate) struct LeafKey {
    pub(crate) kind: KeyKind,
    /// What stands in the bit string of the subject's public key.
    public: Vec<u8>,
    /// DER, as g3fcgen sends it: RSA and EC in their own form (RFC 8017, RFC 5915), others in PKCS#8.
    pub(crate) private: Vec<u8>,
}

impl PublicKeyData for LeafKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            KeyKind::Ed25519 => &PKCS_ED25519,
            KeyKind::P256 => &PKCS_ECDSA_P256_SHA256,
            KeyKind::Rsa => &PKCS_RSA_SHA256,
        }
    }
}

impl LeafKey {
    /// Makes a new key; of an RSA key that takes a good part of a second.
    pub(crate) fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        match kind {
            KeyKind::Ed25519 => Self::ed25519(),
            KeyKind::P256 => Self::p256(&SystemRandom::new()),
            KeyKind::Rsa => Self::rsa(),
        }
    }

    /// ring makes them faster than OpenSSL by far.
    fn p256(random: &SystemRandom) -> Result<Self, KeyError> {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, random).map_err(|_| KeyError::P256)?;
        let inner = pkcs8.as_ref().strip_prefix(PKCS8_P256.as_slice());
        let (scalar, rest) = inner
            .and_then(|inner| inner.split_first_chunk::<32>())
            .ok_or(KeyError::P256)?;
        let public = rest.strip_prefix(P256_PUBLIC.as_slice()).ok_or(KeyError::P256)?;
        let private = [&P256_PRIVATE[..], scalar, &P256_CURVE, &P256_PUBLIC, public].concat();
        Ok(Self {
            kind: KeyKind::P256,
            public: public.to_vec(),
            private,
        })
    }

    /// ring's PKCS#8 of these holds the public key too, which OpenSSL does not read.
    fn ed25519() -> Result<Self, KeyError> {
        let key = PKey::generate_ed25519()?;
        debug_assert_eq!(key.id(), Id::ED25519);
        Ok(Self {
            kind: KeyKind::Ed25519,
            public: key.raw_public_key()?,
            private: key.private_key_to_pkcs8()?,
        })
    }

    fn rsa() -> Result<Self, KeyError> {
        let key = Rsa::generate(RSA_BITS)?;
        Ok(Self {
            kind: KeyKind::Rsa,
            public: key.public_key_to_der_pkcs1()?,
            private: key.private_key_to_der()?,
        })
    }
}

/// What stands before the 32 bytes of a P-256 key in PKCS#8 (RFC 5958) without attributes.
const PKCS8_P256: [u8; 36] = [
    0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20,
];

/// What stands before them in an ECPrivateKey (RFC 5915) that names its curve.
const P256_PRIVATE: [u8; 7] = [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20];

/// The curve in an ECPrivateKey.
const P256_CURVE: [u8; 12] = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// What stands before the 65 bytes of the public key in an ECPrivateKey.
const P256_PUBLIC: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];

/// RSA keys made ahead of time, since making one takes a thousand times as long as everything else.
///
/// Certificates share them: each goes to the next in turn, and one that was used often gives way to a new one.
///
/// One lies ready from the start, the others once RSA keys are asked for at all.
#[derive(Default)]
pub(crate) struct RsaPool {
    keys: Mutex<VecDeque<Pooled>>,
    /// Told when a key was used for the first time, or often.
    worn: Notify,
}

struct Pooled {
    key: Arc<LeafKey>,
    uses: u32,
}

impl RsaPool {
    /// A key, made on the spot if none lies ready.
    pub(crate) fn take(&self) -> Result<Arc<LeafKey>, KeyError> {
        if let Some(key) = self.next() {
            return Ok(key);
        }
        let key = Arc::new(LeafKey::generate(KeyKind::Rsa)?);
        self.put(Arc::clone(&key));
        Ok(key)
    }

    /// How many lie ready.
    pub(crate) fn len(&self) -> usize {
        self.keys().len()
    }

    /// Fills the pool and keeps it fresh until `tasks` are told to stop.
    pub(crate) async fn run(self: Arc<Self>, tasks: Tasks) {
        loop {
            let step = async {
                if !self.wants() {
                    return self.worn.notified().await;
                }
                let is_full = self.len() == POOL;
                let made = tasks.spawn_blocking(|| LeafKey::generate(KeyKind::Rsa)).await;
                match made {
                    Ok(Ok(key)) => self.put(Arc::new(key)),
                    Ok(Err(error)) => warn!("an RSA key could not be made"; "error" => %error),
                    Err(error) => warn!("an RSA key could not be made"; "error" => %error),
                }
                if is_full || self.len() == 0 {
                    sleep(PAUSE).await;
                }
            };
            tokio::select! {
                () = step => {}
                () = tasks.stopping() => return,
            }
        }
    }

    fn next(&self) -> Option<Arc<LeafKey>> {
        let mut keys = self.keys();
        let mut pooled = keys.pop_front()?;
        let key = Arc::clone(&pooled.key);
        pooled.uses = pooled.uses.saturating_add(1);
        if pooled.uses == USES || pooled.uses == 1 {
            self.worn.notify_one();
        }
        keys.push_back(pooled);
        Some(key)
    }

    /// Adds a key; the most used one goes if there are enough.
    pub(crate) fn put(&self, key: Arc<LeafKey>) {
        let mut keys = self.keys();
        if keys.len() >= POOL {
            let most = (0..keys.len()).max_by_key(|at| keys.get(*at).map(|pooled| pooled.uses));
            most.and_then(|at| keys.remove(at));
        }
        keys.push_front(Pooled { key, uses: 0 });
    }

    /// Whether another key shall be made.
    fn wants(&self) -> bool {
        let keys = self.keys();
        match keys.len() {
            0 => true,
            POOL => keys.iter().any(|pooled| pooled.uses >= USES),
            _ => keys.iter().any(|pooled| pooled.uses > 0),
        }
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, VecDeque<Pooled>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openssl_reads_every_key_as_g3proxy_does() {
        for kind in [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa] {
            let key = LeafKey::generate(kind).unwrap();
            let private = PKey::private_key_from_der(&key.private).unwrap();
            let public = PKey::public_key_from_der(&key.subject_public_key_info()).unwrap();
            assert!(public.public_eq(&private), "{kind:?}");
        }
    }

    #[test]
    fn keys_of_the_pool_go_round_and_the_most_used_one_leaves() {
        let pool = RsaPool::default();
        assert!(pool.wants());
        for _ in 0..POOL {
            // Which keys they are does not matter here, and these are made faster.
            pool.put(Arc::new(LeafKey::generate(KeyKind::P256).unwrap()));
        }
        let first = pool.take().unwrap();
        assert!(!Arc::ptr_eq(&first, &pool.take().unwrap()));
        assert!(!pool.wants());
        for _ in 0..usize::try_from(USES).unwrap() * POOL - 2 {
            pool.take().unwrap();
        }
        assert!(pool.wants());
        pool.take().unwrap();
        pool.put(Arc::new(LeafKey::generate(KeyKind::P256).unwrap()));
        assert_eq!(pool.len(), POOL);
    }
}
