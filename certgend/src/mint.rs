//! From a request to a response.
//!
//! [`Mint`] is what a configuration makes: the CA and its rules; a reload puts another in its place, and requests under
//! way end with the one they began with. [`Minter`] is what stays: the threads' slots, the RSA keys, the counters.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rcgen::PublicKeyData;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sluice_addr::Host;
use sluice_lifecycle::{Peer, Tasks};
use sluice_telemetry::{EventLogger, debug, info, warn};
use sluice_wire::mint::{
    Certificate, ErrorCode, MintError, MintRequest, MintResponse, Minted, PrivateKey, Service, Usage,
};
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use crate::ca::{Ca, CaError};
use crate::cache::{Cache, Ready, Wanted};
use crate::config::Config;
use crate::keys::{KeyKind, LeafKey, RsaPool};
use crate::never::{Never, covers, covers_name};
use crate::plan::{self, Bounds, Extension, Plan, key_id, sha256};
use crate::rate::Rate;
use crate::record::Made;
use crate::stats::Stats;

/// The most requests that wait for a thread.
const MAX_WAITING: usize = 8192;

/// How long certificates that mirror none share a key.
const SHARED_KEY: Duration = Duration::from_secs(300);

/// Who asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Process(Peer),
    Address(SocketAddr),
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(Peer { uid, pid: Some(pid) }) => write!(f, "uid={uid} pid={pid}"),
            Self::Process(Peer { uid, pid: None }) => write!(f, "uid={uid}"),
            Self::Address(addr) => write!(f, "{addr}"),
        }
    }
}

/// What mints, as one configuration says.
pub(crate) struct Mint {
    /// Or what an asker is told who gets nothing.
    ca: Result<Ca, String>,
    never: Vec<Never>,
    keep_serial: bool,
    max_ttl: u32,
    max_validity: i64,
    cache: Cache,
    /// The key of certificates that mirror none, and since when.
    shared_key: Mutex<Option<(Instant, Arc<LeafKey>)>>,
}

