//! The `icap_stub` section.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use sluice_addr::Host;
use sluice_config::Load;
use sluice_config::value::{NodeName, OneOrMany, SockAddrSpec, Span};
use sluice_http1::put_field;

/// What the daemon reads of the main file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IcapStubConfig {
    /// Where it listens: `IP:PORT`, or the absolute path of a Unix socket. Nowhere, unless told to.
    pub(crate) listen: OneOrMany<Listen>,
    /// What it offers.
    pub(crate) services: OneOrMany<ServiceConfig>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub(crate) enum Listen {
    /// TCP.
    Tcp(SockAddrSpec),
    /// A Unix socket.
    Unix(PathBuf),
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let text = de::value::StringDeserializer::<D::Error>::new(text);
        SockAddrSpec::deserialize(text).map(Self::Tcp)
    }
}

/// One service; its name is the path of its URL.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceConfig {
    /// `echo` is asked for as `icap://host/echo`.
    pub(crate) name: NodeName,
    /// What it does: both by default.
    #[serde(default = "both")]
    pub(crate) methods: OneOrMany<Vector>,
    /// Bytes of a body that it wants to see first; `none` for no preview.
    #[serde(default = "preview")]
    pub(crate) preview: Preview,
    /// How long what it says of itself holds; for ever if not set.
    #[serde(default)]
    pub(crate) options_ttl: Option<Span>,
    /// Whether it may leave a message as it is by saying so, rather than by sending it back.
    #[serde(default = "yes")]
    pub(crate) allow_204: bool,
    /// Header lines of every answer, `Name: value`.
    #[serde(default)]
    pub(crate) answer_header: OneOrMany<HeaderLine>,
    /// What is done; the first rule that fits counts, and what none fits is left as it is.
    #[serde(default)]
    pub(crate) rules: Vec<RuleConfig>,
}

/// What may be adapted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Vector {
    /// Requests.
    Reqmod,
    /// Responses.
    Respmod,
}

/// A number of bytes, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub(crate) struct Preview(pub(crate) Option<u32>);

impl<'de> Deserialize<'de> for Preview {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?; // a number is a string too, where one is asked for
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        let expected = "a number of bytes up to 1048576, or `none`";
        text.parse()
            .ok()
            .filter(|bytes| *bytes <= 1 << 20)
            .map(|bytes| Self(Some(bytes)))
            .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Str(&text), &expected))
    }
}

/// A header line `Name: value`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub(crate) struct HeaderLine {
    /// In lower case.
    pub(crate) name: String,
    /// The whole line, with its CRLF.
    pub(crate) line: Vec<u8>,
}

impl<'de> Deserialize<'de> for HeaderLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut line = Vec::new();
        let put = text
            .split_once(':')
            .and_then(|(name, value)| put_field(&mut line, name, value.as_bytes()).ok().map(|()| name));
        match put {
            Some(name) => Ok(Self {
                name: name.to_ascii_lowercase(),
                line,
            }),
            None => Err(de::Error::invalid_value(
                de::Unexpected::Str(&text),
                &"a header line such as `X-Seen: yes`",
            )),
        }
    }
}

/// What is done with which messages.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RuleConfig {
    /// Requests only, or responses only.
    pub(crate) vector: Option<Vector>,
    /// The host that the HTTP request is for; a domain stands for what is below it, too.
    #[schemars(with = "Option<String>")]
    pub(crate) host: Option<Host>,
    /// How the path of the HTTP request begins.
    pub(crate) path: Option<String>,
    /// The method of the HTTP request.
    pub(crate) method: Option<String>,
    /// What is answered.
    pub(crate) answer: Answer,
    /// How long the answer takes.
    pub(crate) delay: Option<Span>,
    /// Header lines that replace those of the same name, with `echo`.
    pub(crate) set_header: OneOrMany<HeaderLine>,
    /// What the body is replaced by, with `echo`; a message without a body gets one.
    pub(crate) replace_body: Option<String>,
    /// The HTTP status of `block` (403 by default), or the ICAP status of `fail` (500 by default).
    pub(crate) status: Option<u16>,
    /// The page of `block`, as HTML.
    pub(crate) page: Option<String>,
}

/// Kinds of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// An HTTP response with a page in the message's stead.
    Block,
    /// The connection is closed without an answer.
    Close,
    /// The message is sent back, changed or not.
    Echo,
    /// An ICAP error.
    Fail,
    /// The message stays as it is: 204 where the client takes it, else it is sent back.
    #[default]
    NoChange,
}

fn both() -> OneOrMany<Vector> {
    OneOrMany(vec![Vector::Reqmod, Vector::Respmod])
}
fn preview() -> Preview {
    Preview(Some(1024))
}
fn yes() -> bool {
    true
}

impl IcapStubConfig {
    /// Reads the section; what is wrong is recorded in `load`.
    pub(crate) fn read(load: &mut Load) -> Self {
        let config: Self = load.section("icap_stub").unwrap_or_default();
        let Some(place) = load.place("icap_stub") else {
            return config;
        };
        let mut error = |path: String, message: &str| load.error(&place, path.as_str(), message);
        match (config.listen.is_empty(), config.services.is_empty()) {
            (true, false) => error("services".into(), "needs `listen`: nobody could reach a service"),
            (false, true) => error("listen".into(), "needs `services`: there would be nothing to ask for"),
            _ => {}
        }
        for (index, service) in config.services.iter().enumerate() {
            let path = format!("services[{index}]");
            let earlier = &config.services[..index];
            if earlier.iter().any(|other| other.name.as_str() == service.name.as_str()) {
                error(format!("{path}.name"), "another service has this name");
            }
            if service.methods.is_empty() {
                error(format!("{path}.methods"), "a service does one thing at least");
            }
            for (number, rule) in service.rules.iter().enumerate() {
                if let Some((key, message)) = rule.contradiction() {
                    error(format!("{path}.rules[{number}].{key}"), message);
                }
            }
        }
        config
    }
}

impl RuleConfig {
    /// A key that would do nothing, and why.
    fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        if self.answer != Answer::Echo {
            if !self.set_header.is_empty() {
                return Some(("set_header", "needs `answer: echo`"));
            }
            if self.replace_body.is_some() {
                return Some(("replace_body", "needs `answer: echo`"));
            }
        }
        if self.page.is_some() && self.answer != Answer::Block {
            return Some(("page", "needs `answer: block`"));
        }
        match (self.answer, self.status) {
            (Answer::Block, Some(status)) if !(200..600).contains(&status) || matches!(status, 204 | 205 | 304) => {
                Some(("status", "not a status of a page: 200 to 599, and not 204, 205 or 304"))
            }
            (Answer::Fail, Some(status)) if !(400..600).contains(&status) => {
                Some(("status", "not an ICAP error: 400 to 599"))
            }
            (Answer::Block | Answer::Fail, _) | (_, None) => None,
            (_, Some(_)) => Some(("status", "needs `answer: block` or `answer: fail`")),
        }
    }
}
