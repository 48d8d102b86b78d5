//! What auditd alone is told, and no log of proxyd: certificates that were made for tasks, and what ICAP services have said.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::geteuid;
use sluice_http1::Redacted;
use sluice_icap::Method;
use sluice_telemetry::value::{Dur, Timestamp, Uuid};
use sluice_telemetry::{LogType, keys};
use sluice_tls::intercept::Identity;

use super::leaf::Key;
use super::record::{Recording, id, nanos};
use crate::peer::Address;

impl Recording {
    /// Tells about a certificate that was made for a task; certgend has it in its own log, too.
    pub(super) fn mint(&self, auditor: &str, task: Uuid, (generator, key, identity): (&Address, &Key, &Identity)) {
        let asker = format!("uid={} pid={}", geteuid().as_raw(), std::process::id());
        let now = nanos(Timestamp::now());
        self.recorder().event_of(now, LogType::Mint.as_str(), |event| {
            event.text(keys::AUDITOR_NAME, auditor);
            event.text(keys::HOST, &key.host);
            event.text(keys::SERVICE, key.service.name());
            event.text(keys::USAGE, key.usage.name());
            event.text(keys::SERIAL, &identity.serial);
            event.text(keys::FINGERPRINT, &identity.fingerprint);
            event.text(keys::GENERATOR, &generator.to_string());
            event.text(keys::ASKER, &asker);
            Some(id(task))
        });
    }
}

/// Who tells auditd what a service has said of a message.
#[derive(Clone)]
pub(crate) struct Witness {
    pub(crate) recording: Arc<Recording>,
    pub(crate) auditor: Arc<str>,
    /// Characters of a URI.
    pub(crate) uri_max: usize,
}

/// What a service has said of a message.
pub(crate) struct Said<'a> {
    pub(crate) task: Uuid,
    /// The service's URI.
    pub(crate) service: &'a str,
    pub(crate) method: Method,
    /// The head of the request that the message is, or answers.
    pub(crate) request_head: &'a [u8],
    /// The service's own status, if it has answered.
    pub(crate) status: Option<u16>,
    /// `unchanged`, `request` or `response`: what the message goes on as; `bypassed` or `failed`.
    pub(crate) verdict: &'static str,
    /// The head of the response that goes on in the message's stead.
    pub(crate) response_head: Option<&'a [u8]>,
    /// Why it has failed.
    pub(crate) error: Option<String>,
    /// Until the verdict.
    pub(crate) duration: Duration,
}

impl Witness {
    /// Whether anybody would hear it.
    pub(crate) fn is_heard(&self) -> bool {
        self.recording.recorder().is_expected()
    }

    /// Tells it.
    pub(crate) fn tell(&self, said: &Said<'_>) {
        let request = Head::of(said.request_head);
        let uri = request
            .target
            .map(|target| Redacted::new(target, self.uri_max).to_string());
        let status = said
            .response_head
            .and_then(|head| Head::of(head).target?.parse::<u16>().ok());
        self.recording
            .recorder()
            .event_of(nanos(Timestamp::now()), "Icap", |event| {
                event.text(keys::AUDITOR_NAME, &self.auditor);
                event.text(keys::ICAP_SERVICE, said.service);
                event.text(keys::ICAP_METHOD, said.method.as_str());
                if let Some(status) = said.status {
                    event.int(keys::ICAP_STATUS, status.into());
                }
                event.text(keys::VERDICT, said.verdict);
                for (key, text) in [
                    (keys::METHOD, request.first),
                    (keys::URI, uri.as_deref()),
                    (keys::HOST, request.host),
                ] {
                    if let Some(text) = text {
                        event.text(key, text);
                    }
                }
                if let Some(status) = status {
                    event.int(keys::RSP_STATUS, status.into());
                }
                event.text(keys::DURATION, &Dur(said.duration).to_string());
                if let Some(error) = &said.error {
                    event.text(keys::MSG, error);
                }
                Some(id(said.task))
            });
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

/// What is told of a message's head.
struct Head<'a> {
    /// The method, or the version of a response.
    first: Option<&'a str>,
    /// The target, or the status of a response.
    target: Option<&'a str>,
    host: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// Reads a head that is well formed; of another one it has what there is.
    fn of(head: &'a [u8]) -> Self {
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
        let mut host = lines.filter_map(|line| {
            let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
            let value = value.strip_prefix(b":")?.trim_ascii();
            name.eq_ignore_ascii_case(b"host").then_some(value)
        });
        Self {
            first: words.next().and_then(text),
            target: words.next().and_then(text),
            host: host.next().and_then(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_head_method_target_and_host_are_read() {
        let head = Head::of(b"GET /a?b HTTP/1.1\r\nAccept: host:x\r\nHOST: www.example:81 \r\n\r\n");
        assert_eq!(
            (head.first, head.target, head.host),
            (Some("GET"), Some("/a?b"), Some("www.example:81"))
        );
        let head = Head::of(b"HTTP/1.1 403 Forbidden\r\n\r\n");
        assert_eq!((head.target, head.host), (Some("403"), None));
        assert_eq!(Head::of(b"").target, None);
    }
}
