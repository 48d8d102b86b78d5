//! Services, and what they do with which messages.

use std::sync::Arc;
use std::time::Duration;

use sluice_addr::{Host, Upstream};
use sluice_icap::Method;

use crate::config::{Answer, IcapStubConfig, RuleConfig, ServiceConfig, Vector};

/// All services of one configuration.
#[derive(Debug, Default)]
pub(crate) struct Services(Vec<Arc<Service>>);

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) config: ServiceConfig,
    /// Fields of its answer to OPTIONS.
    pub(crate) offer: Vec<u8>,
}

/// What is to be done with a message.
#[derive(Debug)]
pub(crate) enum Verdict<'a> {
    /// Nothing.
    NoChange,
    /// What a rule says.
    Rule(&'a RuleConfig),
}

impl Services {
    /// Those of `config`.
    pub(crate) fn new(config: &IcapStubConfig) -> Self {
        let services = config.services.iter();
        Self(
            services
                .map(|service| Arc::new(Service::new(service.clone())))
                .collect(),
        )
    }

    /// The service with this path of a URL.
    pub(crate) fn find(&self, path: &str) -> Option<&Arc<Service>> {
        let name = path.trim_matches('/');
        self.0.iter().find(|service| service.config.name.as_str() == name)
    }

    /// Names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|service| service.config.name.to_string()).collect()
    }
}

impl Service {
    fn new(config: ServiceConfig) -> Self {
        let methods: Vec<_> = config
            .methods
            .iter()
            .map(|vector| match vector {
                Vector::Reqmod => Method::Reqmod.as_str(),
                Vector::Respmod => Method::Respmod.as_str(),
            })
            .collect();
        let mut offer = format!("Methods: {}\r\nService: Sluice icap-stub\r\n", methods.join(", "));
        if config.allow_204 {
            offer.push_str("Allow: 204\r\n");
        }
        if let Some(preview) = config.preview.0 {
            offer.push_str(&format!("Preview: {preview}\r\nTransfer-Preview: *\r\n"));
        }
        if let Some(ttl) = config.options_ttl {
            offer.push_str(&format!("Options-TTL: {}\r\n", ttl.0.as_secs()));
        }
        let mut offer = offer.into_bytes();
        for header in &config.answer_header {
            offer.extend_from_slice(&header.line);
        }
        Self { config, offer }
    }

    /// Whether it does `method`.
    pub(crate) fn does(&self, method: Method) -> bool {
        let vector = match method {
            Method::Options => return true,
            Method::Reqmod => Vector::Reqmod,
            Method::Respmod => Vector::Respmod,
        };
        self.config.methods.contains(&vector)
    }

    /// What is to be done with a message for the HTTP request of this head, which may be missing with RESPMOD.
    pub(crate) fn judge(&self, method: Method, http_request: &[u8]) -> Verdict<'_> {
        let asked = Asked::read(http_request);
        let rule = self.config.rules.iter().find(|rule| asked.fits(rule, method));
        rule.map_or(Verdict::NoChange, Verdict::Rule)
    }
}

impl Verdict<'_> {
    /// The kind of answer.
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::NoChange => Answer::NoChange,
            Self::Rule(rule) => rule.answer,
        }
    }

    /// How long it takes.
    pub(crate) fn delay(&self) -> Option<Duration> {
        match self {
            Self::NoChange => None,
            Self::Rule(rule) => rule.delay.map(|delay| delay.0),
        }
    }
}

/// What an HTTP request is for.
#[derive(Debug, Default)]
struct Asked {
    method: String,
    host: Option<Host>,
    path: String,
}

impl Asked {
    /// Reads as much as there is sense in: a rule is about what is asked for, not about how well.
    fn read(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (authority, path) = match target.split_once("://") {
            Some((_, rest)) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", target),
        };
        let named = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("host"))
            .map_or("", |(_, value)| value.trim());
        let authority = if authority.is_empty() { named } else { authority };
        Self {
            method: method.to_owned(),
            host: Upstream::parse(authority).ok().map(|upstream| upstream.host),
            path: path.to_owned(),
        }
    }

    fn fits(&self, rule: &RuleConfig, method: Method) -> bool {
        let on = match rule.vector {
            None => true,
            Some(Vector::Reqmod) => method == Method::Reqmod,
            Some(Vector::Respmod) => method == Method::Respmod,
        };
        on && rule
            .host
            .as_ref()
            .is_none_or(|host| self.host.as_ref().is_some_and(|own| is_within(own, host)))
            && rule
                .path
                .as_ref()
                .is_none_or(|path| self.path.starts_with(path.as_str()))
            && rule.method.as_ref().is_none_or(|method| self.method == *method)
    }
}

/// Whether `host` is `rule`, or a domain below it.
fn is_within(host: &Host, rule: &Host) -> bool {
    host == rule
        || match (host, rule) {
            (Host::Domain(host), Host::Domain(rule)) => {
                host.strip_suffix(&**rule).is_some_and(|labels| labels.ends_with('.'))
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(head: &str) -> Asked {
        Asked::read(head.as_bytes())
    }

    fn rule(host: Option<&str>, path: Option<&str>, method: Option<&str>) -> RuleConfig {
        RuleConfig {
            host: host.map(|host| Host::parse(host).unwrap()),
            path: path.map(str::to_owned),
            method: method.map(str::to_owned),
            ..RuleConfig::default()
        }
    }

    #[test]
    fn a_rule_fits_if_all_that_it_says_does() {
        let asked = asked("GET /a/b HTTP/1.1\r\nHost: www.bad.example:80\r\n\r\n");
        for (rule, fits) in [
            (rule(None, None, None), true),
            (rule(Some("bad.example"), None, None), true),
            (rule(Some("www.bad.example"), Some("/a"), Some("GET")), true),
            (rule(Some("ad.example"), None, None), false),
            (rule(Some("bad.example"), Some("/b"), None), false),
            (rule(None, None, Some("POST")), false),
        ] {
            assert_eq!(asked.fits(&rule, Method::Reqmod), fits, "{rule:?}");
        }
        let responses = RuleConfig {
            vector: Some(Vector::Respmod),
            ..RuleConfig::default()
        };
        assert!(asked.fits(&responses, Method::Respmod) && !asked.fits(&responses, Method::Reqmod));
    }

    #[test]
    fn a_url_counts_more_than_the_host_field() {
        let asked = asked("GET http://a.example/x HTTP/1.1\r\nHost: b.example\r\n\r\n");
        assert!(asked.fits(&rule(Some("a.example"), Some("/x"), None), Method::Reqmod));
    }
}