impl Mint {
    /// Builds it all. A CA that is not there yet, or not named, is no error where `may_lack` says so.
    ///
    /// # Errors
    /// What is wrong with the CA.
    pub(crate) fn build(config: &Config, may_lack: bool) -> Result<Self, CaError> {
        let ca = match Ca::load(config) {
            Ok(ca) => {
                for warning in &ca.warnings {
                    warn!("the CA: {}", warning);
                }
                Ok(ca)
            }
            Err(error) if may_lack && error.is_absence() => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        let backend = config.own.backend.as_ref();
        Ok(Self {
            ca,
            never: config.own.never_mint.iter().cloned().collect(),
            keep_serial: backend.is_some_and(|backend| backend.keep_serial),
            max_ttl: backend.map_or(0, |backend| backend.max_ttl()),
            max_validity: config.own.max_validity.secs(),
            cache: Cache::new(config.own.cache_size.0),
            shared_key: Mutex::default(),
        })
    }

    /// The CA, or why there is none.
    pub(crate) fn ca(&self) -> Result<&Ca, &str> {
        self.ca.as_ref().map_err(String::as_str)
    }

    /// Certificates that are kept.
    pub(crate) fn cached(&self) -> usize {
        self.cache.len()
    }

    /// What refuses a request before anything is made.
    fn admit(&self, request: &MintRequest, now: i64) -> Result<(&Ca, Host), MintError> {
        let refused = |code, text: String| MintError { code, text };
        let ca = self.ca.as_ref().map_err(|why| refused(ErrorCode::NoCa, why.clone()))?;
        if ca.not_after <= now {
            return Err(refused(ErrorCode::NoCa, format!("the CA `{}` has expired", ca.subject)));
        }
        let name = request.host.strip_prefix("*.").unwrap_or(&request.host);
        let host = match Host::parse(name) {
            Ok(host) if !name.contains('*') => host,
            _ => return Err(refused(ErrorCode::BadRequest, format!("`{}` is no host", request.host))),
        };
        let is_never = match &host {
            // A star stands for hosts below, any of which may be covered.
            Host::Domain(domain) if name.len() < request.host.len() => covers_name(&self.never, &format!("*.{domain}")),
            host => covers(&self.never, host),
        };
        if is_never {
            return Err(refused(
                ErrorCode::NeverMint,
                format!("`never_mint` covers `{}`", request.host),
            ));
        }
        Ok((ca, host))
    }

    /// Whether making a certificate takes less time than handing the work to another thread and back, some 50 us.
    fn is_quick(&self, keys: &RsaPool) -> bool {
        keys.len() > 0 && self.ca.as_ref().is_ok_and(|ca| ca.signer.is_quick())
    }

    /// Makes a certificate. Takes its time: up to a millisecond, more if an RSA key has to be made first.
    pub(crate) fn make(
        &self,
        request: &MintRequest,
        now: i64,
        keys: &RsaPool,
        stats: &Stats,
    ) -> Result<Done, MintError> {
        let failed = |error: &dyn fmt::Display| MintError {
            code: ErrorCode::Failed,
            text: error.to_string(),
        };
        let (ca, host) = self.admit(request, now)?;
        let bounds = Bounds {
            now,
            ca_not_before: ca.not_before,
            ca_not_after: ca.not_after,
            max_validity: self.max_validity,
        };
        let plan = self.plan(request, &host, &bounds)?;
        let key = match (&request.cert, plan.key) {
            (None, _) => self.shared_key(stats).map_err(|error| failed(&error))?,
            (Some(_), KeyKind::Rsa) => keys.take().map_err(|error| failed(&error))?,
            (Some(_), kind) => Arc::new(LeafKey::generate(kind).map_err(|error| failed(&error))?),
        };
        let mut extensions = plan.extensions.clone();
        let (own_id, ca_id) = plan.key_ids;
        if own_id {
            extensions.push(Extension::subject_key_id(&key_id(key.der_bytes())));
        }
        if ca_id {
            extensions.push(Extension::authority_key_id(&ca.key_id));
        }
        let der = ca
            .signer
            .sign(&plan, &key, &extensions)
            .map_err(|error| failed(&error))?;
        let ready = Ready {
            chain: pem(&der) + &ca.chain,
            key: key.private.clone(),
            not_after: plan.not_after,
        };
        Ok(Done {
            ready: Arc::new(ready),
            fingerprint: sha256(&der),
            plan,
        })
    }

    fn plan(&self, request: &MintRequest, host: &Host, bounds: &Bounds) -> Result<Plan, MintError> {
        let der = match &request.cert {
            None => None,
            Some(Certificate::Der(der)) => Some(der.clone()),
            Some(Certificate::Pem(pem)) => {
                let first = CertificateDer::from_pem_slice(pem.as_bytes()).ok();
                Some(first.map(|der| der.to_vec()).unwrap_or_default())
            }
        };
        let mirrored = match &der {
            Some(der) => plan::mirror(der, request.usage, self.keep_serial, &self.never, bounds)?,
            None => None,
        };
        if let Some(plan) = mirrored {
            return Ok(plan);
        }
        let name = match host {
            Host::Domain(name) if request.host.starts_with("*.") => format!("*.{name}"),
            host => host.to_string(),
        };
        let mut plan = plan::for_host(host, &name, bounds)?;
        if der.is_some() {
            plan.fallback.push("certificate");
        }
        Ok(plan)
    }

    fn shared_key(&self, stats: &Stats) -> Result<Arc<LeafKey>, crate::keys::KeyError> {
        let mut shared = self.shared_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, key)) = &*shared
            && since.elapsed() < SHARED_KEY
        {
            return Ok(Arc::clone(key));
        }
        stats.refresh_total.add(1);
        let key = Arc::new(LeafKey::generate(KeyKind::P256)?);
        stats.refresh_ok.add(1);
        *shared = Some((Instant::now(), Arc::clone(&key)));
        Ok(key)
    }
}

/// A certificate that was just made.
pub(crate) struct Done {
    pub(crate) ready: Arc<Ready>,
    fingerprint: [u8; 32],
    plan: Plan,
}

/// Mints, whatever configuration is in charge.
pub(crate) struct Minter {
    mint: ArcSwap<Mint>,
    pub(crate) rate: Rate,
    pub(crate) keys: Arc<RsaPool>,
    pub(crate) stats: Arc<Stats>,
    /// A permit for each thread that may work at a time.
    slots: Semaphore,
    waiting: AtomicUsize,
    logger: EventLogger,
    tasks: Tasks,
}

impl Minter {
    /// `threads` work at a time at most.
    pub(crate) fn new(
        mint: Mint,
        rate: Rate,
        stats: Arc<Stats>,
        threads: usize,
        logger: EventLogger,
        tasks: Tasks,
    ) -> Self {
        Self {
            mint: ArcSwap::from_pointee(mint),
            rate,
            keys: Arc::default(),
            stats,
            slots: Semaphore::new(threads),
            waiting: AtomicUsize::new(0),
            logger,
            tasks,
        }
    }

    /// What mints now.
    pub(crate) fn mint(&self) -> Arc<Mint> {
        self.mint.load_full()
    }

    /// Puts another one in charge; requests under way end with the old one.
    pub(crate) fn replace(&self, mint: Mint) {
        self.mint.store(Arc::new(mint));
    }

    /// Answers a request.
    pub(crate) async fn answer(self: &Arc<Self>, request: MintRequest, asker: Asker) -> MintResponse {
        let began = Instant::now();
        let MintRequest { id, service, usage, .. } = request;
        let host = request.host.clone();
        self.stats.request_total.add(1);
        let outcome = self.outcome(request, asker, began).await;
        match &outcome {
            Ok(_) => {
                self.stats.request_ok.add(1);
                self.stats.took(began.elapsed());
            }
            Err(error) => {
                self.stats.refused(error.code);
                let (code, asker) = (error.code.name(), asker.to_string());
                match error.code.is_policy() {
                    true => info!("nothing minted: {}", error.text; "host" => &host, "error" => code, "asker" => asker),
                    false => {
                        warn!("nothing minted: {}", error.text; "host" => &host, "error" => code, "asker" => asker)
                    }
                }
            }
        }
        MintResponse {
            id,
            host,
            service,
            usage,
            outcome,
        }
    }

    async fn outcome(
        self: &Arc<Self>,
        request: MintRequest,
        asker: Asker,
        began: Instant,
    ) -> Result<Minted, MintError> {
        let mint = self.mint();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        mint.admit(&request, now)?;
        let wanted = Wanted::of(&request);
        if let Some(ready) = mint.cache.find(&wanted, now) {
            self.stats.request_cached.add(1);
            return Ok(sent(&ready, now, mint.max_ttl));
        }
        if !self.rate.take(began) {
            return Err(MintError {
                code: ErrorCode::OverRate,
                text: "more certificates were asked for than `mint_rate` allows".to_owned(),
            });
        }
        let Some(_place) = Place::take(&self.waiting) else {
            return Err(MintError {
                code: ErrorCode::Busy,
                text: format!("{MAX_WAITING} requests are waiting already"),
            });
        };
        let (host, service, usage) = (request.host.clone(), request.service, request.usage);
        let done = if mint.is_quick(&self.keys) {
            mint.make(&request, now, &self.keys, &self.stats)?
        } else {
            let _slot = self.slots.acquire().await.ok(); // the semaphore is never closed
            let (mint, keys, stats) = (Arc::clone(&mint), Arc::clone(&self.keys), Arc::clone(&self.stats));
            let work = self
                .tasks
                .spawn_blocking(move || mint.make(&request, now, &keys, &stats));
            work.await.map_err(|error| MintError {
                code: ErrorCode::Failed,
                text: format!("the thread has failed: {error}"),
            })??
        };
        mint.cache.put(wanted, &done.ready);
        let minted = sent(&done.ready, now, mint.max_ttl);
        self.log(done, host, service, usage, asker, began.elapsed());
        Ok(minted)
    }

    fn log(&self, done: Done, host: String, service: Service, usage: Usage, asker: Asker, duration: Duration) {
        if !done.plan.fallback.is_empty() {
            self.stats.fallback.add(1);
            debug!("not all could be mirrored"; "host" => &host, "fallback" => done.plan.fallback.join(" "));
        }
        if !self.logger.enabled() {
            return;
        }
        self.logger.log(Made {
            host,
            service,
            usage,
            serial: done.plan.serial,
            fingerprint: done.fingerprint,
            key: done.plan.key,
            not_after: done.plan.not_after,
            asker,
            fallback: done.plan.fallback,
            duration,
        });
    }
}

/// A place among those that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        (before < MAX_WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an asker gets: the time that is left, up to a limit.
fn sent(ready: &Ready, now: i64, max_ttl: u32) -> Minted {
    let left = u32::try_from((ready.not_after - now).max(0)).unwrap_or(u32::MAX);
    Minted {
        chain: ready.chain.clone(),
        key: PrivateKey::Der(ready.key.clone()),
        ttl: left.min(max_ttl),
    }
}

/// A certificate as PEM (RFC 7468).
fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(text.len() + text.len() / 64 + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64)); // base64 is ASCII
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
